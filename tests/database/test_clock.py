"""A clock that contradicts what is recorded removes nothing; the status leaves out readings that are not due.

Here the record is changed and the clock is right. In tests/clocks the clock itself is wrong.
"""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2.errors
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db import months
from occupancy_db.errors import ExitCode
from occupancy_db.history import clock, retention
from occupancy_db.months import following
from tests.database.conftest import Database
from tests.database.months import NOW, THIS, attached, name, without
from tests.database.test_commands import answer
from tests.database.test_hours import LATEST, STATS, STATUS, ask, assert_exact, sum_up
from tests.database.test_schema import fill, insert
from tests.database.test_upkeep import retire

CHECKS = "SELECT job, confirmed_by FROM hourly.clock ORDER BY number"
CLEANUP = ("cleanup", "--months", "1", "--no-dry-run")


def checked(cursor: Cursor, ago: str) -> None:
    """Record one check, this long before the present; an empty text records none."""
    cursor.execute("DELETE FROM hourly.clock")
    if ago:
        cursor.execute("INSERT INTO hourly.clock VALUES (7, now() - %s::interval, 'maintain')", [ago])


def every(cursor: Cursor, step: str, since: str, until: str = "0") -> None:
    """Insert readings at a regular distance, from and to times before the present."""
    cursor.execute(
        """
        INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity)
        SELECT moment, 'office', 'desk', true, 0.5, 'binary_sensor.desk'
        FROM generate_series(now() - %s::interval, now() - %s::interval, %s::interval) AS moment
        """,
        [since, until, step],
    )


def rows(cursor: Cursor) -> int:
    return int(ask(cursor, "SELECT count(*) FROM sensor_readings")[0][0])


@pytest.mark.parametrize(
    ("ago", "readings", "what"),
    [
        ("-1 day", ("1 hour", "100 days"), "and maintain checked it at"),
        ("-100 years", ("1 hour", "100 days"), "and maintain checked it at"),
        ("3 days", ("1 hour", "100 days", "3 days"), "neither a reading nor a check of the clock after"),
        ("60 days", ("1 hour", "100 days", "20 days"), "neither a reading nor a check of the clock after"),
        ("60 days", ("1 hour", "100 days", "60 days"), "neither a reading nor a check of the clock after"),
        # Nothing was checked yet: the readings tell it.
        ("", ("1 hour", "100 days", "3 days"), "neither a reading nor a check of the clock after"),
    ],
)
def test_a_contradiction_is_refused_until_the_clock_is_confirmed(
    database: Database, cursor: Cursor, ago: str, readings: tuple[str, ...], what: str
) -> None:
    every(cursor, *readings)
    checked(cursor, ago)
    before, stored = ask(cursor, CHECKS), rows(cursor)
    for command in (CLEANUP, ("partitions", "maintain"), ("clock", "status")):
        refused = database.cli(*command)
        assert refused.returncode == ExitCode.CLOCK, refused
        assert what in refused.stdout + refused.stderr
        assert "occupancy-db clock confirm" in refused.stdout + refused.stderr
    assert "nothing would be removed until the clock is confirmed: " in database.cli("cleanup").stdout
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match=what):
        cursor.execute("SELECT cleanup_old_sensor_readings(1)")
    assert (ask(cursor, CHECKS), rows(cursor)) == (before, stored)

    confirmed = answer(database, "clock", "confirm", "--by", "Ada")
    assert what in confirmed["before"]["contradiction"]
    assert ask(cursor, CHECKS) == [("confirm", "Ada")]
    assert answer(database, "clock", "status")["confirmed_by"] == "Ada"
    answer(database, "partitions", "maintain")
    assert answer(database, *CLEANUP)["rows"] > 0
    assert ask(cursor, CHECKS) == [("confirm", "Ada"), ("cleanup", None)]


@pytest.mark.parametrize(
    ("ago", "readings"),
    [
        ("-4 minutes", ("1 hour", "100 days", "90 days")),
        ("47 hours", ("1 hour", "100 days", "90 days")),
        ("60 days", ("1 hour", "100 days")),
        ("60 days", ("47 hours", "100 days")),
        # Nothing was checked yet, and the readings tell nothing, or that the clock is right.
        ("", ("1 hour", "1 day")),
        ("", ("1 hour", "100 days")),
    ],
)
def test_a_clock_that_fits_is_accepted_and_recorded(
    database: Database, cursor: Cursor, ago: str, readings: tuple[str, ...]
) -> None:
    every(cursor, *readings)
    checked(cursor, ago)
    answer(database, "clock", "status")
    answer(database, *CLEANUP)
    assert ask(cursor, CHECKS) == [("cleanup", None)]
    assert ask(cursor, "SELECT now() - checked_at < interval '1 minute' FROM hourly.clock") == [(True,)]


