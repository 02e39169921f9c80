"""An import beside writers and readers, cut short, and within its memory."""

import json
import random
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.months import following, month_of, partition_name
from tests.database.conftest import Database
from tests.database.importing import (
    NOW,
    PROGRAM,
    ROWS,
    assert_exact,
    bring_in,
    count,
    rows,
    tables,
    wait_until,
    write,
)
from tests.waiting import LIMIT, wait_for


def test_months_merge_beside_a_writer(database: Database, cursor: Cursor) -> None:
    """No row that is written during the import is lost."""
    cursor.execute("SELECT hourly.close(now())")
    since = NOW - timedelta(days=40)
    everything = list(rows(40_000, since, NOW))
    bring_in(database, write(database.directory / "a.csv", everything[::3]))
    stop = threading.Event()
    written: list[int] = []

    def live() -> None:
        connection = database.connect()
        with connection.cursor() as own:
            while not stop.is_set():
                own.execute(
                    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
                    "SELECT %s::timestamptz - n * interval '20 days' + %s * interval '1 us', "
                    "'office', 'live', true, 'live' FROM generate_series(0, 10) AS n",
                    (NOW, len(written)),
                )
                written.append(11)
        connection.close()

    writer = threading.Thread(target=live)
    writer.start()
    try:
        wait_for(lambda: written, "the first row of the writer")
        old = list(rows(10_000, NOW - timedelta(days=150), NOW - timedelta(days=110)))
        report = bring_in(database, write(database.directory / "b.csv", everything + old))
    finally:
        stop.set()
        writer.join()
    assert report["imported"] == 50_000 - len(everything[::3])
    assert count(cursor) == 50_000 + sum(written)
    assert_exact(cursor)


def test_rows_that_are_written_during_the_import_are_kept(database: Database, cursor: Cursor) -> None:
    """A reader delays the exchange of the months, and a writer inserts into one of them."""
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
            wait_until(
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
            output, _ = process.communicate(timeout=LIMIT)
    reader.close()
    assert process.returncode == 0
    assert json.loads(output)["imported"] == 3000
    assert count(cursor) == 3001
    assert tables(cursor) == before
    assert_exact(cursor)


def test_an_import_inserts_rows_if_a_reader_prevents_the_exchange(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from occupancy_db.history import importer
    from occupancy_db.history.rejects import Rejects
    from occupancy_db.history.rows import Reader
    from occupancy_db.history.sources.base import Options

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


def test_a_failure_at_the_end_rolls_back_everything(database: Database, cursor: Cursor) -> None:
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


def test_a_killed_import_changes_nothing(database: Database, cursor: Cursor) -> None:
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
    wait_until(
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
    """Rows of 40 months in random order, 25 MB that must not be in memory at the same time."""
    content = list(rows(300_000, NOW - timedelta(days=1200), NOW))
    random.Random(3).shuffle(content)
    file = write(database.directory / "a.csv", content)
    del content
    script = (
        "import sys; from occupancy_db.history import importer, rows; from occupancy_db.cli import main\n"
        "rows.AT_MOST = importer.AT_MOST = 30_000; rows.ENOUGH = 3_000\n"
        "sys.argv = ['x', 'import', sys.argv[1]]\n"
        "try: main()\n"
        "finally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(status.partition('VmHWM:')[2].split()[0], file=sys.stderr)"
    )
    result = database.run("python", "-c", script, file)
    assert result.returncode == 0, result.stderr
    assert "300,000 imported" in result.stdout
    assert int(result.stderr) < 115_000  # kB: 70 MB are Python's; all rows at once would need 131 MB
