"""The sessions that maintain the tables without blocking clients."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.blockers import BlockerWatch
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.clock import STATE, ClockState, clock_state
from occupancy_db.history.inspection import (
    BRIEF_LOCK_SETTINGS,
    MONTHS,
    Month,
    Step,
    detach_statement,
    finish_statements,
    forget_month_statement,
)
from occupancy_db.maintenance import WORK_SESSION, maintenance_lock
from occupancy_db.months import TABLE
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.settings import Settings

TABLE_LOCK_WAIT = 60.0
"""Seconds to wait for locks that other sessions hold on the table."""
_PAUSE = (0.02, 0.2)

HOURS_AT_ONCE = 500
"""Number of hours that are summed up in one transaction, which takes a fraction of a second."""


HOURS_COMPUTED_AT_ONCE = 100
"""The same of the occupied time, for which a day more is read."""

HOURS_COMPUTED_IN_ALL = 10_000
"""The hours of occupied time that one upkeep computes, which is more than a year."""

_COMPUTES = text("SELECT to_regproc('hourly.refresh_occupied') IS NOT NULL")  # since revision 014
_COMPUTE = text("SELECT hourly.refresh_occupied(:hours)")

_RECORD = text("SELECT hourly.record_clock(:job)")
_CUTOFF = text("SELECT retention_cutoff(:months)")
_CLOSE = text("SELECT hourly.close(coalesce(CAST(:now AS timestamptz), now()) - interval '5 minutes')")


class LockRetry:
    """Calls functions again while other sessions hold locks, and records these sessions.

    Attributes:
        watch: The sessions that were seen to hold the locks.
    """

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        """Connect later, if another session holds a lock.

        Args:
            settings: The database.
            stack: Closes what is opened.
        """
        self.watch = BlockerWatch(settings, [WORK_SESSION], stack)

    async def __call__(self, attempt: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call a function, and retry while other sessions hold locks.

        Args:
            attempt: The function; it must be possible to call it again after a failure.
            arguments: Its arguments.

        Returns:
            What the function returned.

        Raises:
            DatabaseError: a lock was not obtained in TABLE_LOCK_WAIT seconds; the text names who holds it.
        """
        attempts = 0
        self.watch.current = []

        async def observed() -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 1:  # usually the only one
                return await attempt(*arguments)
            async with self.watch.watching():
                return await attempt(*arguments)

        try:
            return await retry(
                observed,
                catch=(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError),
                deadline=TABLE_LOCK_WAIT,
                pause=_PAUSE,
            )
        except RetryTimeoutError as timeout:
            blockers = self.watch.current
            who = ": " + "; ".join(blocker.description for blocker in blockers) if blockers else ""
            raise DatabaseError(
                ExitCode.LOCKED,
                f"for {TABLE_LOCK_WAIT:g} s other sessions kept locks on {TABLE}{who}",
                "Let them end, or end them with pg_terminate_backend(pid); the next run goes on from here.",
                {"blockers": [blocker.as_dict() for blocker in blockers]},
            ) from timeout


class UpkeepSession:
    """The two sessions that maintain the tables while clients read and write.

    Attributes:
        guard: Works under the maintenance lock; in autocommit mode.
        worker: For transactions of several statements.
        retry: Calls a function again while other sessions hold locks.
    """

    def __init__(self, guard: AsyncConnection, worker: AsyncConnection, retry: LockRetry) -> None:
        self.guard = guard
        self.worker = worker
        self.retry = retry

    def waited_for(self) -> list[str]:
        """Return the idle transactions that held locks since the last call."""
        seen = [blocker.description for blocker in self.retry.watch.idle.values()]
        self.retry.watch.idle.clear()
        return seen

    async def run(self, step: Step) -> None:
        """Run one step, and retry while other sessions hold locks.

        Raises:
            DatabaseError: a lock was not obtained in time.
        """
        if step.kind == "create":
            await self.transaction(*step.statements)
            return
        for statement in step.statements:
            if "CONCURRENTLY" in statement:
                await self.detach(step.table)
            else:
                await self.retry(self.guard.execute, text(statement))

    async def transaction(self, *statements: str) -> None:
        """Run statements in one transaction, and retry while other sessions hold locks.

        Raises:
            DatabaseError: a lock was not obtained in time.
        """

        async def run() -> None:
            async with self.worker.begin():
                for statement in statements:
                    await self.worker.execute(text(statement))

        await self.retry(run)

    async def detach(self, name: str) -> None:
        """Detach a partition without blocking clients.

        DETACH PARTITION CONCURRENTLY marks the partition first, and then waits for the transactions that
        still see it. If that takes too long, the mark stays, and DETACH PARTITION FINALIZE has to finish it.

        Raises:
            DatabaseError: a lock was not obtained in time.
        """
        statement = detach_statement(name)

        async def attempt() -> None:
            nonlocal statement
            try:
                await self.guard.execute(text(statement))
            except DBAPIError:  # the next attempt may need another statement
                (month,) = [month for month in await find_months(self.guard) if month.name == name]
                if month.detaching:
                    (statement, *_) = finish_statements(month)
                raise

        await self.retry(attempt)

    async def forget_month(self, name: str) -> int:
        """Drop a month that has just been detached, keep its sums, and return the number of its readings.

        Raises:
            DatabaseError: a lock was not obtained in time.
        """
        return int(await self.retry(self.guard.scalar, text(forget_month_statement(name, summed=True))))


