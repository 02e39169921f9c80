"""The monthly partitions of a test database, and sessions that hold locks on them."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg2.extensions
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.months import following, month_of, partition_name
from tests.database.conftest import Database
from tests.database.test_hours import ask

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


@contextmanager
def holding(database: Database, statement: str) -> Any:
    """Open another session with a transaction that does not end before the block."""
    connection = database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(statement)
        yield connection
    connection.close()


def half_detached(database: Database, table: str) -> None:
    """Leave a partition as an interrupted DETACH CONCURRENTLY: only the first transaction is committed."""
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
