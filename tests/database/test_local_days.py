"""The statistics by hours and days of the home's time zone equal a recount in Python."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2.errors
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from tests.database.conftest import Database
from tests.database.test_hours import NOW, ask, sum_up, write

ZONES = [
    "UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "America/Havana",
    "Pacific/Chatham", "Africa/Cairo",
]  # fmt: skip

HOURS = """
    SELECT room, day, hour, local_hour, reading_count, active_zones, round(avg_confidence::numeric, 9),
           first_reading, last_reading
    FROM local_hour_stats
"""
DAYS = """
    SELECT room, day, reading_count, active_zones, round(avg_confidence::numeric, 9),
           first_reading, last_reading
    FROM local_day_stats
"""
Row = tuple[str, str, float, datetime]


def set_zone(cursor: Cursor, name: str) -> None:
    cursor.execute("UPDATE hourly.home SET time_zone = %s", [name])


def summary(rows: list[Row]) -> tuple[Any, ...]:
    times = [moment for *_, moment in rows]
    mean = sum(confidence for _, _, confidence, _ in rows) / len(rows)
    return len(rows), len({zone for _, zone, _, _ in rows}), mean, min(times), max(times)


def grouped(rows: list[Row], key: Callable[[datetime], Any]) -> dict[Any, tuple[Any, ...]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((row[0], *key(row[3])), []).append(row)
    return {name: summary(group) for name, group in groups.items()}


def hour_of(moment: datetime, zone: ZoneInfo) -> tuple[Any, ...]:
    """Day, beginning and local name of the hour; the offsets of all zones here change at a full hour."""
    local = moment.astimezone(zone)
    begin = local.replace(minute=0, second=0, microsecond=0)
    return local.date(), begin.astimezone(UTC), begin.replace(tzinfo=None, fold=0)


def assert_local(cursor: Cursor, name: str, rows: list[Row] | None = None) -> None:
    """Compare both views with a recount, of the stored readings or of these."""
    zone = ZoneInfo(name)
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    hours, days = ask(cursor, HOURS), ask(cursor, DAYS)
    counted = rows or ask(cursor, "SELECT room, zone, confidence, timestamp FROM sensor_readings")
    cursor.execute("COMMIT")
    expected = grouped(counted, lambda moment: hour_of(moment, zone))
    found = {
        (room, day, hour, local): (number, zones, pytest.approx(float(mean), abs=1e-8), *times)
        for room, day, hour, local, number, zones, mean, *times in hours
    }
    assert len(found) == len(hours)
    assert found == expected
    expected = grouped(counted, lambda moment: (moment.astimezone(zone).date(),))
    assert {
        (room, day): (number, zones, pytest.approx(float(mean), abs=1e-8), *times)
        for room, day, number, zones, mean, *times in days
    } == expected


@pytest.mark.parametrize("seed", range(2))
def test_local_statistics_equal_a_recount_after_every_step(cursor: Cursor, seed: int) -> None:
    chance = random.Random(seed)
    hours = [NOW - timedelta(days=n * 17, minutes=n * 7) for n in range(8)]
    zone = ["UTC"]

    def some() -> datetime:
        return chance.choice(hours) - timedelta(minutes=chance.uniform(0, 200))

    def write_five() -> None:
        for _ in range(5):
            write(cursor, some(), chance)

    def move() -> None:
        zone[0] = chance.choice(ZONES)
        set_zone(cursor, zone[0])

    steps = {
        "insert": write_five,
        "delete": lambda: cursor.execute("DELETE FROM sensor_readings WHERE id %% 5 = %s", [seed % 5]),
        "close": lambda: cursor.execute("SELECT hourly.close(%s)", [some()]),
        "refresh": lambda: cursor.execute("SELECT hourly.refresh(2)"),
        "sum up": lambda: sum_up(cursor),
        "move": move,
    }
    cursor.execute("SET timezone = 'Australia/Adelaide'")
    done = []
    for _ in range(30):
        (step,) = chance.choices(list(steps), [8, 1, 2, 3, 2, 4])
        done.append((step, zone[0]))
        steps[step]()
        try:
            assert_local(cursor, zone[0])
        except AssertionError as error:
            raise AssertionError(f"after {done} in {zone[0]}: {error}") from None


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/Havana", "2026-03-08", 23),
        ("America/Havana", "2026-11-01", 25),  # its midnight is twice
        ("Africa/Cairo", "2026-04-24", 23),  # it has no midnight
        ("Africa/Cairo", "2026-10-29", 25),
        ("Asia/Kolkata", "2026-03-29", 24),
        ("Asia/Kathmandu", "2026-10-25", 24),
    ],
)
def test_days_of_23_and_25_hours(cursor: Cursor, name: str, day: str, hours: int) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=15)
    make_months(cursor, moment)
    chance = random.Random(day)
    for quarter in range(4 * 54):
        write(cursor, moment + timedelta(minutes=15 * quarter), chance)
    set_zone(cursor, name)
    for _ in range(2):
        assert_local(cursor, name)
        found = ask(cursor, f"SELECT count(DISTINCT hour) FROM local_hour_stats WHERE day = '{day}'")
        assert found[0][0] == hours
        sum_up(cursor)


def make_months(cursor: Cursor, moment: datetime) -> None:
    """The partitions of a month and the next one, if they are missing."""
    for month in {moment.replace(day=1), (moment + timedelta(days=2)).replace(day=1)}:
        name = f"sensor_readings_{month:%Y_%m}"
        if not ask(cursor, f"SELECT to_regclass('{name}') IS NOT NULL")[0][0]:
            following = (month + timedelta(days=32)).replace(day=1)
            cursor.execute(
                f"CREATE TABLE {name} PARTITION OF sensor_readings "
                f"FOR VALUES FROM ('{month:%Y-%m-%d} 00:00+00') TO ('{following:%Y-%m-%d} 00:00+00')"
            )
            cursor.execute(f"SELECT hourly.prepare_partition('{name}')")


@pytest.mark.parametrize("name", ["Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu"])
@pytest.mark.parametrize("whole", [True, False])
def test_local_statistics_outlive_the_readings(cursor: Cursor, name: str, whole: bool) -> None:
    chance = random.Random(name)
    month = f"sensor_readings_{NOW - timedelta(days=60):%Y_%m}"
    begin = datetime.strptime(month[-7:], "%Y_%m").replace(tzinfo=UTC)
    set_zone(cursor, name)
    for _ in range(150):
        write(cursor, begin + timedelta(minutes=chance.uniform(0, 27 * 1440)), chance)
    rows = ask(cursor, "SELECT room, zone, confidence, timestamp FROM sensor_readings")
    sum_up(cursor)
    if whole:
        cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {month}")
        assert ask(cursor, f"SELECT hourly.forget_month('{month}', true)") == [(150,)]
    else:
        cursor.execute("SELECT hourly.forget('-infinity', %s)", [begin + timedelta(days=12.3)])
        cursor.execute("SELECT hourly.forget('-infinity', %s)", [begin + timedelta(days=12.32)])
    assert_local(cursor, name, rows)
    set_zone(cursor, "UTC")
    assert_local(cursor, "UTC", rows)


@pytest.mark.parametrize(
    "name", ["Europe/Nowhere", "CET", "EST5EDT", "+05:30", "Europe/Berlin+3", "berlin", "", "<+03>-3"]
)
def test_the_database_refuses_what_is_no_place(cursor: Cursor, name: str) -> None:
    with pytest.raises((psycopg2.errors.CheckViolation, psycopg2.errors.InvalidParameterValue)):
        set_zone(cursor, name)


def test_the_command_sets_the_time_zone(database: Database, cursor: Cursor) -> None:
    assert database.cli("timezone", "show").stdout == "UTC\n"
    done = database.cli("timezone", "set", "Asia/Kathmandu")
    assert done.stdout == f"{database.name}: the time zone of the home is Asia/Kathmandu\n"
    assert "already" in database.cli("timezone", "set", "Asia/Kathmandu").stdout
    assert '"changed": false' in database.cli("--json", "timezone", "set", "Asia/Kathmandu").stdout
    refused = database.cli("timezone", "set", "Asia/Nowhere")
    assert refused.returncode == ExitCode.USAGE
    assert "Nothing was changed" in refused.stderr
    assert ask(cursor, "SELECT time_zone FROM hourly.home") == [("Asia/Kathmandu",)]


def test_a_home_has_one_time_zone(cursor: Cursor) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("INSERT INTO hourly.home VALUES ('Europe/Berlin')")


def test_a_dump_restores_with_its_time_zone(database: Database, cursor: Cursor, empty: Database) -> None:
    set_zone(cursor, "Asia/Kathmandu")
    for n in range(20):
        write(cursor, NOW - timedelta(minutes=40 * n), random.Random(n))
    sum_up(cursor)
    empty.psql(database.dump())
    connection = empty.connect()
    with connection.cursor() as restored:
        assert_local(restored, "Asia/Kathmandu")
    connection.close()