async def find_months(connection: AsyncConnection) -> list[Month]:
    """Return the tables of all months, the oldest first."""
    return [Month(**row) for row in (await connection.exec_driver_sql(MONTHS)).mappings()]


async def sum_hours(connection: AsyncConnection, retry: LockRetry, now: datetime | None = None) -> int:
    """Close the past hours, sum up the closed ones, and return how many were summed up.

    An hour is closed five minutes after its end, so that readings which arrive a little late need no mark.

    Args:
        connection: A connection in autocommit mode, under the maintenance lock.
        retry: Calls a function again while other sessions hold locks.
        now: The present; by default as the server's clock says.

    Raises:
        DatabaseError: a lock was not obtained in time; queries count the hours that are not summed up.
    """
    await retry(connection.execute, _CLOSE, {"now": now})
    return await sum_marked_hours(connection, retry)


async def sum_marked_hours(connection: AsyncConnection, retry: LockRetry) -> int:
    """Sum up the closed hours whose readings have changed, and return how many were summed up.

    Args:
        connection: A connection in autocommit mode, under the maintenance lock.
        retry: Calls a function again while other sessions hold locks.

    Raises:
        DatabaseError: a lock was not obtained in time; queries count the hours that are not summed up.
    """
    hours, refreshed = 0, HOURS_AT_ONCE
    # Until few are left, and not until none is left: a client that writes late readings always marks another.
    while refreshed == HOURS_AT_ONCE:
        refreshed = await retry(
            connection.scalar, text("SELECT hourly.refresh(:hours)"), {"hours": HOURS_AT_ONCE}
        )
        hours += refreshed
    if hours >= HOURS_AT_ONCE:
        # The planner needs new statistics before autovacuum runs.
        await retry(connection.execute, text("VACUUM (ANALYZE) hourly.sums, hourly.marks"))
    if await connection.scalar(_COMPUTES):
        computed = 0
        while done := await retry(connection.scalar, _COMPUTE, {"hours": HOURS_COMPUTED_AT_ONCE}):
            computed += done
            # A client that writes readings of all times would be followed for ever: the next upkeep goes on.
            if done < HOURS_COMPUTED_AT_ONCE or computed >= HOURS_COMPUTED_IN_ALL:
                break
        if computed >= HOURS_AT_ONCE:
            await retry(connection.execute, text("VACUUM (ANALYZE) hourly.occupied, hourly.occupied_marks"))
    return hours


@asynccontextmanager
async def upkeep_session(settings: Settings, lock_wait: float) -> AsyncIterator[UpkeepSession]:
    """Open the sessions that maintain the tables, and hold the maintenance lock.

    Args:
        settings: The database; its user must be the owner.
        lock_wait: Seconds to wait for the maintenance lock.

    Raises:
        DatabaseError: another session holds the lock; the text names that session.
    """
    async with (
        maintenance_lock(settings, lock_wait, server_settings=BRIEF_LOCK_SETTINGS) as guard,
        connect(settings, WORK_SESSION, server_settings=BRIEF_LOCK_SETTINGS) as worker,
        AsyncExitStack() as stack,
    ):
        yield UpkeepSession(guard, worker, LockRetry(settings, stack))


async def check_clock(
    connection: AsyncConnection, job: str, keep: Collection[int] = ()
) -> tuple[ClockState, dict[int, datetime]]:
    """Compare the clock, and record the check if nothing contradicts it.

    All of it is one transaction, and thus of one moment: a clock that jumps afterwards has no effect.

    Args:
        connection: A connection without a transaction; its user is the owner.
        job: Who makes the check.
        keep: Numbers of months that are kept.

    Returns:
        The state before this check, and by number of months the time before which rows are removed.
    """
    async with connection.begin():
        state = clock_state((await connection.exec_driver_sql(STATE)).mappings().one())
        if state.contradiction is None:
            await connection.execute(_RECORD, {"job": job})
        cutoffs = {months: await connection.scalar(_CUTOFF, {"months": months}) for months in keep}
    return state, cutoffs
