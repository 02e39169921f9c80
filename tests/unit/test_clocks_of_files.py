"""Timestamps of files: local ones, days first, and seconds since 1970."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from occupancy_db.history.times import TimeFormat
from tests.unit.test_formats import GOOD, HEADER, Result, read

BERLIN = ZoneInfo("Europe/Berlin")


def line(clock: str, entity: str = "binary_sensor.desk") -> str:
    return GOOD.replace("2026-10-31T23:59:59.5Z", clock).replace("binary_sensor.desk", entity)


def local(tmp_path: Path, *lines: str, zone: ZoneInfo = BERLIN) -> Result:
    return read(tmp_path, HEADER + "".join(lines), timezone=zone)


def moments(result: Result) -> list[str]:
    return [f"{row[-1]:%d %H:%M}" for row in result.rows]


def test_local_times_and_times_with_an_offset(tmp_path: Path) -> None:
    clocks = ["2026-10-25T01:59:59", "2026-10-25T02:30:00+01:00", "2026-11-01T00:30"]
    assert [row[-1].isoformat() for row in local(tmp_path, *map(line, clocks)).rows] == [
        "2026-10-24T23:59:59+00:00",
        "2026-10-25T01:30:00+00:00",
        "2026-10-31T23:30:00+00:00",
    ]


def test_the_hour_that_comes_twice_is_told_apart_by_the_order_of_the_file(tmp_path: Path) -> None:
    clocks = ["01:50", "02:10", "02:50", "02:00", "02:55", "03:10"]
    result = local(tmp_path, *(line(f"2026-10-25T{clock}") for clock in clocks))
    assert sorted(moments(result)) == ["24 23:50", "25 00:10", "25 00:50", "25 01:00", "25 01:55", "25 02:10"]
    assert result.rejected == []
    # The newest row first
    backwards = local(tmp_path, *(line(f"2026-10-25T{clock}") for clock in reversed(clocks)))
    assert sorted(moments(backwards)) == sorted(moments(result))


def test_the_hour_that_comes_twice_is_told_apart_among_the_rows_of_an_entity(tmp_path: Path) -> None:
    lines = [line(f"2026-10-25T{clock}", entity) for entity in "ab" for clock in ("02:30", "02:10", "04:00")]
    result = local(tmp_path, *lines)
    assert sorted(moments(result)) == ["25 00:30"] * 2 + ["25 01:10"] * 2 + ["25 03:00"] * 2


@pytest.mark.parametrize(
    "clocks",
    [
        ["01:50", "02:30", "03:10"],  # nothing tells
        ["02:40", "02:10"],  # forwards in two passes, or backwards in one
        ["01:50", "02:40", "02:10", "02:50", "02:20", "03:10"],  # no order
    ],
)
def test_what_the_order_does_not_tell_is_rejected(tmp_path: Path, clocks: list[str]) -> None:
    result = local(tmp_path, *(line(f"2026-10-25T{clock}") for clock in clocks))
    twice = [clock for clock in clocks if clock.startswith("02")]
    assert len(result.rejected) == len(twice)
    assert all("twice, and the order does not tell" in reason for _, reason, _ in result.rejected)
    assert len(result.rows) == len(clocks) - len(twice)


def test_entities_one_after_the_other_are_not_taken_for_one_hour(tmp_path: Path) -> None:
    lines = [line(f"2026-10-25T{clock}", entity) for entity in "ab" for clock in ("02:20", "02:40")]
    assert len(local(tmp_path, *lines).rejected) == 4


def test_a_time_that_was_skipped_in_spring_is_rejected(tmp_path: Path) -> None:
    result = local(tmp_path, line("2026-03-29T02:30"), line("2026-03-29T03:00"))
    assert [reason for _, reason, _ in result.rejected] == ["the clocks never showed 2026-03-29T02:30"]
    assert moments(result) == ["29 01:00"]


def test_every_moment_of_an_autumn_night_is_found_again(tmp_path: Path) -> None:
    """Also where the clocks go back by half an hour."""
    for zone, start in (
        (BERLIN, datetime(2026, 10, 24, 22, tzinfo=UTC)),
        (ZoneInfo("Australia/Lord_Howe"), datetime(2026, 4, 4, 12, tzinfo=UTC)),
    ):
        wanted = [start + timedelta(minutes=7 * n) for n in range(60)]
        lines = [line(f"{moment.astimezone(zone):%FT%T}", f"e{n % 2}") for n, moment in enumerate(wanted)]
        result = local(tmp_path, *lines, zone=zone)
        assert result.rejected == []
        assert sorted(row[-1] for row in result.rows) == wanted


@pytest.mark.parametrize(
    ("clock", "options"),
    [
        ("1793491199.5", {}),
        ("1793491199500", {}),
        ("1793491199.5", {"times": TimeFormat.SECONDS}),
        ("31.10.2026 23:59:59.5Z", {"times": TimeFormat.DAY_FIRST}),
        ("31/10/2026 23:59:59.5", {"times": TimeFormat.DAY_FIRST, "timezone": ZoneInfo("UTC")}),
        ("1.11.2026, 00:59:59.5", {"times": TimeFormat.DAY_FIRST, "timezone": BERLIN}),
    ],
)
def test_timestamps_of_other_forms(tmp_path: Path, clock: str, options: dict[str, Any]) -> None:
    quoted = f'"{clock}"' if "," in clock else clock
    result = read(tmp_path, HEADER + line(quoted), **options)
    assert result.rejected == []
    assert [row[-1] for row in result.rows] == [datetime(2026, 10, 31, 23, 59, 59, 500_000, UTC)]


@pytest.mark.parametrize("clock", ["31.10.2026 23:59Z", "1712011500123", "nan", "20261031"])
def test_timestamps_of_another_form_than_the_first_are_rejected(tmp_path: Path, clock: str) -> None:
    result = read(tmp_path, HEADER + GOOD + line(clock))
    assert len(result.rejected) == len(result.rows) == 1


def test_semicolons_decimal_commas_and_constants(tmp_path: Path) -> None:
    content = "when;zone;state;confidence;source_entity\n31.10.2026 23:59:59;desk;on;0,93;e\n"
    result = read(
        tmp_path,
        content,
        columns={"timestamp": "when"},
        constants={"room": "office"},
        times=TimeFormat.DAY_FIRST,
        timezone=ZoneInfo("UTC"),
        decimal_comma=True,
    )
    assert result.rejected == []
    assert [row[:5] for row in result.rows] == [("office", "desk", True, "e", 0.93)]
    lines = '{"timestamp": 1793491199, "state": true}\n'
    constants = {"room": "office", "zone": "desk", "source_entity": "e", "confidence": "0.5"}
    assert read(tmp_path, lines, constants=constants).rows[0][:5] == ("office", "desk", True, "e", 0.5)
