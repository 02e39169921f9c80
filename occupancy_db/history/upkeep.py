"""Upkeep of the partitions and of the hourly sums."""

from dataclasses import dataclass
from datetime import UTC, datetime

from occupancy_db.history.inspection import plan_steps, strays
from occupancy_db.history.session import find_months, sum_hours, upkeep_session
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.settings import Settings


@dataclass(frozen=True)
class UpkeepResult:
    """What upkeep has done.

    Attributes:
        finished: Partitions whose interrupted removal was finished.
        completed: Partitions that were given their triggers.
        created: Partitions that were created.
        strays: Tables that are named like a month, but are not partitions.
        hours: Number of hours that were summed up.
    """

    finished: list[str]
    completed: list[str]
    created: list[str]
    strays: list[str]
    hours: int


async def maintain(settings: Settings, months_ahead: int, lock_wait: float = LOCK_WAIT) -> UpkeepResult:
    """Finish interrupted removals, create partitions for the coming months, and sum up the past hours.

    A second run changes nothing but the hours. If a run is interrupted, the next one completes it.

    Args:
        settings: The database; its user must be the owner.
        months_ahead: Number of months after the current one whose partitions should exist.
        lock_wait: Seconds to wait for the maintenance lock.

    Raises:
        DatabaseError: a lock was not obtained in time; what was done until then stays.
    """
    done: dict[str, list[str]] = {"finish": [], "complete": [], "create": []}
    async with upkeep_session(settings, lock_wait) as session:
        months = await find_months(session.guard)
        for step in plan_steps(months, datetime.now(UTC), months_ahead):
            await session.run(step)
            done[step.kind].append(step.table)
        hours = await sum_hours(session.guard)
    return UpkeepResult(done["finish"], done["complete"], done["create"], strays(months), hours)
