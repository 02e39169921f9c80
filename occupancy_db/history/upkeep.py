"""Upkeep of the partitions and of the hourly sums, beside writers who must not notice."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.history import partitions
from occupancy_db.maintenance import LOCK_WAIT, SESSION, maintenance_lock
from occupancy_db.months import TABLE, following, month_of, partition_name
from occupancy_db.settings import Settings

# Who waits for a lock makes everybody behind it wait as well: ask briefly, and often.
PATIENT = {**SESSION, "lock_timeout": "50ms"}
PATIENCE = 60.0
"""Seconds until a lock that others keep holding is given up."""

HOURS_AT_ONCE = 500
"""Hours summed up in one transaction: a fraction of a second for a busy home."""

RETIRED = "retired: its readings are being removed"
"""The comment on a partition that retention takes away, so that what was interrupted is finished."""

# Every table that is, or by its name should be, a month.
MONTHS = text("""
    SELECT leaf.relname AS name,
           leaf.relispartition AS attached,
           coalesce(inhdetachpending, false) AS detaching,
           obj_description(leaf.oid, 'pg_class') IS NOT DISTINCT FROM :retired AS retired,
           pg_get_expr(leaf.relpartbound, leaf.oid) AS bounds,
           greatest(leaf.reltuples, pg_stat_get_live_tuples(leaf.oid))::bigint AS rows,
           pg_total_relation_size(leaf.oid) AS bytes,
           EXISTS (SELECT FROM pg_trigger WHERE tgrelid = leaf.oid AND tgname = 'hourly_insert') AS watched
    FROM pg_class AS leaf
    LEFT JOIN pg_inherits ON inhrelid = leaf.oid
    WHERE leaf.relnamespace = 'public'::regnamespace AND leaf.relkind = 'r'
      AND leaf.relname ~ '^sensor_readings_[0-9]{4}_(0[1-9]|1[0-2])$'
    ORDER BY leaf.relname
""")

HOURS = text("""
    SELECT CASE WHEN isfinite(closed_before) THEN closed_before END AS closed_before,
           (SELECT count(DISTINCT hour) FROM hourly.marks) AS marked,
           (SELECT count(*) FROM hourly.sums) AS sums,
           (SELECT count(*) FROM hourly.history) AS history
    FROM hourly.watermark
""")


@dataclass(frozen=True)
class Month:
    """A month's table as the catalog has it.

    Attributes:
        name: The table.
        attached: Whether it is a partition; else it stands by itself.
        detaching: Whether somebody began to detach it concurrently and was interrupted.
        retired: Whether retention was taking it away.
        bounds: The partition's bounds as SQL, None if it stands by itself.
        rows: An estimate.
        bytes: With indexes and TOAST.
        watched: Whether its triggers are there.
    """

    name: str
    attached: bool
    detaching: bool
    retired: bool
    bounds: str | None
    rows: int
    bytes: int
    watched: bool

    @property
    def month(self) -> date:
        """The first day of the month that the name says."""
        return datetime.strptime(self.name[-7:], "%Y_%m").replace(tzinfo=UTC).date()


@dataclass(frozen=True)
class Step:
    """One thing that upkeep does.

    Attributes:
        kind: ``finish`` (what an interruption left), ``complete`` (triggers of a partition made by hand) or
            ``create``.
        table: The partition.
        statements: The SQL, as it runs.
    """

    kind: str
    table: str
    statements: list[str]


async def status(settings: Settings, months_ahead: int) -> dict[str, Any]:
    """The months, what upkeep would do to them, and how far the hours are summed up.

    Args:
        settings: The database.
        months_ahead: How many months beyond this one should be there.

    Returns:
        ``months`` (see Month), ``plan`` (see Step), ``strays`` (tables that stand by themselves though they
        are called like months, and that nobody retired), ``hours``.
    """
    async with connect(settings, "occupancy-db partitions", server_settings=PATIENT) as connection:
        months = await find_months(connection)
        steps = plan(months, datetime.now(UTC), months_ahead)
        hours = (await connection.execute(HOURS)).mappings().one()
    return {
        "months": [asdict(month) for month in months],
        "plan": [asdict(step) for step in steps],
        "strays": strays(months),
        "hours": dict(hours),
    }


async def find_months(connection: AsyncConnection) -> list[Month]:
    """Every month's table, the oldest first."""
    return [Month(**row) for row in (await connection.execute(MONTHS, {"retired": RETIRED})).mappings()]


def strays(months: list[Month]) -> list[str]:
    """The tables that only look like partitions: somebody keeps them, and upkeep leaves them alone."""
    return [month.name for month in months if not month.attached and not month.retired]


def plan(months: list[Month], now: datetime, months_ahead: int) -> list[Step]:
    """What upkeep has to do, in order.

    Args:
        months: As find_months returns them.
        now: The present, with a time zone.
        months_ahead: How many months beyond this one should be there.
    """
    steps = []
    for month in months:
        if month.detaching or month.retired:
            steps.append(Step("finish", month.name, finish(month)))
        elif month.attached and not month.watched:
            steps.append(Step("complete", month.name, [partitions.prepare(month.name)]))
    there = {month.name for month in months}
    for n in range(months_ahead + 1):
        coming = following(month_of(now), n)
        name = partition_name(coming)
        if name not in there:
            steps.append(Step("create", name, create(name, coming)))
    return steps


def finish(month: Month) -> list[str]:
    """The statements that end what was interrupted: a month half detached, or detached and not dropped."""
    statements = []
    if month.detaching:
        statements.append(f"ALTER TABLE {TABLE} DETACH PARTITION {month.name} FINALIZE")
    elif month.attached:  # retired, and killed before the first step
        statements.append(detach(month.name))
    if month.retired:
        statements.append(forget_month(month.name, summed=False))
    return statements


def create(name: str, month: date) -> list[str]:
    """The statements that make a partition, in one transaction."""
    return [
        partitions.create_standalone(name, month),
        partitions.prepare(name),
        partitions.attach(name, month),
        f"ALTER TABLE {name} DROP CONSTRAINT bounds",
    ]


def detach(name: str) -> str:
    """The statement that takes a partition out without holding up anybody; in no transaction."""
    return f"ALTER TABLE {TABLE} DETACH PARTITION {name} CONCURRENTLY"


def forget_month(name: str, *, summed: bool) -> str:
    """The statement that drops a detached month, keeps its sums, and says how many readings it had.

    Args:
        name: The month's table.
        summed: Whether its hours were summed up before it was detached, and not again since; otherwise they
            are counted now.
    """
    return f"SELECT hourly.forget_month('{name}', {summed})"


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
