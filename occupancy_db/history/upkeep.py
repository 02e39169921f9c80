"""Upkeep of the partitions and of the hourly sums."""

from dataclasses import dataclass

from sqlalchemy import text

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.inspection import forgotten_statement, plan_steps, strays
from occupancy_db.history.session import check_clock, find_months, sum_hours, upkeep_session
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.settings import Settings

_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")


@dataclass(frozen=True)
class UpkeepResult:
    """What upkeep has done.

    Attributes:
        finished: Partitions whose interrupted removal was finished.
        completed: Partitions that were given their triggers.
        created: Partitions that were created.
        dropped: Empty partitions of a distant future that were dropped.
        strays: Tables that are named like a month, but are not partitions.
        hours: Number of hours that were summed up.
        waited_for: The idle transactions that held locks for a while.
    """

    finished: list[str]
    completed: list[str]
    created: list[str]
    dropped: list[str]
    strays: list[str]
    hours: int
    waited_for: list[str]


async def maintain(
    settings: Settings, months_ahead: int, lock_wait: float = LOCK_WAIT, *, months_back: int = 0
) -> UpkeepResult:
    """Finish interrupted removals, create the partitions that are missing, and sum up the past hours.

    A second run changes nothing but the hours. If a run is interrupted, the next one completes it. If another
    session blocks the partitions, the hours are summed up nevertheless. If the clock contradicts what is
    recorded, no removal is finished, and the partitions of the present and the next month are created only,
    so that clients can write.

    Args:
        settings: The database; its user must be the owner.
        months_ahead: Number of months after the current one whose partitions should exist.
        lock_wait: Seconds to wait for the maintenance lock.
        months_back: Number of months before the current one whose partitions should exist, unless retention
            has removed their readings.

    Raises:
        DatabaseError: a lock was not obtained in time; the text names who holds it. Or the clock contradicts
            what is recorded. What was done until then stays.
    """
    done: dict[str, list[str]] = {"finish": [], "complete": [], "create": [], "drop": []}
    blocked = None
    async with upkeep_session(settings, lock_wait) as session:
        clock, _ = await session.retry(check_clock, session.worker, "maintain")
        if clock.contradiction:
            months_ahead, months_back = 1, 0
        months = await find_months(session.guard)
        forgotten = (
            await session.guard.exec_driver_sql(forgotten_statement(clock.now, months_back))
        ).scalars()
        try:
            for step in plan_steps(months, clock.now, months_ahead, months_back, set(forgotten)):
                if clock.contradiction and step.kind in ("finish", "drop"):
                    continue
                await session.run(step)
                if step.kind == "drop" and await session.guard.scalar(_EXISTS, {"name": step.table}):
                    continue  # the estimate was wrong: it has rows
                done[step.kind].append(step.table)
        except DatabaseError as error:
            if error.code is not ExitCode.LOCKED:
                raise
            blocked = error
        hours = await sum_hours(session.guard, session.retry, clock.now)
        if blocked:
            raise blocked
    if clock.contradiction:
        raise clock.error("Months of the present exist, and nothing was removed.")
    return UpkeepResult(
        done["finish"],
        done["complete"],
        done["create"],
        done["drop"],
        strays(months),
        hours,
        session.waited_for(),
    )
