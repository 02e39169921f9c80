"""Partition upkeep and retention, beside writers and readers, and what they do with interruptions."""

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg2.extensions
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.history import retention, upkeep
from occupancy_db.months import following, month_of, partition_name
from tests.database.conftest import Database
from tests.database.test_commands import answer
from tests.database.test_hours import STATS, STATUS, ask, assert_exact, sum_up, write
from tests.database.test_schema import fill, insert

NOW = datetime.now(UTC)
THIS = month_of(NOW)


def name(months: int) -> str:
    return partition_name(following(THIS, months))


def attached(cursor: Cursor) -> list[str]:
    return [
        row[0]
        for row in ask(
            cursor,
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'sensor_readings'::regclass ORDER BY 1",
        )
    ]


def without(cursor: Cursor, *months: int) -> None:
    for month in months:
        cursor.execute(f"DROP TABLE {name(month)}")


def anatomy(cursor: Cursor, table: str) -> list[tuple[Any, ...]]:
    """What a partition has, without its own name."""
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


@contextmanager
def holding(database: Database, statement: str) -> Any:
    """Another session in the middle of a transaction."""
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(statement)
        yield connection
    connection.close()


def test_maintain_creates_the_coming_months_once_and_complete(database: Database, cursor: Cursor) -> None:
    months = attached(cursor)
    assert answer(database, "partitions", "maintain")["created"] == []
    complete = anatomy(cursor, name(1))
    assert len(complete) >= 8 + 2 + 4 + 2
    without(cursor, 1, 2, 3, 5)
    assert answer(database, "partitions", "maintain")["created"] == [name(1), name(2), name(3)]
    assert anatomy(cursor, name(1)) == complete
    assert answer(database, "partitions", "maintain", "--months-ahead", "5")["created"] == [name(5)]
    assert attached(cursor) == months
    assert answer(database, "partitions", "maintain", "--months-ahead", "5")["created"] == []
    for table in ("sensor_readings", f"sensor_readings_{NOW + timedelta(days=40):%Y_%m}"):
        write(cursor, NOW + timedelta(days=40), random.Random(1), table)


def test_a_dry_run_prints_the_sql_that_then_does_the_same(database: Database, cursor: Cursor) -> None:
    without(cursor, 2, 3)
    before = database.cluster.dump_schema(database.name)
    planned = answer(database, "partitions", "maintain", "--dry-run")["plan"]
    assert [(step["kind"], step["table"]) for step in planned] == [("create", name(2)), ("create", name(3))]
    assert answer(database, "partitions", "status")["plan"] == planned
    script = "\n".join(database.cli("partitions", "maintain", "--dry-run").stdout.splitlines()[2:])
    assert database.cluster.dump_schema(database.name) == before

    database.psql(script)
    by_hand = database.cluster.dump_schema(database.name)
    without(cursor, 2, 3)
    assert answer(database, "partitions", "maintain")["created"] == [name(2), name(3)]
    assert database.cluster.dump_schema(database.name) == by_hand


def test_maintain_runs_beside_open_transactions(database: Database, cursor: Cursor) -> None:
    """Neither does it wait for who reads and writes, nor do they wait for it."""
    without(cursor, 3)
    with (
        holding(database, "INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')"),
        holding(database, "SELECT count(*) FROM sensor_readings"),
    ):
        assert answer(database, "partitions", "maintain")["created"] == [name(3)]


def test_maintain_tries_again_until_a_lock_is_gone(database: Database, cursor: Cursor) -> None:
    without(cursor, 3)
    with holding(database, "LOCK TABLE sensor_readings IN SHARE ROW EXCLUSIVE MODE") as other:
        threading.Timer(0.7, other.rollback).start()
        assert answer(database, "partitions", "maintain")["created"] == [name(3)]


