"""``occupancy-db import`` as an operator uses it: all or nothing, once, exact, and beside writers."""

import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.months import following, month_of, partition_name
from tests.database.conftest import Database

COLUMNS = ["timestamp", "room", "zone", "state", "source_entity", "confidence"]
PROGRAM = Path(sys.executable).with_name("occupancy-db")
ROOMS = ["office", "bedroom", "bathroom", "living_kitchen"]
ROWS = int(os.environ.get("OCCUPANCY_IMPORT_ROWS", "100000"))
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

Row = list[str]


def rows(number: int, since: datetime, until: datetime, start: int = 0) -> Iterator[Row]:
    """Distinct readings spread evenly over a time."""
    step = (until - since) / number
    for n in range(start, number):
        room = ROOMS[n % 4]
        moment = (since + step * n).replace(microsecond=n % 1000 * 1000)
        yield [
            moment.isoformat(),
            room,
            f"{room} {n % 3}",
            ("true", "off")[n % 7 < 3],
            f"fp2.{room}",
            str(n % 100 / 100),
        ]


def write(path: Path, content: Any, header: list[str] = COLUMNS) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *content])
    return str(path)


def bring_in(database: Database, *arguments: str, code: int = 0) -> Any:
    result = database.cli("--json", "import", *arguments)
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


def count(cursor: Cursor) -> int:
    cursor.execute("SELECT count(*) FROM sensor_readings")
    row = cursor.fetchone()
    assert row
    return int(row[0])


def tables(cursor: Cursor) -> set[str]:
    """Tables and indexes, of which an import must not leave others."""
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'S'"
    )
    return {name for (name,) in cursor.fetchall()}


def assert_exact(cursor: Cursor) -> None:
    """The statistics are what a recount says, and every month is like every other."""
    cursor.execute("""
        SELECT count(*) FROM (
            SELECT room, hour, reading_count, first_reading, last_reading, active_zones
            FROM sensor_reading_stats
        ) AS stats FULL JOIN (
            SELECT room, date_bin('1 hour', timestamp, 'epoch') AS hour, count(*) AS reading_count,
                   min(timestamp) AS first_reading, max(timestamp) AS last_reading,
                   count(DISTINCT zone) AS active_zones
            FROM sensor_readings GROUP BY 1, 2
        ) AS recount USING (room, hour, reading_count, first_reading, last_reading, active_zones)
        WHERE stats IS NULL OR recount IS NULL
    """)
    assert cursor.fetchone() == (0,)
    cursor.execute("""
        SELECT DISTINCT
            ARRAY(SELECT regexp_replace(pg_get_indexdef(indexrelid), '_20\\d\\d_\\d\\d', '', 'g')
                  FROM pg_index WHERE indrelid = inhrelid ORDER BY 1),
            ARRAY(SELECT tgname::text FROM pg_trigger
                  WHERE tgrelid = inhrelid AND tgenabled = 'O' ORDER BY 1),
            ARRAY(SELECT conname::text || pg_get_constraintdef(oid) FROM pg_constraint
                  WHERE conrelid = inhrelid AND contype = 'c' ORDER BY 1),
            (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = inhrelid AND adnum = 1)
        FROM pg_inherits WHERE inhparent = 'sensor_readings'::regclass
    """)
    kinds = cursor.fetchall()
    assert len(kinds) == 1, kinds


def test_history_of_years_arrives_and_a_second_time_adds_nothing(database: Database, cursor: Cursor) -> None:
    cursor.execute("SELECT hourly.close(now())")
    before = tables(cursor)
    since = NOW - timedelta(days=400)
    file = write(database.directory / "a.csv", rows(20_000, since, NOW))
    report = bring_in(database, file)
    expected: dict[str, int] = {}
    for row in rows(20_000, since, NOW):
        expected[row[0][:7]] = expected.get(row[0][:7], 0) + 1
    assert report["months"] == expected
    assert (report["read"], report["imported"], report["rejected"], report["rejects"]) == (
        20_000,
        20_000,
        0,
        None,
    )
    assert count(cursor) == 20_000
    cursor.execute(
        "SELECT count(DISTINCT id), sum(state::int), sum(confidence::numeric)::float FROM sensor_readings"
    )
    written = list(rows(20_000, since, NOW))
    assert cursor.fetchone() == (
        20_000,
        sum(row[3] == "true" for row in written),
        pytest.approx(sum(float(row[5]) for row in written)),
    )
    assert_exact(cursor)
    cursor.execute("SELECT count(*) FROM hourly.marks")
    assert cursor.fetchone() == (0,)
    after = tables(cursor)
    assert not [name for name in after if name.startswith("import")]
    assert before <= after
    cursor.execute(
        "SELECT count(*) FROM pg_stat_user_tables WHERE n_live_tup > 0 AND last_analyze IS NOT NULL"
    )
    analyzed = cursor.fetchone()
    assert analyzed
    assert analyzed[0] >= 14

    again = bring_in(database, file)
    assert (again["imported"], again["duplicates"]) == (0, 20_000)
    assert count(cursor) == 20_000
    assert tables(cursor) == after


