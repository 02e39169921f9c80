"""Drawings and texts of the report."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from occupancy_db.backup.manifest import Verified
from occupancy_db.backup.sets import BackupSet
from occupancy_db.report import backups, charts
from occupancy_db.report.home import Home
from occupancy_db.report.parts import Chart, Table, Text, ago, duration, percent, size, skipped
from occupancy_db.report.statements import LONGEST, _short


def test_a_chart_has_a_bar_for_each_value_its_labels_and_no_script() -> None:
    drawn = charts.bars("a <b>", "below", ["one", "", "<three>"], [1000, 0, 2500], "{:,.0f}".format)
    svg = str(drawn.svg)
    assert svg.count('class="bar"') == 3
    assert len(re.findall(r"<rect [^>]*reactive", svg)) == 3
    assert "&lt;three&gt;" in svg
    assert ">2,000<" in svg
    assert "<script" not in svg
    assert "var(--first)" in svg


def test_two_lines_are_told_apart_without_their_colours() -> None:
    points = [(0.0, 0.0), (50.0, 80.0)]
    drawn = charts.lines("a", "b", {"one": points, "two": points}, "{:.0f}".format, "{:.0f}".format)
    assert str(drawn.svg).count("stroke-dasharray:6,4") == 1
    assert "one" in str(drawn.svg)
    assert "two" in str(drawn.svg)


def test_spans_that_touch_are_drawn_as_one() -> None:
    day = 1440
    parts = [(0, 10 / day), (10.2 / day, 10.4 / day), (720 / day, 721 / day), (721 / day, 1)]
    svg = str(charts.spans('Occupied "all" day', parts))
    assert re.findall(r'd="([^"]*)"', svg) == ["M0 0h6v9H0M360 0h360v9H360"]
    assert 'aria-label="Occupied &#34;all&#34; day"' in svg
    # A span of a second is visible.
    assert "h1v9" in str(charts.spans("x", [(0.5, 0.500001)]))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.9, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (2e15, "2.0 PB"),
        (2e18, "2,000.0 PB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (3661, "1 h 1 min"), (86400 * 3 + 7200, "3 d 2 h"), (3601, "1 h 1 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ages_and_shares() -> None:
    now = datetime.now(UTC)
    assert ago(now - timedelta(hours=2), now) == "2 h ago"
    assert ago(now + timedelta(hours=2), now) == "in the future"
    assert (percent(1, 3), percent(0, 0)) == ("33 %", "–")


def test_statements_are_shown_without_their_comments() -> None:
    assert _short("SELECT /* user 7 */ 1\n  -- of anca\n FROM t") == "SELECT 1 FROM t"
    assert len(_short("SELECT " + "a, " * 500)) == LONGEST


def test_backup_sets_are_shown_newest_first_with_what_is_known_of_each() -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    home = Home(ZoneInfo("Europe/Berlin"), now, 28, {})

    def backup(hours: int, verified: bool = False, **more: Any) -> BackupSet:
        made = now - timedelta(hours=hours)
        record = Verified(manifest="0" * 64, verified_at=made + timedelta(minutes=5), seconds=61, rows=1234)
        known: dict[str, Any] = {"manifest": None, "problem": None, "pinned": None, **more}
        return BackupSet(Path(f"set-{hours}"), "home", made, verified=record if verified else None, **known)

    sets = [
        backup(50, True, pinned="by hand"),
        backup(26, True),
        backup(2, problem="db.dump is <missing>"),
        backup(1),
    ]
    text, chart, table = backups.section(home, sets).parts
    assert isinstance(text, Text)
    assert text.text.endswith("was made 1 d 2 h ago, at 2026-11-26 11:00.")
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert [[getattr(cell, "text", cell) for cell in row] for row in table.rows] == [
        ["2026-11-27 12:00", "unverified", "–", "–", "–", "–", ""],
        ["2026-11-27 11:00", "damaged", "–", "–", "–", "–", "db.dump is <missing>"],
        ["2026-11-26 11:00", "verified", "2026-11-26 11:05", "1 min 1 s", "–", "1,234", ""],
        ["2026-11-25 11:00", "verified", "2026-11-25 11:05", "1 min 1 s", "–", "1,234", "pinned: by hand"],
    ]
    assert backups.section(home, []).parts == [skipped("There is no backup set.")]
