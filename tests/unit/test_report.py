"""Drawings and texts of the report."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from occupancy_db.report import charts
from occupancy_db.report.parts import ago, duration, percent, size
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


def test_spans_are_drawn_to_the_minute_and_those_that_touch_as_one() -> None:
    day = 1440
    parts = [(0, 10 / day), (10.2 / day, 10.4 / day), (720 / day, 721 / day), (721 / day, 1)]
    svg = str(charts.spans('Occupied "all" day', parts))
    assert re.findall(r'd="([^"]*)"', svg) == ["M0 0h11v9H0M720 0h720v9H720"]
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
