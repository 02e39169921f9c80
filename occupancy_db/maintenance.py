"""The maintenance lock: migrations, upkeep, retention, imports and backups run one at a time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.driver import LOCK_WAIT as LOCK_WAIT
from occupancy_db.driver import SESSION_SETTINGS as SESSION_SETTINGS
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.settings import Settings

LOCK_KEY = int.from_bytes(b"occupanc")
"""Key of the advisory lock: the ASCII codes of "occupanc"."""

LOCK_SESSION = "occupancy-db maintenance lock"
"""The name of the session that holds the lock."""

_PAUSE = 0.2


class _LockHeldError(Exception):
    """Another session holds the maintenance lock."""


@asynccontextmanager
async def maintenance_lock(
    settings: Settings, wait: float = LOCK_WAIT, server_settings: Mapping[str, str] = SESSION_SETTINGS
) -> AsyncIterator[AsyncConnection]:
    """Hold the maintenance lock; yields the connection that holds it, in autocommit mode.

    A separate session holds the lock, outside of any transaction. The function polls for the lock, because a
    session that waits for it inside a transaction would deadlock with CREATE INDEX CONCURRENTLY.

    Args:
        settings: The database; advisory locks belong to one database.
        wait: Seconds to wait for the lock.
        server_settings: Configuration parameters of the session that holds the lock.

    Raises:
        DatabaseError: another session holds the lock; the text names that session.
    """
    async with connect(
        settings,
        LOCK_SESSION,
        server_settings={**server_settings, "idle_session_timeout": "0"},
        autocommit=True,
    ) as connection:

        async def take_lock() -> None:
            if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
                raise _LockHeldError

        try:
            await retry(take_lock, catch=_LockHeldError, deadline=wait, pause=_PAUSE)
        except RetryTimeoutError:
            holder = await _holder(connection)
            raise DatabaseError(
                ExitCode.LOCKED,
                f"another session holds the maintenance lock of {settings.where}: {holder}",
                f"Waited {wait:g} s. Let it finish, or end it with pg_terminate_backend.",
            ) from None
        yield connection  # closing the session releases the lock


async def _holder(connection: AsyncConnection) -> str:
    row = (
        await connection.execute(
            text("""
                SELECT pid, application_name, usename
                FROM pg_locks JOIN pg_stat_activity USING (pid)
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (classid::bigint << 32 | objid::bigint) = :key
            """),
            {"key": LOCK_KEY},
        )
    ).first()
    return f'pid {row.pid}, "{row.application_name}", user {row.usename}' if row else "it has just ended"