def test_maintain_gives_up_with_the_reason_and_nothing_half_done(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PATIENCE", 0.3)
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
    assert sorted(len(result["created"]) for result in results) == [0] * 9 + [3]


def test_a_month_made_by_hand_is_completed(database: Database, cursor: Cursor) -> None:
    complete = anatomy(cursor, name(4))
    without(cursor, 4)
    since, until = following(THIS, 4), following(THIS, 5)
    cursor.execute(
        f"CREATE TABLE {name(4)} PARTITION OF sensor_readings "
        f"FOR VALUES FROM ('{since} 00:00+00') TO ('{until} 00:00+00')"
    )
    assert anatomy(cursor, name(4)) != complete
    assert answer(database, "partitions", "maintain")["completed"] == [name(4)]
    assert anatomy(cursor, name(4)) == complete


def test_a_table_that_is_only_called_like_a_month_is_left_alone(database: Database, cursor: Cursor) -> None:
    cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {name(-6)}")
    cursor.execute(f"DROP TABLE {name(-7)}")
    cursor.execute(f"CREATE TABLE {name(-7)} (mine text)")
    for command in (["partitions", "status"], ["partitions", "maintain"]):
        assert answer(database, *command)["strays"] == [name(-7), name(-6)]
    assert "is no partition: left alone" in database.cli("partitions", "maintain").stdout
    cleaned = answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert name(-6) not in cleaned["tables"]["sensor_readings"]["dropped"]
    cursor.execute(f"SELECT mine FROM {name(-7)}")


def test_cleanup_drops_old_months_trims_the_boundary_and_keeps_the_sums(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 4000)
    before = ask(cursor, STATS)
    announced = answer(database, "cleanup", "--months", "3")
    assert attached(cursor)[0] == name(-7)
    assert announced["tables"]["sensor_readings"]["dropped"] == [name(n) for n in (-7, -6, -5, -4)]
    done = answer(database, "cleanup", "--months", "3", "--no-dry-run")
    readings = done["tables"]["sensor_readings"]
    assert readings["dropped"] == announced["tables"]["sensor_readings"]["dropped"]
    assert readings["bytes_after"] < readings["bytes_before"]
    assert abs(readings["rows"] - announced["rows"]) <= 1
    assert attached(cursor)[0] == name(-3)
    cursor.execute(
        "SELECT count(*), min(timestamp) >= retention_cutoff(3) - interval '5 s' FROM sensor_readings"
    )
    assert cursor.fetchone() == (4000 - done["rows"], True)

    assert ask(cursor, STATS) == before
    sum_up(cursor)
    assert ask(cursor, STATS) == before
    assert answer(database, "cleanup", "--months", "3", "--no-dry-run")["rows"] <= 1


def test_more_rows_of_one_moment_than_are_removed_at_once(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 3)
    for moment in ask(
        cursor, "SELECT retention_cutoff(2) - n * interval '1 s' FROM generate_series(0, 2) AS n"
    ):
        for _ in range(10):
            insert(cursor, "sensor_readings", timestamp=moment[0])
    done = asyncio.run(retention.cleanup(database.settings(), {"sensor_readings": 2}, dry_run=False))
    assert done["sensor_readings"]["rows"] == 30
    assert ask(cursor, "SELECT count(*) FROM sensor_readings") == [(0,)]


def test_rows_that_nobody_has_summed_up_are_kept_in_the_history(database: Database, cursor: Cursor) -> None:
    fill(cursor, 2000)
    sum_up(cursor)
    for n in range(20):  # late: their hours are marked
        write(cursor, NOW - timedelta(days=120 + n), random.Random(n))
    before = ask(cursor, STATS)
    cursor.execute("SELECT cleanup_old_sensor_readings(4)")
    assert ask(cursor, STATS) == before
    answer(database, "cleanup", "--months", "2", "--no-dry-run")
    assert ask(cursor, STATS) == before


def test_an_hour_that_is_removed_in_pieces_is_one_hour_of_the_history(cursor: Cursor) -> None:
    hour = datetime(NOW.year, NOW.month, 1, tzinfo=UTC) - timedelta(days=30)
    for minute in (1, 20, 40, 59):
        insert(cursor, "sensor_readings", timestamp=hour + timedelta(minutes=minute), confidence=minute / 100)
    before = ask(cursor, STATS)
    for minute in (10, 30, 60):
        cursor.execute("SELECT hourly.forget('-infinity', %s)", [hour + timedelta(minutes=minute)])
        assert ask(cursor, STATS) == before
    assert ask(cursor, "SELECT count(*), sum(reading_count) FROM hourly.history") == [(1, 4)]


def test_a_month_with_a_late_row_is_counted_when_it_goes(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    sum_up(cursor)
    write(cursor, NOW - timedelta(days=150), random.Random(1))  # after its hour was summed up
    before = ask(cursor, STATS)
    table = f"sensor_readings_{NOW - timedelta(days=150):%Y_%m}"
    detached(database, table)
    cursor.execute(f"SELECT hourly.forget_month('{table}', true)")
    assert ask(cursor, STATS) == before


def test_late_rows_in_hours_of_which_readings_are_gone_are_added(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    cursor.execute("SELECT cleanup_old_sensor_readings(1)")
    total = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")
    assert total == [(500,)]
    write(cursor, NOW - timedelta(days=100), random.Random(1))
    sum_up(cursor)
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(501,)]
    answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(501,)]


def retire(cursor: Cursor, table: str) -> None:
    cursor.execute(f"COMMENT ON TABLE {table} IS '{upkeep.RETIRED}'")


def half_detached(database: Database, table: str) -> None:
    """As a kill in the middle leaves it: the first transaction of DETACH CONCURRENTLY is done."""
    with holding(database, "SELECT count(*) FROM sensor_readings"):
        detaching = database.connect(options="-c lock_timeout=200ms")
        with detaching.cursor() as cursor, pytest.raises(psycopg2.errors.LockNotAvailable):
            cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {table} CONCURRENTLY")
        detaching.close()


def detached(database: Database, table: str) -> None:
    connection = database.connect()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {table} CONCURRENTLY")
    connection.close()


@pytest.mark.parametrize("interrupt", [lambda *_: None, half_detached, detached])
@pytest.mark.parametrize("finisher", ["maintain", "cleanup"])
@pytest.mark.parametrize("refolded", [False, True])
def test_what_an_interruption_left_is_finished_without_loss(
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
    if refolded:  # somebody sums the hours up in between, and finds them empty
        cursor.execute("INSERT INTO hourly.marks SELECT DISTINCT hour FROM hourly.sums")
        sum_up(cursor)
    if finisher == "maintain":
        assert answer(database, "partitions", "maintain")["finished"] == [name(-6)]
    else:
        answer(database, "cleanup", "--months", "1200", "--no-dry-run")
    assert name(-6) not in attached(cursor)
    assert ask(cursor, f"SELECT to_regclass('{name(-6)}')") == [(None,)]
    assert ask(cursor, STATS) == before
    assert answer(database, "partitions", "status")["plan"] == []


def test_a_detach_of_somebody_else_is_finalised_and_the_table_kept(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 500)
    half_detached(database, name(-5))
    assert answer(database, "partitions", "maintain")["finished"] == [name(-5)]
    cursor.execute(f"SELECT count(*) > 0 FROM {name(-5)}")
    assert cursor.fetchone() == (True,)


def test_cleanup_waits_out_a_reader_and_finalises(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    before = ask(cursor, STATS)
    with holding(database, "SELECT count(*) FROM sensor_readings") as reader:
        threading.Timer(1.0, reader.rollback).start()
        done = answer(database, "cleanup", "--months", "5", "--no-dry-run")
    assert done["tables"]["sensor_readings"]["dropped"] == [name(-7), name(-6)]
    assert ask(cursor, STATS) == before


def test_writers_go_on_while_months_are_removed_and_created(database: Database, cursor: Cursor) -> None:
    fill(cursor, 20_000)
    without(cursor, 3)
    before = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")[0][0]
    stop = threading.Event()
    written = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        connection = database.connect()
        chance = random.Random(number)
        count = 0
        try:
            with connection.cursor() as writing:
                while not stop.is_set():
                    write(writing, datetime.now(UTC) - timedelta(days=chance.choice([0, 0, 0, 40])), chance)
                    count += 1
                    if count % 20 == 0:
                        assert_exact(writing)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()
            written.append(count)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        # No history yet: until the first month goes, the views equal a recount; so do not remove any here.
        for _ in range(3):
            assert answer(database, "partitions", "maintain")["strays"] == []
            time.sleep(0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []

    stop.clear()
    threads = [
        threading.Thread(target=plain_writer, args=(database, stop, written, failures)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    try:
        assert (
            len(
                answer(database, "cleanup", "--months", "4", "--no-dry-run")["tables"]["sensor_readings"][
                    "dropped"
                ]
            )
            == 3
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(written) > 0
    sum_up(cursor)
    after = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")[0][0]
    assert after == before + sum(written)


def plain_writer(
    database: Database, stop: threading.Event, written: list[int], failures: list[BaseException]
) -> None:
    connection = database.connect()
    count = 0
    try:
        with connection.cursor() as cursor:
            while not stop.is_set():
                write(cursor, datetime.now(UTC) - timedelta(days=(0, 0, 40)[count % 3]), random.Random(count))
                count += 1
    except BaseException as error:
        failures.append(error)
    finally:
        connection.close()
        written.append(count)


def test_other_tables_are_kept_for_their_own_time(database: Database, cursor: Cursor) -> None:
    for days in (1, 40, 100):
        insert(cursor, "room_transitions", timestamp=NOW - timedelta(days=days))
        insert(cursor, "predictions", prediction_made_at=NOW - timedelta(days=days))
    counts = "SELECT (SELECT count(*) FROM room_transitions), (SELECT count(*) FROM predictions)"
    answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert ask(cursor, counts) == [(3, 3)]
    options = ["--transitions-months", "1", "--predictions-months", "2"]
    announced = answer(database, "cleanup", *options)["tables"]
    assert (announced["room_transitions"]["rows"], announced["predictions"]["rows"]) == (2, 1)
    assert ask(cursor, counts) == [(3, 3)]
    done = answer(database, "cleanup", "--no-dry-run", *options)["tables"]
    assert (done["room_transitions"]["rows"], done["predictions"]["rows"]) == (2, 1)
    assert ask(cursor, counts) == [(1, 2)]


@pytest.mark.parametrize("months", ["0", "-1", "1201", "six"])
def test_absurd_months_are_refused_before_anything_is_done(
    database: Database, cursor: Cursor, months: str
) -> None:
    fill(cursor, 10)
    for option in ("--months", "--transitions-months", "--predictions-months"):
        result = database.cli("cleanup", "--no-dry-run", option, months)
        assert result.returncode == ExitCode.USAGE
        assert months in result.stderr
    assert database.cli("partitions", "maintain", "--months-ahead", months).returncode == ExitCode.USAGE
    assert ask(cursor, "SELECT count(*) FROM sensor_readings") == [(10,)]


def test_a_room_whose_readings_are_gone_has_no_status(database: Database, cursor: Cursor) -> None:
    insert(cursor, "sensor_readings", room="office", timestamp=NOW - timedelta(days=80))
    insert(cursor, "sensor_readings", room="bedroom", timestamp=NOW - timedelta(days=10))
    sum_up(cursor)
    assert [row[0] for row in ask(cursor, STATUS)] == ["bedroom", "office"]
    answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert [row[0] for row in ask(cursor, STATUS)] == ["bedroom"]
    assert [row[0] for row in ask(cursor, "SELECT DISTINCT room FROM sensor_reading_stats ORDER BY 1")] == [
        "bedroom",
        "office",
    ]


def test_status_says_how_far_the_hours_are(database: Database, cursor: Cursor) -> None:
    assert "no hour has been closed yet" in database.cli("partitions", "status").stdout
    insert(cursor, "sensor_readings", timestamp=NOW - timedelta(hours=3))
    assert answer(database, "partitions", "maintain")["hours"] >= 1
    status = answer(database, "partitions", "status")
    assert status["hours"]["marked"] == 0
    assert status["hours"]["sums"] == 1
    assert "hours before" in database.cli("partitions", "status").stdout
    assert json.dumps(date.today().year) in database.cli("partitions", "status").stdout
