"""Maintenance of partitions beside writers and readers, and completion of interrupted runs."""

import asyncio
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import inspection, retention, session, upkeep
from occupancy_db.months import following
from tests.database.conftest import Database
from tests.database.months import NOW, THIS, attached, detached, half_detached, holding, name, without
from tests.database.test_commands import answer
from tests.database.test_hours import STATS, ask, sum_up, write
from tests.database.test_schema import fill, insert
from tests.database.users import grant, password

BACK = ["--months-back", "7"]
"""As many as a new database has."""


def anatomy(cursor: Cursor, table: str) -> list[tuple[Any, ...]]:
    """Return the definitions of a partition without its name."""
    found = ask(
        cursor,
        f"""
        SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = '{table}'::regclass AND indisvalid
        UNION ALL SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = '{table}'::regclass
        UNION ALL SELECT 'trigger', pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = '{table}'::regclass
        UNION ALL SELECT attname,
                         concat(format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
        FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
        WHERE attrelid = '{table}'::regclass AND attnum > 0
        UNION ALL SELECT 'owner', relowner::regrole::text FROM pg_class WHERE oid = '{table}'::regclass
        """,
    )
    return sorted(
        (kind, re.sub(r"INDEX \S+ ON", "INDEX ON", what.replace(table, "it"))) for kind, what in found
    )


def test_maintain_creates_the_coming_months_completely_and_once(database: Database, cursor: Cursor) -> None:
    months = attached(cursor)
    assert answer(database, "partitions", "maintain", *BACK)["created"] == []
    complete = anatomy(cursor, name(1))
    assert len(complete) >= 8 + 2 + 4 + 2
    without(cursor, 1, 2, 3, 5)
    assert answer(database, "partitions", "maintain", *BACK)["created"] == [name(1), name(2), name(3)]
    assert anatomy(cursor, name(1)) == complete
    assert answer(database, "partitions", "maintain", *BACK, "--months-ahead", "5")["created"] == [name(5)]
    assert attached(cursor) == months
    assert answer(database, "partitions", "maintain", *BACK, "--months-ahead", "5")["created"] == []
    for table in ("sensor_readings", f"sensor_readings_{NOW + timedelta(days=40):%Y_%m}"):
        write(cursor, NOW + timedelta(days=40), random.Random(1), table)


def test_a_dry_run_prints_the_sql_that_then_does_the_same(database: Database, cursor: Cursor) -> None:
    without(cursor, 2, 3)
    before = database.cluster.dump_schema(database.name)
    planned = answer(database, "partitions", "maintain", *BACK, "--dry-run")["plan"]
    assert [(step["kind"], step["table"]) for step in planned] == [("create", name(2)), ("create", name(3))]
    assert answer(database, "partitions", "status", *BACK)["plan"] == planned
    script = "\n".join(database.cli("partitions", "maintain", *BACK, "--dry-run").stdout.splitlines()[2:])
    assert database.cluster.dump_schema(database.name) == before

    database.psql(script)
    by_hand = database.cluster.dump_schema(database.name)
    without(cursor, 2, 3)
    assert answer(database, "partitions", "maintain", *BACK)["created"] == [name(2), name(3)]
    assert database.cluster.dump_schema(database.name) == by_hand


def test_maintain_creates_the_months_that_a_backfill_needs(database: Database, cursor: Cursor) -> None:
    without(cursor, 1, -3)
    planned = answer(database, "partitions", "status")["plan"]
    created = answer(database, "partitions", "maintain")["created"]
    assert created == [step["table"] for step in planned] == [name(n) for n in (1, -3, *range(-8, -13, -1))]
    assert answer(database, "partitions", "maintain")["created"] == []
    write(cursor, NOW - timedelta(days=364), random.Random(1))
    assert answer(database, "partitions", "maintain", "--months-back", "13")["created"] == [name(-13)]


def test_check_tables_names_the_months_that_readings_need_now(database: Database, cursor: Cursor) -> None:
    assert answer(database, "check-tables")["missing"] == []
    without(cursor, 1, 2, -3)
    checked = database.cli("check-tables", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["missing"]) == (1, [f"partition {name(1)}"])
    command = "partitions maintain"
    assert (
        f"missing: partition {name(1)}; run 'occupancy-db {command}'" in database.cli("check-tables").stdout
    )
    answer(database, *command.split())
    assert answer(database, "check-tables")["missing"] == []


def test_maintain_does_not_create_a_month_again_whose_readings_were_removed(
    database: Database, cursor: Cursor
) -> None:
    answer(database, "partitions", "maintain")
    moment = NOW - timedelta(days=200)
    write(cursor, moment, random.Random(1))
    before = ask(cursor, STATS)
    answer(database, "cleanup", "--months", "4", "--no-dry-run")
    created = answer(database, "partitions", "maintain")["created"]
    assert f"sensor_readings_{moment:%Y_%m}" not in created
    assert name(-12) in created  # it was empty
    assert answer(database, "partitions", "status")["plan"] == []
    assert ask(cursor, STATS) == before


