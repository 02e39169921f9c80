"""The maintenance lock: migrations, upkeep, retention, imports and backups hold it, one at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.driver import LOCK_WAIT as LOCK_WAIT
from occupancy_db.driver import SESSION as SESSION
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

# "occupanc" in ASCII: an advisory lock is a number that all who use it agree on.
LOCK_KEY = int.from_bytes(b"occupanc")
_POLL = 0.2


@asynccontextmanager
async def maintenance_lock(
    settings: Settings, wait: float = LOCK_WAIT, server_settings: Mapping[str, str] = SESSION
) -> AsyncIterator[AsyncConnection]:
    """Hold the lock of all who change the schema; yields the connection that holds it, in autocommit.

    The lock belongs to a session of its own, outside any transaction, and is polled for: a session that
    blocks on it inside a transaction would deadlock with an index being built concurrently.

    Args:
        settings: The database; advisory locks are per database.
        wait: Seconds to try.
        server_settings: Of the session that is yielded.

    Raises:
        DatabaseError: another session holds it; the text names that session.
    """
    async with connect(
        settings,
        "occupancy-db migration lock",
        server_settings={**server_settings, "idle_session_timeout": "0"},
        autocommit=True,
    ) as connection:
        deadline = time.monotonic() + wait
        while not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
            if time.monotonic() >= deadline:
                holder = await _holder(connection)
                raise DatabaseError(
                    ExitCode.LOCKED,
                    f"another session holds the migration lock of {settings.where}: {holder}",
                    f"Waited {wait:g} s. Let it finish, or end it with pg_terminate_backend.",
                )
            await asyncio.sleep(_POLL)
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
