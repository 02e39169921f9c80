"""The maintenance lock: migrations, upkeep, retention, imports and backups run one at a time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.driver import LOCK_WAIT as LOCK_WAIT
from occupancy_db.driver import SESSION_SETTINGS as SESSION_SETTINGS
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.settings import Settings

LOCK_TABLE = "public.maintenance_lock"
"""The table that is locked. It has no columns: privileges on it decide who can take the lock."""

LOCK_KEY = int.from_bytes(b"occupanc")
"""Key of the advisory lock that releases before this table took: the ASCII codes of "occupanc"."""

LOCK_SESSION = "occupancy-db maintenance lock"
"""The name of the session that holds the lock."""

WORK_SESSION = "occupancy-db maintenance"
"""The name of the sessions that work under the lock."""

_PAUSE = 0.2

# The advisory lock keeps the tools of earlier releases away, which may run during an upgrade. Other users can
# take it, too: it counts only if its holder could also lock the table. Without the table it is the only lock.
_STATE = text(f"""
    SELECT pg_try_advisory_lock(:key) AS alone, to_regclass('{LOCK_TABLE}') IS NOT NULL AS there,
           coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false) AS may_create
""")
_HOLDERS = text(f"""
    SELECT pid, application_name, usename
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE granted AND pid <> pg_backend_pid()
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND CASE locktype
          WHEN 'relation' THEN relation = to_regclass('{LOCK_TABLE}')
              AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
          WHEN 'advisory' THEN objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = :key
              AND coalesce(has_table_privilege(usesysid, to_regclass('{LOCK_TABLE}'), 'UPDATE'), true)
      END
    ORDER BY locktype = 'relation' DESC
""")  # noqa: S608 - a constant

# As in schema/privileges.sql, which runs on a host before any tool does. Default privileges would let the
# application lock the table.
_CREATE = f"""
    DO $$ BEGIN
        CREATE TABLE {LOCK_TABLE} ();
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'occupancy_app') THEN
            REVOKE INSERT, UPDATE, DELETE ON {LOCK_TABLE} FROM occupancy_app;
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'occupancy_backup') THEN
            GRANT UPDATE ON {LOCK_TABLE} TO occupancy_backup;
        END IF;
    END $$
"""  # noqa: S608 - a constant

# The open transaction with this lock has no snapshot and no transaction ID: vacuum and
# CREATE INDEX CONCURRENTLY do not wait for it.
_LOCK = f"LOCK TABLE {LOCK_TABLE} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"


class _LockHeldError(Exception):
    """Another session holds the maintenance lock."""


@asynccontextmanager
async def maintenance_lock(
    settings: Settings, wait: float = LOCK_WAIT, server_settings: Mapping[str, str] = SESSION_SETTINGS
) -> AsyncIterator[AsyncConnection]:
    """Hold the maintenance lock; yields a connection to work with, in autocommit mode.

    If the session that holds the lock is lost, the yielded connection is closed, and what uses it fails.

    Args:
        settings: The database; each database has its own lock.
        wait: Seconds to wait for the lock.
        server_settings: Configuration parameters of both sessions.

    Raises:
        DatabaseError: another session holds the lock; the text names that session.
    """
    parameters = {**server_settings, "idle_session_timeout": "0"}
    async with (
        hold_lock(settings, wait, server_settings) as holder,
        connect(settings, WORK_SESSION, server_settings=parameters, autocommit=True) as connection,
    ):
        working = await _driver(connection)
        (await _driver(holder)).add_termination_listener(lambda _: working.terminate())
        yield connection


@asynccontextmanager
async def hold_lock(
    settings: Settings, wait: float = LOCK_WAIT, server_settings: Mapping[str, str] = SESSION_SETTINGS
) -> AsyncIterator[AsyncConnection]:
    """Hold the maintenance lock; yields the connection that holds it, which must not be used.

    The lock is that of an open transaction. The function polls for it, because a session that waits for a
    lock would deadlock with CREATE INDEX CONCURRENTLY.

    Args:
        settings: The database; each database has its own lock.
        wait: Seconds to wait for the lock.
        server_settings: Configuration parameters of the session that holds the lock.

    Raises:
        DatabaseError: another session holds the lock; the text names that session.
    """
    async with connect(settings, LOCK_SESSION, server_settings=server_settings) as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")

        async def take_lock() -> None:
            await _take_lock(connection)

        try:
            await retry(take_lock, catch=_LockHeldError, deadline=wait, pause=_PAUSE)
        except RetryTimeoutError:
            row = (await connection.execute(_HOLDERS, {"key": LOCK_KEY})).first()
            holder = (
                f'pid {row.pid}, "{row.application_name}", user {row.usename}' if row else "it has just ended"
            )
            raise DatabaseError(
                ExitCode.LOCKED,
                f"another session holds the maintenance lock of {settings.where}: {holder}",
                f"Waited {wait:g} s. Let it finish, or end it with pg_terminate_backend.",
            ) from None
        yield connection
        with suppress(DBAPIError):  # the session was lost, and the lock with it
            await connection.rollback()


async def _take_lock(connection: AsyncConnection) -> None:
    state = (await connection.execute(_STATE, {"key": LOCK_KEY})).one()
    if not state.alone and (await connection.execute(_HOLDERS, {"key": LOCK_KEY})).first():
        await connection.rollback()
        raise _LockHeldError
    try:
        if not state.there and state.may_create:
            await connection.exec_driver_sql(_CREATE)
        await connection.commit()
        if state.there or state.may_create:
            await connection.exec_driver_sql(_LOCK)
    except DBAPIError as error:
        await connection.rollback()
        # Another session holds the lock, or has just created the table.
        if caused_by(
            error, asyncpg.LockNotAvailableError, asyncpg.DuplicateTableError, asyncpg.UniqueViolationError
        ):
            raise _LockHeldError from error
        raise


async def _driver(connection: AsyncConnection) -> Any:
    """Return the asyncpg.Connection of a connection."""
    return (await connection.get_raw_connection()).driver_connection