IDLE = "idle in transaction, transaction open for"


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TABLE_LOCK_WAIT", 1.0)


def assert_names(error: DatabaseError, holder: Any, user: str) -> None:
    """The error names the holder, and for how long its transaction has been open."""
    assert error.code is ExitCode.LOCKED
    assert f'pid {holder.info.backend_pid}, "a notebook", user {user}, {IDLE} ' in error.what
    (blocker,) = error.details["blockers"]
    assert (blocker["pid"], blocker["user"]) == (holder.info.backend_pid, user)
    assert blocker["seconds"] >= 1


@contextmanager
def idle_application(database: Database, statement: str) -> Iterator[Any]:
    """The application in the middle of a transaction, with the limit that its user has."""
    connection = database.cluster.connect(
        database.name, "occupancy_app", password("occupancy_app"), application_name="a notebook"
    )
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setting::int > 600 * 1000 FROM pg_settings WHERE name ~ '^idle_in_transaction'"
        )
        assert cursor.fetchone() == (True,)
        cursor.execute(statement)
        yield connection
    connection.close()


@pytest.mark.usefixtures("briefly")
def test_upkeep_names_the_idle_transaction_that_blocks_it(database: Database, cursor: Cursor) -> None:
    grant(database.cluster, database.name)
    insert(cursor, "sensor_readings", timestamp=NOW - timedelta(days=2))
    reading = """
        INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity)
        VALUES (now(), 'office', 'desk', true, 'binary_sensor.desk')
    """
    with idle_application(database, reading) as holder:
        with pytest.raises(DatabaseError) as raised:
            asyncio.run(upkeep.maintain(database.settings(), 3, months_back=12))
        assert_names(raised.value, holder, "occupancy_app")
        assert name(-12) in attached(cursor)
    assert asyncio.run(upkeep.maintain(database.settings(), 3)).waited_for == []


@pytest.mark.usefixtures("briefly")
def test_cleanup_names_the_idle_transaction_that_blocks_it_and_continues_with_other_tables(
    database: Database, cursor: Cursor
) -> None:
    grant(database.cluster, database.name)
    fill(cursor, 500)
    insert(cursor, "room_transitions", timestamp=NOW - timedelta(days=400))
    with idle_application(database, "SELECT count(*) FROM sensor_readings") as holder:
        with pytest.raises(DatabaseError) as raised:
            asyncio.run(
                retention.cleanup(
                    database.settings(), {"sensor_readings": 3, "room_transitions": 3}, dry_run=False
                )
            )
        assert_names(raised.value, holder, "occupancy_app")
        assert ask(cursor, "SELECT count(*) FROM room_transitions") == [(0,)]
    done = asyncio.run(retention.cleanup(database.settings(), {"sensor_readings": 3}, dry_run=False))
    assert done["sensor_readings"].dropped


def test_an_idle_transaction_that_ends_in_time_is_reported(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    grant(database.cluster, database.name)
    with idle_application(database, "SELECT count(*) FROM sensor_readings") as holder:
        seen = f'pid {holder.info.backend_pid}, "a notebook", user occupancy_app, {IDLE} '
        threading.Timer(1.5, holder.rollback).start()
        done = answer(database, "cleanup", "--months", "5", "--no-dry-run")["tables"]["sensor_readings"]
        (reported,) = done["waited_for"]
        assert reported.startswith(seen)
        threading.Timer(1.5, holder.rollback).start()
        with holder.cursor() as other:
            other.execute("SELECT count(*) FROM sensor_readings")
        shown = database.cli("cleanup", "--months", "3", "--no-dry-run")
        assert f"waited for {seen}" in shown.stdout


def test_maintain_runs_beside_open_transactions(database: Database, cursor: Cursor) -> None:
    """Maintenance does not wait for readers and writers, and does not block them."""
    without(cursor, 3)
    with (
        holding(database, "INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')"),
        holding(database, "SELECT count(*) FROM sensor_readings"),
    ):
        assert answer(database, "partitions", "maintain", *BACK)["created"] == [name(3)]


def test_maintain_retries_until_a_lock_is_released(database: Database, cursor: Cursor) -> None:
    without(cursor, 3)
    with holding(database, "LOCK TABLE sensor_readings IN SHARE ROW EXCLUSIVE MODE") as other:
        threading.Timer(0.7, other.rollback).start()
        assert answer(database, "partitions", "maintain", *BACK)["created"] == [name(3)]


def test_maintain_gives_up_with_a_reason_and_changes_nothing(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TABLE_LOCK_WAIT", 0.3)
    without(cursor, 3)
    before = database.cluster.dump_schema(database.name)
    with (
        holding(database, "LOCK TABLE sensor_readings IN SHARE ROW EXCLUSIVE MODE"),
        pytest.raises(Exception, match="other sessions kept locks") as raised,
    ):
        asyncio.run(upkeep.maintain(database.settings(), 3))
    assert getattr(raised.value, "code", None) is ExitCode.LOCKED
    assert database.cluster.dump_schema(database.name) == before


def test_ten_maintainers_at_once_all_succeed_and_one_creates(database: Database, cursor: Cursor) -> None:
    without(cursor, 1, 2, 3)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(upkeep.maintain(database.settings(), 3))))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(result.created) for result in results) == [0] * 9 + [3]