def test_one_absurd_reading_neither_blocks_nor_bridges(database: Database, cursor: Cursor) -> None:
    every(cursor, "1 hour", "100 days")
    checked(cursor, "60 days")
    insert(cursor, "sensor_readings", timestamp=NOW + timedelta(days=80))
    answer(database, "clock", "status")
    cursor.execute("DELETE FROM sensor_readings WHERE timestamp > now() - interval '30 days'")
    insert(cursor, "sensor_readings", timestamp=NOW - timedelta(days=15))
    checked(cursor, "60 days")
    refused = database.cli(*CLEANUP)
    assert refused.returncode == ExitCode.CLOCK, refused
    assert f"{NOW - timedelta(days=30):%Y-%m-%d}" in refused.stderr


def test_upkeep_makes_the_present_month_and_sums_up_while_it_refuses(
    database: Database, cursor: Cursor
) -> None:
    every(cursor, "1 hour", "10 days", "3 days")
    checked(cursor, "3 days")
    without(cursor, 1, 2, 3)
    retire(cursor, name(-6))
    refused = database.cli("partitions", "maintain", "--months-back", "7")
    assert refused.returncode == ExitCode.CLOCK, refused
    assert name(1) in attached(cursor)
    assert name(2) not in attached(cursor)
    assert name(-6) in attached(cursor)  # its removal is not finished
    assert ask(cursor, "SELECT count(*) > 100 FROM hourly.sums") == [(True,)]
    assert_exact(cursor)


def test_empty_months_of_a_distant_future_are_dropped(database: Database, cursor: Cursor) -> None:
    for months_ahead in (24, 1200, 1201):
        month = following(THIS, months_ahead)
        cursor.execute(
            f"CREATE TABLE {name(months_ahead)} PARTITION OF sensor_readings "
            f"FOR VALUES FROM ('{month} 00:00+00') TO ('{following(month)} 00:00+00')"
        )
    moment = datetime.combine(following(THIS, 1201), datetime.min.time(), UTC) + timedelta(days=1)
    insert(cursor, "sensor_readings", timestamp=moment)
    answer(database, "partitions", "maintain")  # completes them
    assert answer(database, "partitions", "maintain")["dropped"] == [name(1200)]
    assert {name(24), name(1201)} <= set(attached(cursor))
    assert name(1200) not in attached(cursor)
    assert answer(database, "partitions", "maintain")["dropped"] == []


def test_a_new_database_is_checked_and_an_import_of_old_history_is_no_contradiction(
    database: Database, cursor: Cursor
) -> None:
    assert ask(cursor, CHECKS) == [("migrate", None)]
    every(cursor, "1 hour", "100 days", "90 days")
    answer(database, "partitions", "maintain")
    answer(database, *CLEANUP)


def test_a_database_with_readings_that_contradict_the_clock_is_migrated_without_a_check(
    empty: Database,
) -> None:
    assert empty.cli("migrate").returncode == 0
    connection = empty.connect()
    with connection.cursor() as cursor:
        for ago, recorded in (("3 days", []), ("1 hour", [("migrate", None)])):
            every(cursor, "1 hour", "10 days", ago)
            assert empty.alembic("downgrade", "008_table_locks").returncode == 0
            assert empty.alembic("upgrade", "head").returncode == 0
            assert ask(cursor, CHECKS) == recorded
    connection.close()


