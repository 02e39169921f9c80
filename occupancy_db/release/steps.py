"""Applying or reverting one revision beside clients, with retries until it gets its locks."""

from collections.abc import Callable
from functools import partial

import asyncpg
from alembic import command
from alembic.script import Script
from sqlalchemy import text

from occupancy_db import maintenance
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.release.watch import LockWatch
from occupancy_db.retry import Deadline, Failure, RetryTimeoutError, retry
from occupancy_db.schema import runner
from occupancy_db.settings import Settings

BRIEF_LOCK_SETTINGS = {**maintenance.SESSION_SETTINGS, "lock_timeout": "100ms"}
"""Settings of a session that waits for locks only briefly.

A session that waits for a strong lock blocks all later sessions, so it gives up soon and tries again.
"""

PAUSE = (0.1, 0.5)
"""Seconds between two attempts to get locks."""

_LONG_ATTEMPTS = 10
"""Number of attempts up to which work that took longer than the wait restarts the wait."""


async def apply(
    settings: Settings, script: Script, wait: float, watch: LockWatch, *, unverified: bool = False
) -> int:
    """Apply one revision.

    Args:
        settings: The database, as its owner.
        script: The revision.
        wait: Seconds to wait for the revision's locks.
        watch: Records the lock waits.
        unverified: Whether to record in the database that its schema has not been verified yet.

    Returns:
        The number of attempts.

    Raises:
        DatabaseError: the revision did not get its locks.
        sqlalchemy.exc.DBAPIError: the revision failed, and its transaction was rolled back.
    """
    return await _run(settings, script, command.upgrade, script.revision, wait, watch, unverified=unverified)


async def revert(settings: Settings, script: Script, wait: float, watch: LockWatch) -> int:
    """Revert one revision; arguments, result and errors as for :func:`apply`."""
    return await _run(settings, script, command.downgrade, script.down_revision or "base", wait, watch)


async def _run(
    settings: Settings,
    script: Script,
    run: Callable[..., None],
    target: object,
    wait: float,
    watch: LockWatch,
    *,
    unverified: bool = False,
) -> int:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        # Each attempt has its own session, because a revision may change settings of its session.
        async with connect(
            settings, "occupancy-db migrations", server_settings=BRIEF_LOCK_SETTINGS
        ) as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await connection.rollback()  # Alembic would leave an open transaction to its caller
            async with watch.watching(pid):
                await runner.with_alembic(connection, partial(run, revision=target), unverified=unverified)

    def worked_long(failure: Failure) -> bool:
        """Whether a backfill, for instance, has updated more rows in this attempt."""
        return failure.seconds > wait and failure.attempt < _LONG_ATTEMPTS

    try:
        await retry(
            attempt,
            catch=(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError),
            # The deadline starts with the first failure, because the work before a lock may take an hour.
            deadline=Deadline(wait, started=False),
            pause=PAUSE,
            restart=worked_long,
        )
    except RetryTimeoutError as timeout:
        raise DatabaseError(
            ExitCode.LOCKED,
            f"{script.revision} did not get its locks in {wait:g} s and {attempts} attempts; "
            f"blocked by {watch.blockers or 'several sessions'}",
            "Let it end, or end it with pg_terminate_backend.",
        ) from timeout
    return attempts