def test_a_month_made_by_hand_is_completed(database: Database, cursor: Cursor) -> None:
    complete = anatomy(cursor, name(4))
    without(cursor, 4)
    since, until = following(THIS, 4), following(THIS, 5)
    cursor.execute(
        f"CREATE TABLE {name(4)} PARTITION OF sensor_readings "
        f"FOR VALUES FROM ('{since} 00:00+00') TO ('{until} 00:00+00')"
    )
    assert anatomy(cursor, name(4)) != complete
    assert answer(database, "partitions", "maintain", *BACK)["completed"] == [name(4)]
    assert anatomy(cursor, name(4)) == complete


def test_a_table_that_is_only_named_like_a_month_is_not_changed(database: Database, cursor: Cursor) -> None:
    cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {name(-6)}")
    cursor.execute(f"DROP TABLE {name(-7)}")
    cursor.execute(f"CREATE TABLE {name(-7)} (mine text)")
    for command in (["partitions", "status", *BACK], ["partitions", "maintain", *BACK]):
        assert answer(database, *command)["strays"] == [name(-7), name(-6)]
    assert (
        "is named like a partition but is not one: it is left alone"
        in database.cli("partitions", "maintain", *BACK).stdout
    )
    cleaned = answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert name(-6) not in cleaned["tables"]["sensor_readings"]["dropped"]
    cursor.execute(f"SELECT mine FROM {name(-7)}")


def retire(cursor: Cursor, table: str) -> None:
    cursor.execute(f"COMMENT ON TABLE {table} IS '{inspection.RETIRED}'")


@pytest.mark.parametrize("interrupt", [lambda *_: None, half_detached, detached])
@pytest.mark.parametrize("finisher", ["maintain", "cleanup"])
@pytest.mark.parametrize("refolded", [False, True])
def test_an_interrupted_removal_is_completed_without_losing_sums(
    database: Database,
    cursor: Cursor,
    interrupt: Callable[[Database, str], None],
    finisher: str,
    refolded: bool,
) -> None:
    fill(cursor, 1500)
    sum_up(cursor)
    before = ask(cursor, STATS)
    retire(cursor, name(-6))
    interrupt(database, name(-6))
    if refolded:  # another run sums up the hours in between, which are empty
        cursor.execute("INSERT INTO hourly.marks SELECT DISTINCT hour FROM hourly.sums")
        sum_up(cursor)
    if finisher == "maintain":
        assert answer(database, "partitions", "maintain", *BACK)["finished"] == [name(-6)]
    else:
        answer(database, "cleanup", "--months", "1200", "--no-dry-run")
    assert name(-6) not in attached(cursor)
    assert ask(cursor, f"SELECT to_regclass('{name(-6)}')") == [(None,)]
    assert ask(cursor, STATS) == before
    assert answer(database, "partitions", "status", *BACK)["plan"] == []


def test_a_detach_by_hand_is_finalised_and_the_table_is_kept(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    half_detached(database, name(-5))
    assert answer(database, "partitions", "maintain", *BACK)["finished"] == [name(-5)]
    cursor.execute(f"SELECT count(*) > 0 FROM {name(-5)}")
    assert cursor.fetchone() == (True,)


def test_status_shows_the_progress_of_the_hourly_sums(database: Database, cursor: Cursor) -> None:
    assert "no hour has been closed yet" in database.cli("partitions", "status", *BACK).stdout
    insert(cursor, "sensor_readings", timestamp=NOW - timedelta(hours=3))
    assert answer(database, "partitions", "maintain", *BACK)["hours"] >= 1
    status = answer(database, "partitions", "status", *BACK)
    assert status["hours"]["marked"] == 0
    assert status["hours"]["sums"] == 1
    assert "hours before" in database.cli("partitions", "status", *BACK).stdout
    assert json.dumps(date.today().year) in database.cli("partitions", "status", *BACK).stdout
