"""The hourly sums: after every sequence of writes and sums, the views equal a recount."""

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2.errors
import psycopg2.extensions
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.conftest import Database
from tests.waiting import wait_for

STATS = """
    SELECT room, hour, reading_count, active_zones, round(avg_confidence::numeric, 9),
           first_reading, last_reading
    FROM sensor_reading_stats ORDER BY room, hour
"""
RECOUNT = """
    SELECT room, date_trunc('hour', timestamp, 'UTC') AS hour, count(*), count(DISTINCT zone),
           round(avg(confidence)::numeric, 9), min(timestamp), max(timestamp)
    FROM sensor_readings GROUP BY 1, 2 ORDER BY 1, 2
"""
STATUS = """
    SELECT room, active_zones, total_zones, last_update, round(avg_confidence::numeric, 9), occupancy_status
    FROM room_occupancy_status ORDER BY room
"""
LATEST = """
    WITH latest AS (
        SELECT DISTINCT ON (room, zone) * FROM sensor_readings
        ORDER BY room, zone, timestamp DESC, id DESC
    )
    SELECT room, count(*) FILTER (WHERE state), count(*), max(timestamp), round(avg(confidence)::numeric, 9),
           CASE WHEN bool_or(state) THEN 'occupied' ELSE 'vacant' END
    FROM latest GROUP BY room ORDER BY room
"""
INSERT = """
    INSERT INTO {} (timestamp, room, zone, state, confidence, source_entity)
    VALUES (%s, %s, %s, %s, %s, 'binary_sensor.x')
"""
ROOMS = ["bedroom", "office", "bathroom"]
NOW = datetime.now(UTC)


