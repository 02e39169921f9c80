"""Upkeep of the partitions and of the hourly sums, beside writers who must not notice."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.history.inspection import (
    MONTHS,
    PATIENT,
    Month,
    Step,
    detach,
    finish,
    forget_month,
    plan,
    strays,
)
from occupancy_db.history.inspection import RETIRED as RETIRED
from occupancy_db.maintenance import LOCK_WAIT, maintenance_lock
from occupancy_db.months import TABLE
from occupancy_db.settings import Settings

PATIENCE = 60.0
"""Seconds until a lock that others keep holding is given up."""

HOURS_AT_ONCE = 500
"""Hours summed up in one transaction: a fraction of a second for a busy home."""


async def find_months(connection: AsyncConnection) -> list[Month]:
    """The tables of all months, the oldest first."""
    return [Month(**row) for row in (await connection.exec_driver_sql(MONTHS)).mappings()]


async def maintain(settings: Settings, months_ahead: int, lock_wait: float = LOCK_WAIT) -> dict[str, Any]:
    """Finish what was interrupted, create the coming months, and sum up the hours that are over.

    Running it again changes nothing but the hours; interrupted at any point, the next run completes it.

    Args:
        settings: The database; its user must be the owner.
        months_ahead: How many months beyond this one should be there.
        lock_wait: Seconds to wait for other maintenance.

    Returns:
        ``finished``, ``completed`` and ``created`` (tables), ``strays``, ``hours`` (how many were summed up).

    Raises:
        DatabaseError: a lock was not obtained in time; what was done until then stays.
    """
    done: dict[str, list[str]] = {"finish": [], "complete": [], "create": []}
    async with maintenance(settings, lock_wait) as session:
        months = await find_months(session.guard)
        for step in plan(months, datetime.now(UTC), months_ahead):
            await session.run(step)
            done[step.kind].append(step.table)
        hours = await sum_hours(session.guard)
    return {
        "finished": done["finish"],
        "completed": done["complete"],
        "created": done["create"],
        "strays": strays(months),
        "hours": hours,
    }


class Maintenance:
    """The two sessions of who maintains the tables, alone, while everybody reads and writes.

    Attributes:
        guard: Holds the lock of all maintenance; every statement is a transaction of its own.
        worker: For transactions of several statements.
    """

    def __init__(self, guard: AsyncConnection, worker: AsyncConnection) -> None:
        self.guard = guard
        self.worker = worker

    async def run(self, step: Step) -> None:
        """Do one step, as patiently as it takes."""
        if step.kind == "create":
            await self.transaction(*step.statements)
            return
        for statement in step.statements:
            if "CONCURRENTLY" in statement:
                await self.detach(step.table)
            else:
                await patiently(self.guard.execute, text(statement))

    async def transaction(self, *statements: str) -> None:
        """Run statements in one transaction, again and again until no lock is in the way."""

        async def run() -> None:
            async with self.worker.begin():
                for statement in statements:
                    await self.worker.execute(text(statement))

        await patiently(run)

    async def detach(self, name: str) -> None:
        """Take a partition out of the table, without holding up anybody.

        The server marks it first, and then waits for those who still see it. Where that takes too long, the
        mark stays, and what is left to do is to finalise.
        """
        statement = detach(name)

        async def attempt() -> None:
            nonlocal statement
            try:
                await self.guard.execute(text(statement))
            except DBAPIError:  # goes on to who repeats the attempt, which may have to be another one
                (month,) = [month for month in await find_months(self.guard) if month.name == name]
                if month.detaching:
                    (statement, *_) = finish(month)
                raise

        await patiently(attempt)

    async def forget_month(self, name: str) -> int:
        """Drop a month that has just been detached and keep its sums; returns how many readings it had."""
        return int(await patiently(self.guard.scalar, text(forget_month(name, summed=True))))


async def sum_hours(connection: AsyncConnection) -> int:
    """Close the hours that are over, and sum up those that are closed; returns how many.

    An hour is over five minutes after its end, so that readings which come a little late need no mark.

    Args:
        connection: In autocommit, of who holds the lock of all maintenance.

    Raises:
        DatabaseError: a lock was not obtained in time; what is not summed up is recounted on demand.
    """
    await patiently(connection.execute, text("SELECT hourly.close(now() - interval '5 minutes')"))
    hours, refreshed = 0, HOURS_AT_ONCE
    # Until few are left, not until none is: beside a writer of late readings there is always one.
    while refreshed == HOURS_AT_ONCE:
        refreshed = await patiently(
            connection.scalar, text("SELECT hourly.refresh(:hours)"), {"hours": HOURS_AT_ONCE}
        )
        hours += refreshed
    if hours >= HOURS_AT_ONCE:
        # Much has changed, and the planner should know before autovacuum comes by.
        await patiently(connection.execute, text("VACUUM (ANALYZE) hourly.sums, hourly.marks"))
    return hours


@asynccontextmanager
async def maintenance(settings: Settings, lock_wait: float) -> AsyncIterator[Maintenance]:
    """Maintain the tables, one at a time: migrations, upkeep, retention and imports share a lock.

    Args:
        settings: The database; its user must be the owner.
        lock_wait: Seconds to wait for others.

    Raises:
        DatabaseError: somebody else holds the lock; the text says who.
    """
    async with (
        maintenance_lock(settings, lock_wait, server_settings=PATIENT) as guard,
        connect(settings, "occupancy-db maintenance", server_settings=PATIENT) as worker,
    ):
        yield Maintenance(guard, worker)


async def patiently(attempt: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Try until no lock is in the way.

    Args:
        attempt: What to do; it must be possible to do it again.
        arguments: Of it.

    Raises:
        DatabaseError: for PATIENCE seconds somebody was in the way.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await attempt(*arguments)
        except Exception as error:
            if not caused_by(error, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                raise
            if time.monotonic() >= deadline:
                raise DatabaseError(
                    ExitCode.LOCKED,
                    f"for {PATIENCE:g} s other sessions kept locks on {TABLE}",
                    "See pg_stat_activity for transactions that stay open; the next run goes on from here.",
                ) from error
        # Not in step with whatever it was that was in the way.
        await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311
