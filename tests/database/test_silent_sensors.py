"""Sensors that have sent nothing for longer than expected are shown, and others are not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.conftest import Database
from tests.database.test_commands import answer
from tests.database.test_hours import ask, sum_up

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
DESK = "binary_sensor.desk"


@pytest.fixture(autouse=True)
def _now() -> None:
    """Each test has its own present: in a slow run the time of the import is some minutes ago."""
    globals()["NOW"] = datetime.now(UTC)


def send(cursor: Cursor, *hours_ago: float, entity: str = DESK, zone: str = "desk") -> None:
    cursor.executemany(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (%s, 'office', %s, true, %s)",
        [(NOW - hours * HOUR, zone, entity) for hours in hours_ago],
    )


def silent(cursor: Cursor) -> list[tuple[Any, ...]]:
    found = ask(cursor, "SELECT entity, last_reading, expected, basis FROM silent_sensors ORDER BY 1")
    return [(entity, last and (NOW - last) / HOUR, wait / HOUR, basis) for entity, last, wait, basis in found]


def days(last: float) -> list[float]:
    """A reading each half an hour for five days, except at night: silences of 8.5 hours."""
    return [last + half / 2 for half in range(48 * 5) if half % 48 < 32]


@pytest.mark.parametrize(("last", "shown"), [(16.9, False), (17.6, True)])
def test_twice_the_second_longest_silence_is_expected(cursor: Cursor, last: float, shown: bool) -> None:
    send(cursor, *days(last), 330)  # the longest silence is that of a failure
    expected = [(DESK, pytest.approx(last), pytest.approx(17), "learnt")]
    assert silent(cursor) == (expected if shown else [])


def test_a_busy_sensor_may_be_silent_for_an_hour(cursor: Cursor) -> None:
    send(cursor, *(1.2 + n / 60 for n in range(30)))
    send(cursor, *(0.9 + n / 60 for n in range(30)), entity="binary_sensor.door", zone="door")
    assert silent(cursor) == [(DESK, pytest.approx(1.2), pytest.approx(1), "learnt")]


def test_few_readings_teach_nothing(cursor: Cursor) -> None:
    send(cursor, 23.5, 24.5, 25)
    assert silent(cursor) == []
    send(cursor, 24.5, 25, entity="binary_sensor.door", zone="door")
    assert silent(cursor) == [("binary_sensor.door", pytest.approx(24.5), 24, "default")]


def test_a_silence_that_is_set_counts_before_what_was_learnt(database: Database, cursor: Cursor) -> None:
    send(cursor, *days(17.6))
    place = ["sensors", "set", DESK, "--room", "office", "--zone", "desk"]
    answer(database, *place, "--max-silence", "3 days")
    assert silent(cursor) == []
    answer(database, "sensors", "set", DESK, "--max-silence", "10 h")
    assert silent(cursor) == [(DESK, pytest.approx(17.6), 10, "set")]
    answer(database, "sensors", "set", DESK, "--max-silence", "0")
    assert [row[-1] for row in silent(cursor)] == ["learnt"]
    answer(database, "sensors", "retire", DESK)
    assert silent(cursor) == []


def test_sensors_that_are_silent_for_long_or_have_never_sent(database: Database, cursor: Cursor) -> None:
    answer(database, "sensors", "set", DESK, "--room", "office", "--zone", "desk")
    answer(database, "sensors", "set", "binary_sensor.new", "--room", "office", "--zone", "door")
    send(cursor, 500, 501)
    send(cursor, 500, entity="binary_sensor.without_a_place", zone="sofa")
    send(cursor, -3, entity="binary_sensor.ahead", zone="sofa")
    for _ in range(2):
        assert silent(cursor) == [
            (DESK, pytest.approx(500), 24, "default"),
            ("binary_sensor.new", None, 24, "default"),
        ]
        sum_up(cursor)
