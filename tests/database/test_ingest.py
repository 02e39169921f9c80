"""Live ingest as the application uses it."""

import math
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import asyncpg
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.connection import dispose_engine, get_engine
from occupancy_db.errors import DatabaseError
from occupancy_db.models import RoomType
from occupancy_db.months import following, month_of, partition_name
from occupancy_db.readings import InvalidReadings, Reading, ingest
from tests.database.conftest import Database
from tests.database.users import grant, password

NOW = datetime.now(UTC).replace(microsecond=123456)
GOOD = Reading(NOW, RoomType.OFFICE, "desk", True, "binary_sensor.desk", 0.25)


@pytest.fixture(autouse=True)
async def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """This process, with the environment of an application of the database."""
    for name, value in database.environment().items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    yield database
    await dispose_engine()


@pytest.fixture
def as_application(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's user, with the privileges that the access role grants."""
    grant(database.cluster, database.name)
    monkeypatch.setenv("POSTGRES_USER", "occupancy_app")
    monkeypatch.setenv("POSTGRES_PASSWORD", password("occupancy_app"))


def rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    cursor.execute(
        "SELECT timestamp, room::text, zone, state, source_entity, confidence "
        "FROM sensor_readings ORDER BY timestamp, confidence"
    )
    return cursor.fetchall()


async def test_readings_and_mappings_are_stored_exactly(cursor: Cursor) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30))) - timedelta(days=70)
    batch: list[Reading | dict[str, Any]] = [
        GOOD,
        replace(GOOD, timestamp=east, room="bedroom", zone="Ünïcode\t\\N\n'", state=False, confidence=1.0),
        replace(GOOD, timestamp=NOW - timedelta(seconds=1), confidence=1),
        {key: value for key, value in asdict(GOOD).items() if key != "confidence"} | {"state": False},
    ]
    assert await ingest(batch) == 4
    assert rows(cursor) == [
        (east, "bedroom", "Ünïcode\t\\N\n'", False, "binary_sensor.desk", 1.0),
        (NOW - timedelta(seconds=1), "office", "desk", True, "binary_sensor.desk", 1.0),
        (NOW, "office", "desk", True, "binary_sensor.desk", 0.25),
        (NOW, "office", "desk", False, "binary_sensor.desk", 1.0),
    ]
    cursor.execute(
        "SELECT count(DISTINCT id), count(*) FILTER (WHERE created_at > now() - interval '1 min') "
        "FROM sensor_readings"
    )
    assert cursor.fetchone() == (4, 4)


async def test_each_row_is_stored_in_its_month(cursor: Cursor) -> None:
    """A month begins at midnight UTC, to the microsecond; timestamps may have another time zone."""
    edge = datetime(NOW.year, NOW.month, 1, tzinfo=UTC)
    west = timezone(timedelta(hours=-8))
    batch = [
        replace(GOOD, timestamp=moment.astimezone(zone), zone=f"{zone} {number}")
        for number, moment in enumerate(
            (edge, edge - timedelta(microseconds=1), edge, edge - timedelta(days=40))
        )
        for zone in (UTC, west)
    ]
    assert await ingest(iter(batch)) == 8
    cursor.execute("SELECT tableoid::regclass::text, count(*) FROM sensor_readings GROUP BY 1")
    here = month_of(edge)
    assert dict(cursor.fetchall()) == {
        partition_name(here): 4,
        partition_name(following(here, -1)): 2,
        partition_name(following(here, -2)): 2,
    }


async def test_readings_ahead_of_the_clock_are_stored_where_their_month_exists(cursor: Cursor) -> None:
    """The clock of the host may be the wrong one; the status leaves the reading out until it is due."""
    early = [replace(GOOD, timestamp=NOW + timedelta(days=days)) for days in (0.8, 60)]
    assert await ingest([GOOD, *early]) == 3
    assert [row[0] for row in rows(cursor)] == [GOOD.timestamp, *(reading.timestamp for reading in early)]
    cursor.execute("SELECT last_update FROM room_occupancy_status")
    assert cursor.fetchall() == [(GOOD.timestamp,)]
    month = month_of(NOW + timedelta(days=60))
    cursor.execute(f"DROP TABLE {partition_name(month)}")
    with pytest.raises(DatabaseError, match=f"no partition for readings of {month:%Y-%m}"):
        await ingest(early)


