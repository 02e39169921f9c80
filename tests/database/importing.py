"""Files for ``occupancy-db import``, and the content of the database afterwards."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.conftest import Database
from tests.waiting import wait_for

COLUMNS = ["timestamp", "room", "zone", "state", "source_entity", "confidence"]
PROGRAM = Path(sys.executable).with_name("occupancy-db")
ROOMS = ["office", "bedroom", "bathroom", "living_kitchen"]
ROWS = int(os.environ.get("OCCUPANCY_IMPORT_ROWS", "100000"))
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

Row = list[str]


def rows(number: int, since: datetime, until: datetime, start: int = 0) -> Iterator[Row]:
    """Return distinct readings spread evenly over a period."""
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
    """Return the names of tables and indexes, which must be the same after an import."""
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'S'"
    )
    return {name for (name,) in cursor.fetchall()}


def assert_exact(cursor: Cursor) -> None:
    """Assert that the statistics equal a recount, and that all months have the same definitions."""
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


def assert_exact_with_history(cursor: Cursor) -> None:
    """Assert that the statistics equal a recount of the readings and what is kept of removed ones."""
    cursor.execute("""
        SELECT count(*) FROM (SELECT room, hour, reading_count FROM sensor_reading_stats) AS stats
        FULL JOIN (
            SELECT room, hour, sum(reading_count)::bigint AS reading_count FROM (
                SELECT room, date_bin('1 hour', timestamp, 'epoch') AS hour, count(*) AS reading_count
                FROM sensor_readings GROUP BY 1, 2
                UNION ALL SELECT room, hour, reading_count FROM hourly.history
            ) AS counted GROUP BY 1, 2
        ) AS recount USING (room, hour, reading_count)
        WHERE stats IS NULL OR recount IS NULL
    """)
    assert cursor.fetchone() == (0,)


def wait_until(cursor: Cursor, condition: str) -> None:
    """Wait until a query returns true."""

    def is_true() -> bool:
        cursor.execute(condition)
        return cursor.fetchone() == (True,)

    wait_for(is_true, condition)
