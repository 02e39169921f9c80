"""Rows for a test database, fingerprints of its content, and clients during migrations."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.schema.definitions import Definitions
from tests.database.conftest import Database
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.users import OWNER, password
from tests.waiting import wait_for_async

NOWHERE = BackupSettings(dir=Path("/no/where"))

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES ($1, 'office', 'desk', true, 'binary_sensor.desk')"
)

# The values are valid before and after the columns have become enums.
ROWS = [
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity, confidence) "
    "SELECT now() - n * interval '1 hour', 'office', 'desk', n % 2 = 0, 'binary_sensor.desk', 0.5 "
    "FROM generate_series(1, 2000) AS n",
    "INSERT INTO room_transitions (timestamp, from_room, to_room, transition_duration_seconds) "
    "SELECT now() - n * interval '1 hour', 'office', 'bedroom', 12 FROM generate_series(1, 100) AS n",
    "INSERT INTO predictions "
    "(prediction_made_at, room, prediction_type, confidence, expected_vacancy_minutes) "
    "SELECT now() - n * interval '1 hour', 'office', 'vacancy', 0.5, n FROM generate_series(1, 5000) AS n",
]
COLUMNS = {
    "sensor_readings": "id, timestamp, room, zone, state, confidence, source_entity",
    "room_transitions": "id, timestamp, from_room, to_room, transition_duration_seconds",
    "predictions": "id, prediction_made_at, room, prediction_type, confidence, expected_vacancy_minutes",
}
TABLE = "SELECT '{}', count(*), md5(string_agg(concat_ws(' ', {}), ';' ORDER BY id)) FROM {}"
# A parallel plan returns the tables in any order.
FINGERPRINT = " UNION ALL ".join(TABLE.format(name, COLUMNS[name], name) for name in COLUMNS) + " ORDER BY 1"


def run(database: Database, *statements: str) -> list[tuple[Any, ...]]:
    connection = database.connect()
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def schema(database: Database) -> Definitions:
    """The definitions of a database, as pg_dump writes them for the owner."""
    return Definitions(database.dump("--create", "--schema-only"))


class Load:
    """The results of the sessions of `load`.

    Attributes:
        written: Rows that the server has confirmed.
        during: How many of them were written while the block ran.
        failed: Errors of the server.
        slowest: Seconds of the slowest statement.
    """

    def __init__(self) -> None:
        self.written = 0
        self.during = 0
        self.failed: list[str] = []
        self.slowest = 0.0


@asynccontextmanager
async def load(database: Database, user: str = OWNER, reader: str = OWNER) -> AsyncIterator[Load]:
    """Run two writers and a reader until the block ends."""
    found, over = Load(), asyncio.Event()

    async def work(name: str, write: bool) -> None:
        connection = await asyncpg.connect(
            host=database.cluster.host, port=database.cluster.port, user=name, password=password(name),
            database=database.name,
        )  # fmt: skip
        while not over.is_set():
            start = time.perf_counter()
            try:
                if write:
                    await connection.execute(READING, datetime.now(UTC))
                    found.written += 1
                else:
                    await connection.fetch(
                        "SELECT zone, state FROM sensor_readings WHERE timestamp > now() - interval '1 min'"
                    )
            except asyncpg.PostgresError as error:
                found.failed.append(repr(error))
            found.slowest = max(found.slowest, time.perf_counter() - start)
            await asyncio.sleep(0.005)
        await connection.close()

    tasks = [asyncio.create_task(work(user, True)) for _ in range(2)] + [
        asyncio.create_task(work(reader, False))
    ]
    try:
        await wait_for_async(lambda: found.written >= 10 or found.failed, "ten rows before")
        before = found.written
        yield found
        found.during = found.written - before
        goal = found.written + 10
        await wait_for_async(lambda: found.written >= goal or found.failed, "ten rows after")
    finally:
        over.set()
        await asyncio.gather(*tasks)