async def test_an_empty_batch_writes_nothing(cursor: Cursor) -> None:
    assert await ingest([]) == 0
    assert rows(cursor) == []


BAD: dict[str, dict[str, Any]] = {
    "timestamp has no time zone": {"timestamp": NOW.replace(tzinfo=None)},
    "timestamp is not a datetime": {"timestamp": "2026-11-01T00:00:00Z"},
    "was the clock set": {"timestamp": datetime(1970, 1, 1, tzinfo=UTC)},
    "in the future": {"timestamp": NOW + timedelta(days=101)},
    "unknown room 'attic'": {"room": "attic"},
    "unknown room None": {"room": None},
    "unknown room ['office']": {"room": ["office"]},
    "zone is empty": {"zone": ""},
    "zone is longer than 50": {"zone": "x" * 51},
    "zone contains a NUL": {"zone": "a\0b"},
    "zone is not valid Unicode": {"zone": "\ud800"},
    "zone is not text": {"zone": 7},
    "source_entity is longer than 100": {"source_entity": "x" * 101},
    "source_entity is not text": {"source_entity": None},
    "state is not a bool: 1": {"state": 1},
    "state is not a bool: 'on'": {"state": "on"},
    "confidence is not between 0 and 1: nan": {"confidence": math.nan},
    "confidence is not between 0 and 1: 1.01": {"confidence": 1.01},
    "confidence is not between 0 and 1: -1": {"confidence": -1},
    "confidence is not a number: True": {"confidence": True},
    "confidence is not a number: '0.5'": {"confidence": "0.5"},
}


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("warm", [False, True])
async def test_a_bad_reading_is_named_and_nothing_is_written(cursor: Cursor, reason: str, warm: bool) -> None:
    bad: dict[str, Any] = {**asdict(GOOD), **BAD[reason]}
    batch: list[Any] = [GOOD] * warm + [Reading(**bad), GOOD, bad]
    with pytest.raises(InvalidReadings) as caught:
        await ingest(batch)
    assert [index for index, _ in caught.value.problems] == [warm, 2 + warm]
    assert all(reason in problem for _, problem in caught.value.problems)
    assert reason in str(caught.value)
    assert rows(cursor) == []


async def test_keys_are_checked_and_many_problems_are_summed_up() -> None:
    good = asdict(GOOD)
    batch: list[Any] = [{**good, "id": 1}, {"zone": "desk"}, 5] + [{**good, "state": 2}] * 10
    with pytest.raises(
        InvalidReadings, match=r"^13 invalid: reading 0: unknown key 'id'.*; and 8 more$"
    ) as caught:
        await ingest(batch)
    assert caught.value.problems[1:3] == [
        (1, "missing key room, source_entity, state, timestamp"),
        (2, "neither a Reading nor a mapping nor an object like a Reading: int"),
    ]


async def test_a_room_that_was_added_a_moment_ago_is_accepted(cursor: Cursor) -> None:
    """The rooms are kept between batches; an unknown room makes ingest read them again."""
    kitchen = replace(GOOD, room="kitchen")
    assert await ingest([GOOD]) == 1
    with pytest.raises(InvalidReadings, match=r"^1 invalid: reading 1: unknown room 'kitchen'$"):
        await ingest([GOOD, kitchen])
    cursor.execute("ALTER TYPE room_type ADD VALUE 'kitchen'")
    assert await ingest([GOOD, kitchen]) == 1
    assert sorted(row[1] for row in rows(cursor)) == ["kitchen", "office"]


async def test_a_retired_room_takes_late_readings_only(cursor: Cursor) -> None:
    late = replace(GOOD, timestamp=NOW - timedelta(hours=1, microseconds=1))
    at_once = replace(GOOD, timestamp=NOW - timedelta(hours=1))
    cursor.execute("INSERT INTO rooms (room, retired_at) VALUES ('office', %s)", [NOW - timedelta(hours=1)])
    with pytest.raises(InvalidReadings) as caught:
        await ingest([late, at_once, replace(GOOD, room="bedroom"), late, GOOD])
    reason = f"room 'office' was retired on {NOW - timedelta(hours=1):%Y-%m-%d %H:%M:%S}+00"
    assert caught.value.problems == [(1, reason), (4, reason)]
    assert rows(cursor) == []
    assert await ingest([late, late]) == 1
    cursor.execute("UPDATE rooms SET retired_at = NULL")
    assert await ingest([GOOD]) == 1