def ask(cursor: Cursor, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    return cursor.fetchall()


def assert_exact(cursor: Cursor) -> None:
    """Compare both views with recounts in one snapshot."""
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    found = ask(cursor, STATS), ask(cursor, STATUS)
    counted = ask(cursor, RECOUNT), ask(cursor, LATEST)
    cursor.execute("COMMIT")
    assert found == counted


def write(cursor: Cursor, moment: datetime, random: random.Random, table: str = "sensor_readings") -> None:
    cursor.execute(
        INSERT.format(table),
        (
            moment,
            random.choice(ROOMS),
            random.choice(["desk", "bed", "door"]),
            random.random() < 0.5,
            round(random.random(), 3),
        ),
    )


def sum_up(cursor: Cursor, until: str = "now()") -> None:
    cursor.execute(f"SELECT hourly.close({until})")
    while ask(cursor, "SELECT hourly.refresh(3)") != [(0,)]:
        pass


@pytest.mark.parametrize("seed", range(8))
def test_views_equal_a_recount_after_every_step(cursor: Cursor, seed: int) -> None:
    chance = random.Random(seed)
    hours = [NOW - timedelta(days=n * 17, minutes=n * 7) for n in range(8)]

    def some() -> datetime:
        return chance.choice(hours) - timedelta(minutes=chance.uniform(0, 90))

    def partition() -> str:
        return f"sensor_readings_{chance.choice(hours):%Y_%m}"

    steps = {
        "insert": lambda: write(cursor, some(), chance),
        "insert now": lambda: write(cursor, datetime.now(UTC), chance),
        "insert into a partition": lambda: write(
            cursor, hours[0], chance, f"sensor_readings_{hours[0]:%Y_%m}"
        ),
        "update": lambda: cursor.execute(
            "UPDATE sensor_readings SET timestamp = timestamp - interval '61 minutes', confidence = 0.25 "
            "WHERE id = (SELECT max(id) FROM sensor_readings)"
        ),
        "delete": lambda: cursor.execute("DELETE FROM sensor_readings WHERE id %% 5 = %s", [seed % 5]),
        "delete a zone": lambda: cursor.execute(
            f"DELETE FROM {partition()} WHERE zone = 'door' AND room = 'office'"
        ),
        "truncate a month": lambda: cursor.execute(f"TRUNCATE {partition()}"),
        "truncate": lambda: cursor.execute("TRUNCATE sensor_readings"),
        "close": lambda: cursor.execute("SELECT hourly.close(%s)", [some()]),
        "refresh": lambda: cursor.execute("SELECT hourly.refresh(2)"),
        "sum up": lambda: sum_up(cursor),
    }
    weights = [12, 6, 3, 4, 1, 2, 1, 0.3, 3, 4, 2]
    cursor.execute("SET timezone = 'America/St_Johns'")
    done = []
    for _ in range(60):
        (step,) = chance.choices(list(steps), weights)
        done.append(step)
        steps[step]()
        try:
            assert_exact(cursor)
        except AssertionError:
            raise AssertionError(f"after {done}") from None


def test_summed_hours_are_answered_from_the_sums(cursor: Cursor) -> None:
    write(cursor, NOW - timedelta(hours=5), random.Random(1))
    sum_up(cursor)
    assert ask(cursor, "SELECT count(*) FROM hourly.open") == [(0,)]
    assert ask(cursor, "SELECT sum(reading_count) FROM hourly.sums") == [(1,)]
    # A recount would not return the changed sum.
    cursor.execute("UPDATE hourly.sums SET reading_count = 41")
    assert ask(cursor, "SELECT reading_count FROM sensor_reading_stats") == [(41,)]


def test_closing_waits_for_a_writer_that_has_not_marked_its_hours(database: Database, cursor: Cursor) -> None:
    writer = database.connect()
    writer.autocommit = False
    with writer.cursor() as writing:
        write(writing, NOW - timedelta(hours=3), random.Random(1))  # no hour is closed, so nothing is marked
        cursor.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            sum_up(cursor)
        writer.commit()
    sum_up(cursor)
    assert ask(cursor, "SELECT sum(reading_count) FROM hourly.sums") == [(1,)]
    assert_exact(cursor)
    writer.close()


def test_a_late_row_that_commits_while_its_hour_is_summed_is_not_lost(
    database: Database, cursor: Cursor
) -> None:
    late = NOW - timedelta(hours=3)
    write(cursor, late, random.Random(1))
    sum_up(cursor)
    writer = database.connect()
    writer.autocommit = False
    with writer.cursor() as writing:
        write(writing, late, random.Random(2))
        write(cursor, late, random.Random(3))
        # The mark of the second row causes the sum; the first row and its mark are not visible yet.
        assert ask(cursor, "SELECT hourly.refresh(10)") == [(1,)]
        assert ask(cursor, "SELECT sum(reading_count) FROM hourly.sums") == [(2,)]
        writer.commit()
    assert ask(cursor, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(3,)]
    assert_exact(cursor)
    writer.close()


def test_a_writer_with_an_old_snapshot_marks_everything(database: Database, cursor: Cursor) -> None:
    writer = database.connect()
    writer.set_session(isolation_level="REPEATABLE READ")
    writer.autocommit = False
    with writer.cursor() as writing:
        writing.execute("SELECT count(*) FROM hourly.watermark")  # its snapshot: nothing is closed
        sum_up(cursor)
        write(writing, NOW - timedelta(hours=3), random.Random(1))
        writer.commit()
    assert_exact(cursor)
    sum_up(cursor)
    assert ask(cursor, "SELECT sum(reading_count) FROM hourly.sums") == [(1,)]
    writer.close()


def test_many_writers_and_summing_up_at_once(database: Database) -> None:
    """Several threads write 25 rounds each, while snapshots are checked."""
    over = threading.Event()
    rounds = [0] * 6
    failures: list[BaseException] = []

    def run(number: int) -> None:
        chance = random.Random(number)
        connection = database.connect()
        try:
            with connection.cursor() as cursor:
                while not over.is_set():
                    rounds[number] += 1
                    match number:
                        case 0:
                            cursor.execute("SET lock_timeout = '50ms'")
                            try:
                                hours = chance.uniform(0, 200)
                                cursor.execute(
                                    "SELECT hourly.close(now() - make_interval(hours => %s))", [int(hours)]
                                )
                                cursor.execute("SELECT hourly.refresh(4)")
                            except psycopg2.errors.LockNotAvailable:
                                pass
                        case 1:
                            assert_exact(cursor)
                        case _:
                            moment = datetime.now(UTC) - timedelta(hours=chance.choice([0, 0, 1, 5, 100]))
                            cursor.execute("BEGIN")
                            for _ in range(chance.randint(1, 3)):
                                write(cursor, moment, chance)
                            if chance.random() < 0.3:
                                cursor.execute(
                                    "DELETE FROM sensor_readings WHERE id IN (SELECT id FROM sensor_readings "
                                    "WHERE zone = 'bed' LIMIT 1 FOR UPDATE SKIP LOCKED)"
                                )
                            cursor.execute(chance.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: failures or min(rounds) >= 25, "25 rounds of each thread", explain=lambda: rounds)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    connection = database.connect()
    with connection.cursor() as cursor:
        assert ask(cursor, "SELECT count(*) > 50 FROM sensor_readings") == [(True,)]
        sum_up(cursor)
        assert_exact(cursor)
    connection.close()


def test_writers_need_no_privileges_on_the_sums(database: Database, cursor: Cursor) -> None:
    database.cluster.execute("CREATE ROLE writer LOGIN PASSWORD 'x'")
    try:
        cursor.execute(f"GRANT CONNECT ON DATABASE {database.name} TO writer")
        cursor.execute("GRANT USAGE ON SCHEMA public TO writer")
        cursor.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer")
        sum_up(cursor)
        connection = database.cluster.connect(database.name, "writer", "x")
        with connection.cursor() as writing:
            write(writing, NOW - timedelta(hours=3), random.Random(1))
            writing.execute("UPDATE sensor_readings SET confidence = 0.5")
            assert len(ask(writing, STATS)) == len(ask(writing, STATUS)) == 1
            for forbidden in ("DELETE FROM hourly.marks", "SELECT hourly.refresh(1)"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    writing.execute(forbidden)
        connection.close()
        assert_exact(cursor)
    finally:
        database.cluster.execute("DROP OWNED BY writer", "DROP ROLE writer", database=database.name)


def test_a_dump_restores_with_its_sums(database: Database, cursor: Cursor, empty: Database) -> None:
    for n in range(20):
        write(cursor, NOW - timedelta(hours=n), random.Random(n))
    sum_up(cursor)
    cursor.execute("SELECT hourly.forget('-infinity', now() - interval '10 hours')")
    before = ask(cursor, STATS)
    assert sum(row[2] for row in before) == 20
    dump = database.dump()
    empty.psql(dump)
    connection = empty.connect()
    with connection.cursor() as restored:
        restored.execute("SET timezone = 'Asia/Kolkata'")
        assert ask(restored, STATS) == before
        write(restored, NOW - timedelta(hours=2), random.Random(77))
        sum_up(restored)
        assert ask(restored, "SELECT sum(reading_count) FROM sensor_reading_stats") == [(21,)]
    connection.close()