def test_a_machine_whose_clock_differs_from_the_servers_removes_nothing(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    every(cursor, "1 hour", "100 days")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + months.TOLERANCE + timedelta(seconds=30)

    stored = rows(cursor)
    monkeypatch.setattr(clock, "datetime", Ahead)
    for attempt in (
        retention.cleanup(database.settings(), {"sensor_readings": 1}, dry_run=False),
        clock.confirm(database.settings(), "Ada"),
    ):
        with pytest.raises(Exception, match="the clock of this machine says") as raised:
            asyncio.run(attempt)
        assert getattr(raised.value, "code", None) is ExitCode.CLOCK
    assert (rows(cursor), ask(cursor, CHECKS)) == (stored, [("migrate", None)])


def test_the_margin_is_one_number(cursor: Cursor) -> None:
    cursor.execute("SET timezone = 'UTC'")
    cursor.execute(
        "SELECT now() - %s - interval '3 months' = retention_cutoff(3), now() - %s - interval '1 month' = "
        "retention_cutoff(1)",
        [months.MARGIN, months.MARGIN],
    )
    assert cursor.fetchone() == (True, True)


def test_a_century_ahead_marks_no_hour_without_readings_and_the_watermark_returns(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 500)
    sum_up(cursor)
    cursor.execute("SELECT hourly.close(now() + interval '100 years')")
    assert ask(cursor, "SELECT count(*) FROM hourly.marks") < [(24 * 32,)]
    insert(cursor, "sensor_readings", timestamp=datetime.now(UTC), room="office")
    sum_up(cursor, "now() + interval '100 years'")
    assert_exact(cursor)
    assert answer(database, "partitions", "maintain")["hours"] >= 0
    assert ask(cursor, "SELECT closed_before <= now() FROM hourly.watermark") == [(True,)]
    assert ask(
        cursor, "SELECT max(hour) < (SELECT closed_before FROM hourly.watermark) FROM hourly.sums"
    ) == [(True,)]
    assert_exact(cursor)
    insert(cursor, "sensor_readings", timestamp=datetime.now(UTC), room="office")
    assert ask(cursor, "SELECT count(*) FROM hourly.marks") == [(0,)]
    assert_exact(cursor)


def test_the_watermark_stays_where_the_clock_is_behind_many_sums(cursor: Cursor) -> None:
    fill(cursor, 2500)  # one zone and hour each
    sum_up(cursor)
    before = ask(cursor, "SELECT closed_before FROM hourly.watermark")
    cursor.execute("SELECT hourly.close(now() - interval '16 years')")
    assert ask(cursor, "SELECT closed_before FROM hourly.watermark") == before
    insert(cursor, "sensor_readings", timestamp=NOW - timedelta(days=1), room="office")
    assert_exact(cursor)
    cursor.execute("SELECT hourly.close(now() - interval '10 days')")
    assert ask(cursor, "SELECT closed_before < now() - interval '9 days' FROM hourly.watermark") == [(True,)]
    assert_exact(cursor)


@pytest.mark.parametrize("closed", ["now() - interval '1 day'", "now()", "now() + interval '30 days'"])
@pytest.mark.parametrize("refreshed", [True, False])
def test_the_present_leaves_out_readings_until_they_are_due(
    cursor: Cursor, closed: str, refreshed: bool
) -> None:
    chance = random.Random(closed)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for ahead in (-30, -2, -1, 0, 0.99, 1, 20, 24 * 40):
        for zone in ("desk", "door", "bed"):
            insert(
                cursor,
                "sensor_readings",
                timestamp=hour + timedelta(hours=ahead, minutes=chance.uniform(0, 0.5)),
                room="office",
                zone=zone,
                state=chance.random() < 0.5,
            )
    insert(cursor, "sensor_readings", timestamp=hour + timedelta(days=3), room="bedroom", zone="early")
    cursor.execute(f"SELECT hourly.close({closed})")
    if refreshed:
        while ask(cursor, "SELECT hourly.refresh(3)") != [(0,)]:
            pass
    due = LATEST.replace("SELECT DISTINCT ON (room, zone) * FROM sensor_readings", (
        "SELECT DISTINCT ON (room, zone) * FROM sensor_readings WHERE timestamp <= now()"))  # fmt: skip
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    assert ask(cursor, STATUS) == ask(cursor, due) != []
    assert ask(cursor, "SELECT count(*), min(age) >= '0' FROM latest_readings") == [(3, True)]
    cursor.execute("COMMIT")
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(25,)]
    assert [row[:2] for row in ask(cursor, STATS) if row[0] == "bedroom"] == [
        ("bedroom", hour + timedelta(days=3))
    ]


def test_a_transaction_sees_the_state_that_it_has_written(database: Database) -> None:
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        insert(cursor, "sensor_readings", timestamp=datetime.now(UTC), room="office", state=True)
        assert ask(cursor, "SELECT occupancy_status, evidence_age >= '0' FROM room_occupancy_status") == [
            ("occupied", True)
        ]
    connection.close()


def test_cleanup_by_hand_follows_the_policy_of_the_host_or_wants_a_number(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 400)
    refused = database.cli("cleanup", "--no-dry-run")
    assert refused.returncode == ExitCode.USAGE, refused
    assert "--months" in refused.stderr
    assert rows(cursor) == 400
    assert answer(database, "cleanup")["months"] == 6
    policy = {"RETENTION_MONTHS": "2", "RETENTION_TRANSITIONS_MONTHS": "5"}
    shown = answer(database, "cleanup", **policy)
    assert shown["months"] == 2
    assert shown["tables"]["room_transitions"]["months"] == 5
    assert "predictions" not in shown["tables"]
    assert answer(database, "cleanup", "--months", "5", **policy)["months"] == 5
    done = answer(database, "cleanup", "--no-dry-run", **policy)
    assert done["rows"] == shown["rows"] == 400 - rows(cursor) > 0
    maintained = database.cli("partitions", "maintain", RETENTION_MONTHS_BACK="9")
    assert maintained.returncode == 0, maintained
    assert (name(-9) in attached(cursor), name(-10) in attached(cursor)) == (True, False)
    wrong = database.cli("cleanup", RETENTION_MONTHS="0")
    assert wrong.returncode == ExitCode.CONFIGURATION, wrong
    assert "RETENTION_MONTHS" in wrong.stderr