async def test_a_room_that_was_retired_a_moment_ago_is_named(cursor: Cursor) -> None:
    """The server refuses the rows; ingest reads the rooms again and lists the readings."""
    assert await ingest([GOOD]) == 1
    cursor.execute("INSERT INTO rooms (room, retired_at) VALUES ('office', %s)", [NOW])
    with pytest.raises(InvalidReadings, match=r"^1 invalid: reading 1: room 'office' was retired on "):
        await ingest([replace(GOOD, room="bedroom"), replace(GOOD, zone="door")])
    assert len(rows(cursor)) == 1


async def test_a_room_that_was_renamed_a_moment_ago_is_unknown(cursor: Cursor) -> None:
    assert await ingest([GOOD]) == 1
    cursor.execute("ALTER TYPE room_type RENAME VALUE 'office' TO 'study'")
    with pytest.raises(InvalidReadings, match="reading 0: unknown room 'office'"):
        await ingest([replace(GOOD, zone="door")])


async def test_a_month_without_a_partition_stops_the_batch(cursor: Cursor) -> None:
    with pytest.raises(
        DatabaseError, match=r"no partition for readings of 2024-02: .* from \d{4}-\d\d to \d{4}-\d\d"
    ):
        await ingest([GOOD, replace(GOOD, timestamp=datetime(2024, 2, 29, tzinfo=UTC))])
    assert rows(cursor) == []


async def test_a_detached_month_accepts_no_readings(cursor: Cursor) -> None:
    """The detached table still has its name, and rows in it would be removed with it."""
    cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {partition_name(month_of(NOW))}")
    with pytest.raises(DatabaseError, match="no partition"):
        await ingest([GOOD])
    cursor.execute(f"SELECT count(*) FROM {partition_name(month_of(NOW))}")
    assert cursor.fetchone() == (0,)


async def test_a_failure_in_the_second_month_rolls_back_the_first(cursor: Cursor) -> None:
    month = partition_name(month_of(NOW))
    cursor.execute(f"ALTER TABLE {month} ADD CHECK (zone <> 'refused')")
    batch = [replace(GOOD, timestamp=NOW - timedelta(days=40)), replace(GOOD, zone="refused")]
    with pytest.raises(asyncpg.CheckViolationError):
        await ingest(batch)
    assert rows(cursor) == []
    assert await ingest(batch[:1]) == 1  # on the same connection


@pytest.mark.usefixtures("as_application")
async def test_the_application_may_ingest(cursor: Cursor) -> None:
    assert await ingest([GOOD, replace(GOOD, timestamp=NOW - timedelta(days=40))]) == 2
    assert len(rows(cursor)) == 2


async def test_closed_hours_are_marked_and_the_statistics_stay_exact(cursor: Cursor) -> None:
    cursor.execute("SELECT hourly.close(now())")
    late = NOW - timedelta(hours=3)
    await ingest([replace(GOOD, timestamp=late), GOOD])
    cursor.execute("SELECT sum(reading_count) FROM sensor_reading_stats")
    assert cursor.fetchone() == (2,)
    cursor.execute("SELECT hour FROM hourly.marks WHERE hour > now() - interval '5 hours'")
    assert (late.replace(minute=0, second=0, microsecond=0),) in cursor.fetchall()


@pytest.mark.parametrize("environment", ["development", "testing", "production"])
async def test_ingest_works_with_every_connection_profile(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("POSTGRES_SSLMODE", "disable")
    monkeypatch.setenv("POSTGRES_DB", "other" if environment == "testing" else database.name)
    monkeypatch.setenv("POSTGRES_TEST_DB", database.name if environment == "testing" else "other")
    assert (await get_engine()).url.database == database.name
    others = [replace(GOOD, zone=f"zone {number}") for number in range(3)]
    assert [await ingest([other]) for other in others] == [1, 1, 1]
    assert len(rows(cursor)) == 3