def test_files_that_overlap_in_any_order_with_duplicates(database: Database, cursor: Cursor) -> None:
    """Each reading once, whatever file it is in and how often."""
    since, until = NOW - timedelta(days=300), NOW - timedelta(days=200)
    everything = list(rows(30_000, since, until))
    shuffled = everything[:20_000] + everything[:5000]
    random.Random(1).shuffle(shuffled)
    first = write(database.directory / "a.csv", shuffled)
    second = database.directory / "b.csv.gz"
    write(database.directory / "b.csv", everything[10_000:])
    second.write_bytes(gzip.compress((database.directory / "b.csv").read_bytes()))
    report = bring_in(database, first, str(second))
    assert (report["read"], report["imported"], report["duplicates"]) == (45_000, 30_000, 15_000)
    assert count(cursor) == 30_000
    assert_exact(cursor)


def test_the_same_moment_is_no_duplicate_if_anything_differs(database: Database, cursor: Cursor) -> None:
    good = [NOW.isoformat(), "office", "desk", "on", "fp2.a", "0.5"]
    earlier = (NOW - timedelta(microseconds=1)).isoformat()
    different = [
        [*good[:column], value, *good[column + 1 :]]
        for column, value in enumerate([earlier, "bedroom", "door", "off", "fp2.b"])
    ]
    same = [[*good[:5], "0.9"], [NOW.isoformat().replace("+00:00", "Z"), *good[1:3], "TRUE", *good[4:]]]
    file = write(database.directory / "a.csv", [good, *different, *same])
    report = bring_in(database, file)
    assert (report["imported"], report["duplicates"]) == (6, 2)
    cursor.execute("SELECT DISTINCT confidence FROM sensor_readings")
    assert cursor.fetchall() == [(0.5,)]  # the first is kept


def test_months_merge_beside_a_writer(database: Database, cursor: Cursor) -> None:
    """What is written meanwhile is neither lost nor waited for."""
    cursor.execute("SELECT hourly.close(now())")
    since = NOW - timedelta(days=40)
    everything = list(rows(40_000, since, NOW))
    bring_in(database, write(database.directory / "a.csv", everything[::3]))
    stop = threading.Event()
    written: list[float] = []

    def live() -> None:
        connection = database.connect()
        with connection.cursor() as own:
            while not stop.is_set():
                began = time.monotonic()
                own.execute(
                    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
                    "SELECT %s::timestamptz - n * interval '20 days' + %s * interval '1 us', "
                    "'office', 'live', true, 'live' FROM generate_series(0, 10) AS n",
                    (NOW, len(written)),
                )
                written.append(time.monotonic() - began)
        connection.close()

    writer = threading.Thread(target=live)
    writer.start()
    try:
        old = list(rows(10_000, NOW - timedelta(days=150), NOW - timedelta(days=110)))
        report = bring_in(database, write(database.directory / "b.csv", everything + old))
    finally:
        stop.set()
        writer.join()
    assert report["imported"] == 50_000 - len(everything[::3])
    assert len(written) > 5
    assert max(written) < 10
    assert count(cursor) == 50_000 + 11 * len(written)
    assert_exact(cursor)


