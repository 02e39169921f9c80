"""Retention beside writers and readers: removed rows, kept rows and refused arguments."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.history import retention
from tests.database.conftest import Database
from tests.database.months import NOW, attached, detached, holding, name, without
from tests.database.test_commands import answer
from tests.database.test_hours import STATS, STATUS, ask, assert_exact, sum_up, write
from tests.database.test_schema import fill, insert


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


def test_more_rows_of_one_timestamp_than_a_batch_are_removed(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 3)
    for moment in ask(
        cursor, "SELECT retention_cutoff(2) - n * interval '1 s' FROM generate_series(0, 2) AS n"
    ):
        for _ in range(10):
            insert(cursor, "sensor_readings", timestamp=moment[0])
    done = asyncio.run(retention.cleanup(database.settings(), {"sensor_readings": 2}, dry_run=False))
    assert done["sensor_readings"].rows == 30
    assert ask(cursor, "SELECT count(*) FROM sensor_readings") == [(0,)]


def test_rows_that_were_not_summed_up_are_added_to_the_history(database: Database, cursor: Cursor) -> None:
    fill(cursor, 2000)
    sum_up(cursor)
    for n in range(20):  # late: their hours are marked
        write(cursor, NOW - timedelta(days=120 + n), random.Random(n))
    before = ask(cursor, STATS)
    cursor.execute("SELECT cleanup_old_sensor_readings(4)")
    assert ask(cursor, STATS) == before
    answer(database, "cleanup", "--months", "2", "--no-dry-run")
    assert ask(cursor, STATS) == before


def test_an_hour_that_is_removed_in_batches_is_one_hour_of_the_history(cursor: Cursor) -> None:
    hour = datetime(NOW.year, NOW.month, 1, tzinfo=UTC) - timedelta(days=30)
    for minute in (1, 20, 40, 59):
        insert(cursor, "sensor_readings", timestamp=hour + timedelta(minutes=minute), confidence=minute / 100)
    before = ask(cursor, STATS)
    for minute in (10, 30, 60):
        cursor.execute("SELECT hourly.forget('-infinity', %s)", [hour + timedelta(minutes=minute)])
        assert ask(cursor, STATS) == before
    assert ask(cursor, "SELECT count(*), sum(reading_count) FROM hourly.history") == [(1, 4)]


def test_late_rows_of_a_month_are_counted_when_it_is_removed(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    sum_up(cursor)
    write(cursor, NOW - timedelta(days=150), random.Random(1))  # after its hour was summed up
    before = ask(cursor, STATS)
    table = f"sensor_readings_{NOW - timedelta(days=150):%Y_%m}"
    detached(database, table)
    cursor.execute(f"SELECT hourly.forget_month('{table}', true)")
    assert ask(cursor, STATS) == before


def test_late_rows_of_removed_hours_are_added_to_the_history(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    cursor.execute("SELECT cleanup_old_sensor_readings(1)")
    total = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")
    assert total == [(500,)]
    write(cursor, NOW - timedelta(days=100), random.Random(1))
    sum_up(cursor)
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(501,)]
    answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(501,)]


def test_cleanup_waits_for_a_reader_and_finalises(database: Database, cursor: Cursor) -> None:
    fill(cursor, 500)
    before = ask(cursor, STATS)
    with holding(database, "SELECT count(*) FROM sensor_readings") as reader:
        threading.Timer(1.0, reader.rollback).start()
        done = answer(database, "cleanup", "--months", "5", "--no-dry-run")
    assert done["tables"]["sensor_readings"]["dropped"] == [name(-7), name(-6)]
    assert ask(cursor, STATS) == before


def test_writers_have_no_errors_while_months_are_removed_and_created(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 20_000)
    without(cursor, 3)
    before = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")[0][0]
    # No history yet: until the first month goes, the views equal a recount; so do not remove any here.
    with writers(database, check=True) as comparing:
        for _ in range(3):
            assert answer(database, "partitions", "maintain", "--months-back", "7")["strays"] == []
    with writers(database, check=False) as plain:
        done = answer(database, "cleanup", "--months", "4", "--no-dry-run")
        assert len(done["tables"]["sensor_readings"]["dropped"]) == 3
    written = [*comparing, *plain]
    assert min(written) > 0
    sum_up(cursor)
    after = ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats")[0][0]
    assert after == before + sum(written)


@contextmanager
def writers(database: Database, *, check: bool) -> Iterator[list[int]]:
    """Three sessions that insert readings until the block ends; yields the list of their numbers of rows.

    With ``check`` each compares the views with a recount after every 20 readings.
    """
    stop = threading.Event()
    written: list[int] = []
    failures: list[BaseException] = []

    def insert_readings(number: int) -> None:
        connection = database.connect()
        chance = random.Random(number)
        count = 0
        try:
            with connection.cursor() as cursor:
                while count == 0 or not stop.is_set():
                    write(cursor, datetime.now(UTC) - timedelta(days=chance.choice([0, 0, 0, 40])), chance)
                    count += 1
                    if check and count % 20 == 0:
                        assert_exact(cursor)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()
            written.append(count)

    threads = [threading.Thread(target=insert_readings, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_other_tables_have_their_own_retention(database: Database, cursor: Cursor) -> None:
    for days in (1, 40, 100):
        insert(cursor, "room_transitions", timestamp=NOW - timedelta(days=days))
        insert(cursor, "predictions", prediction_made_at=NOW - timedelta(days=days))
    counts = "SELECT (SELECT count(*) FROM room_transitions), (SELECT count(*) FROM predictions)"
    answer(database, "cleanup", "--months", "1", "--no-dry-run")
    assert ask(cursor, counts) == [(3, 3)]
    options = ["--months", "1", "--transitions-months", "1", "--predictions-months", "2"]
    announced = answer(database, "cleanup", *options)["tables"]
    assert (announced["room_transitions"]["rows"], announced["predictions"]["rows"]) == (2, 1)
    assert ask(cursor, counts) == [(3, 3)]
    done = answer(database, "cleanup", "--no-dry-run", *options)["tables"]
    assert (done["room_transitions"]["rows"], done["predictions"]["rows"]) == (2, 1)
    assert ask(cursor, counts) == [(1, 2)]


@pytest.mark.parametrize("months", ["0", "-1", "1201", "six"])
def test_invalid_numbers_of_months_are_refused(database: Database, cursor: Cursor, months: str) -> None:
    fill(cursor, 10)
    for option in ("--months", "--transitions-months", "--predictions-months"):
        result = database.cli("cleanup", "--no-dry-run", option, months)
        assert result.returncode == ExitCode.USAGE
        assert months in result.stderr
    assert database.cli("partitions", "maintain", "--months-ahead", months).returncode == ExitCode.USAGE
    assert ask(cursor, "SELECT count(*) FROM sensor_readings") == [(10,)]


def test_a_room_without_readings_has_no_status(database: Database, cursor: Cursor) -> None:
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