def test_an_empty_month_that_gets_rows_before_the_end_keeps_them(database: Database, cursor: Cursor) -> None:
    """A reader keeps the months from being exchanged; meanwhile somebody writes into one."""
    before = tables(cursor)
    since = NOW - timedelta(days=100)
    file = write(database.directory / "a.csv", rows(3000, since, NOW))
    reader = database.connect()
    reader.autocommit = False
    with reader.cursor() as own:
        own.execute("SELECT count(*) FROM sensor_readings")
        process = subprocess.Popen(
            [PROGRAM, "--json", "import", file], env=database.environment(), cwd=database.directory,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait_for(
                cursor,
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock')",
            )
            cursor.execute(
                "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
                "VALUES (%s, 'office', 'live', true, 'live')", (since + timedelta(days=40),)
            )  # fmt: skip
            assert process.poll() is None
        finally:
            reader.rollback()
            output, _ = process.communicate(timeout=60)
    reader.close()
    assert process.returncode == 0
    assert json.loads(output)["imported"] == 3000
    assert count(cursor) == 3001
    assert tables(cursor) == before
    assert_exact(cursor)


def test_a_reader_who_never_ends_is_worked_around(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from occupancy_db.history import importer
    from occupancy_db.history.formats import Options, Reader, Rejects

    monkeypatch.setattr(importer, "SWAP_WAIT", 0.5)
    path = Path(write(database.directory / "a.csv", rows(3000, NOW - timedelta(days=300), NOW)))
    with database.connect() as reader, reader.cursor() as own:
        reader.autocommit = False
        own.execute("SELECT count(*) FROM sensor_readings")
        with Rejects(database.directory / "bad.csv") as bad:
            files = Reader([path], Options(), bad, datetime.now(UTC))
            report = asyncio.run(importer.run(database.settings(), files, lambda _: None))
        reader.rollback()
    reader.close()
    assert report.imported == 3000
    assert count(cursor) == 3000
    assert_exact(cursor)


def wait_for(cursor: Cursor, condition: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        cursor.execute(condition)
        if cursor.fetchone() == (True,):
            return
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def test_bad_rows_are_written_down_and_the_others_come_in(database: Database, cursor: Cursor) -> None:
    content = [*rows(10, NOW - timedelta(days=2), NOW)]
    content[3][1] = "attic"
    content[7][2] = "a\nb"
    content[8][0] = "1970-01-01T00:00:00Z"
    write(database.directory / "a.csv", content)
    result = database.cli("import", "a.csv")
    assert result.returncode == ExitCode.FAILED
    assert "8 imported" in result.stdout
    assert "a.csv, line 5: unknown room 'attic'" in result.stdout
    with (database.directory / "a.csv.rejects.csv").open(newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [(row["file"], row["line"]) for row in rejected] == [("a.csv", "5"), ("a.csv", "11")]
    assert next(csv.reader([rejected[0]["row"]])) == content[3]
    assert count(cursor) == 8


def test_ndjson_and_the_history_of_home_assistant(database: Database, cursor: Cursor) -> None:
    lines = [
        json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows(50, NOW - timedelta(days=2), NOW)
    ]
    (database.directory / "a.ndjson").write_text("\n".join(lines))
    assert bring_in(database, "a.ndjson")["imported"] == 50
    write(database.directory / "e.csv", [["binary_sensor.x", "office", "x"]], ["entity_id", "room", "zone"])
    history = [
        ["binary_sensor.x", state, f"{NOW:%FT%T}.{n}Z"]
        for n, state in enumerate(["on", "unavailable", "off"])
    ]
    write(database.directory / "h.csv", history, ["entity_id", "state", "last_changed"])
    refused = database.cli("import", "h.csv")
    assert refused.returncode == ExitCode.FAILED
    assert "--entities" in refused.stderr
    report = bring_in(database, "h.csv", "--entities", "e.csv")
    assert (report["imported"], report["no_state"], report["read"]) == (2, 1, 3)
    cursor.execute(
        "SELECT state FROM sensor_readings WHERE source_entity = 'binary_sensor.x' ORDER BY timestamp"
    )
    assert cursor.fetchall() == [(True,), (False,)]


def test_a_dry_run_asks_no_database(database: Database) -> None:
    content = [*rows(10, NOW - timedelta(days=2), NOW), ["x"]]
    write(database.directory / "a.csv", content)
    result = database.cli("--json", "import", "a.csv", "--dry-run", "--rejects", "bad.csv", POSTGRES_PORT="1")
    assert result.returncode == ExitCode.FAILED
    report = json.loads(result.stdout)
    assert (report["imported"], report["rejected"], report["rejects"]) == (10, 1, "bad.csv")
    assert sum(report["months"].values()) == 10
    assert database.cli("import", "a.csv", POSTGRES_PORT="1").returncode == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.csv"], ExitCode.FAILED, "nowhere.csv: No such file"),
        (["a.csv", "--column", "zone"], ExitCode.USAGE, "ours=theirs"),
        (["a.csv", "--column", "zone=area"], ExitCode.FAILED, "no column area"),
        (["a.csv", "--timezone", "Mars/Base"], ExitCode.USAGE, "no time zone Mars/Base"),
        (["a.csv", "--entities", "a.csv"], ExitCode.FAILED, "its header is another"),
    ],
)
def test_mistakes_are_told_in_one_line(
    database: Database, arguments: list[str], code: ExitCode, words: str
) -> None:
    write(database.directory / "a.csv", [])
    result = database.cli("import", *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_history_only_is_left_out(database: Database, cursor: Cursor) -> None:
    """Retention has counted these readings; brought in again, they would be counted twice."""
    cursor.execute("SELECT hourly.close(now())")
    content = list(rows(5000, NOW - timedelta(days=60), NOW))
    file = write(database.directory / "a.csv", content)
    bring_in(database, file)
    cutoff = NOW - timedelta(days=50, minutes=-20)
    cursor.execute("SELECT hourly.forget('-infinity', %s)", (cutoff,))
    removed = 5000 - count(cursor)
    assert removed > 700
    statistics = "SELECT sum(reading_count), min(hour) FROM sensor_reading_stats"
    cursor.execute(statistics)
    before = cursor.fetchone()
    late = [(cutoff - timedelta(days=1)).isoformat(), "guest_bedroom", "new", "on", "fp2.new", "1"]
    report = bring_in(database, write(database.directory / "b.csv", [*content, late]))
    # In the hour that was cut, readings of a zone that it has history of are left out too.
    assert report["in_history"] >= removed
    assert report["imported"] == 1
    assert report["in_history"] + report["duplicates"] == 5000
    cursor.execute(statistics)
    assert before
    assert cursor.fetchone() == (before[0] + 1, before[1])


def test_a_month_that_stands_by_itself_is_not_overwritten(database: Database, cursor: Cursor) -> None:
    month = partition_name(month_of(NOW))
    cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {month}")
    result = database.cli(
        "import", write(database.directory / "a.csv", rows(10, NOW, NOW + timedelta(seconds=9)))
    )
    assert result.returncode == ExitCode.FAILED
    assert f"{month} is no partition but a table by itself" in result.stderr
    cursor.execute(f"SELECT count(*) FROM {month}")
    assert cursor.fetchone() == (0,)


def test_a_failure_at_the_end_takes_everything_back(database: Database, cursor: Cursor) -> None:
    before = tables(cursor)
    old = following(month_of(NOW), -10)
    last = partition_name(following(month_of(NOW), -1))  # this month may have no row yet
    cursor.execute(f"CREATE VIEW {last}_pkey_of_another AS SELECT 1")
    cursor.execute(f"CREATE VIEW of_a_month AS SELECT * FROM {last}")  # forbids DROP
    start = datetime(old.year, old.month, 1, tzinfo=UTC)
    result = database.cli("import", write(database.directory / "a.csv", rows(1000, start, NOW)))
    assert result.returncode == ExitCode.FAILED
    assert "of_a_month" in result.stderr
    assert count(cursor) == 0
    assert {name for name in tables(cursor) - before if not name.startswith(("sensor_", "of_a"))} == set()


def test_killed_at_any_moment_nothing_has_happened(database: Database, cursor: Cursor) -> None:
    before = tables(cursor)
    since = datetime.combine(following(month_of(NOW), -9), datetime.min.time(), UTC)
    file = write(database.directory / "a.csv", rows(ROWS, since, NOW))
    chance = random.Random(7)
    span = 2.5 * max(1, ROWS / 100_000)
    for _ in range(10):
        process = subprocess.Popen(
            [PROGRAM, "import", file], env=database.environment(), cwd=database.directory,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(chance.uniform(0.3, span))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert count(cursor) in (0, ROWS)
    wait_for(
        cursor,
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'occupancy-db import')",
    )
    if count(cursor) == 0:
        assert tables(cursor) == before
    report = bring_in(database, file)
    assert report["imported"] + report["duplicates"] == ROWS
    assert count(cursor) == ROWS
    assert not [name for name in tables(cursor) if name.startswith("import")]
    assert_exact(cursor)


def test_memory_is_bounded(database: Database) -> None:
    """Rows of 40 months in no order, 25 MB that must not be held at once."""
    content = list(rows(300_000, NOW - timedelta(days=1200), NOW))
    random.Random(3).shuffle(content)
    file = write(database.directory / "a.csv", content)
    del content
    script = (
        "import sys; from occupancy_db.history import formats, importer; from occupancy_db.cli import main\n"
        "formats.AT_MOST = importer.AT_MOST = 30_000; formats.ENOUGH = 3_000\n"
        "sys.argv = ['x', 'import', sys.argv[1]]\n"
        "try: main()\n"
        "finally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(status.partition('VmHWM:')[2].split()[0], file=sys.stderr)"
    )
    result = database.run("python", "-c", script, file)
    assert result.returncode == 0, result.stderr
    assert "300,000 imported" in result.stdout
    assert int(result.stderr) < 115_000  # kB, of which 70 MB are Python's; all rows at once take 131


def test_a_month_is_stored_by_zone_and_a_zone_is_found_there(database: Database, cursor: Cursor) -> None:
    since = datetime.combine(following(month_of(NOW), -2), datetime.min.time(), UTC)
    bring_in(database, write(database.directory / "a.csv", rows(60_000, since, since + timedelta(days=27))))
    table = partition_name(since.date())
    cursor.execute(f"SELECT string_agg(zone, ',' ORDER BY ctid) FROM {table}")
    row = cursor.fetchone()
    assert row
    zones = row[0].split(",")
    assert zones == sorted(zones)
    cursor.execute(f"VACUUM ANALYZE {table}")
    cursor.execute(f"EXPLAIN SELECT * FROM sensor_readings WHERE zone = '{zones[0]}'")
    assert f"{table}_zone_idx" in str(cursor.fetchall())
