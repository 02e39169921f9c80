"""The checks of the clock: what it is compared with, and the operator's confirmation.

The view ``hourly.clock_state`` compares the server's clock with the last check and with the readings. A job
that removes something asks it first, and records its check.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from occupancy_db.driver import SESSION_SETTINGS, connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.months import TOLERANCE
from occupancy_db.settings import Settings

STATE = "SELECT * FROM hourly.clock_state"
"""The query of the state, for ``clock_state``."""


@dataclass(frozen=True)
class ClockState:
    """The server's clock, and what it was compared with.

    Attributes:
        now: What the clock says.
        checked_at: What it said at the last check; None if it was never checked.
        job: Who made the last check.
        confirmed_at: What it said when it was last confirmed; None if it never was.
        confirmed_by: Who confirmed it.
        reached: The end of the readings that follow the last check without a silence longer than MARGIN.
        contradiction: What contradicts the clock; None if nothing does.
    """

    now: datetime
    checked_at: datetime | None
    job: str | None
    confirmed_at: datetime | None
    confirmed_by: str | None
    reached: datetime | None
    contradiction: str | None

    def error(self, kept: str = "Nothing was removed.") -> DatabaseError:
        """Return the refusal of a job.

        Args:
            kept: What the job has not done, as a sentence.
        """
        return DatabaseError(
            ExitCode.CLOCK,
            self.contradiction or "the clock is right",
            f"{kept} If the clock is right now, run 'occupancy-db clock confirm'; otherwise correct it.",
        )


def clock_state(row: Any) -> ClockState:
    """Return the state that the view reports, compared with this machine's clock.

    Args:
        row: The row of ``hourly.clock_state`` as a mapping, which has just been read.
    """
    state = dict(row)
    here = datetime.now(UTC)
    if state["contradiction"] is None and abs(here - state["now"]) > TOLERANCE:
        state["contradiction"] = (
            f"the clock of this machine says {here:%Y-%m-%d %H:%M} UTC, "
            f"and that of the server {state['now'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        )
    return ClockState(**state)


async def status(settings: Settings) -> ClockState:
    """Return the state of the clock, and record nothing.

    Args:
        settings: The database, and a user who may read all tables.

    Raises:
        DatabaseError: no connection.
    """
    async with connect_driver(settings, "occupancy-db clock", SESSION_SETTINGS) as connection:
        return clock_state(await connection.fetchrow(STATE))


async def confirm(settings: Settings, name: str) -> ClockState:
    """Record that the clock is right, whatever contradicts it.

    Args:
        settings: The database; its user must be the owner.
        name: Who confirms it.

    Returns:
        The state before the confirmation.

    Raises:
        DatabaseError: no connection, or the clock is certainly wrong: it was never set, or this machine and
            the server disagree.
    """
    async with connect_driver(settings, "occupancy-db clock", SESSION_SETTINGS) as connection:
        before = clock_state(await connection.fetchrow(STATE))
        async with connection.transaction():
            await connection.execute("SELECT hourly.record_clock('confirm', $1)", name)
            after = clock_state(await connection.fetchrow(STATE))
            if after.contradiction:
                raise DatabaseError(
                    ExitCode.CLOCK, after.contradiction, "Correct the clock first. Nothing was confirmed."
                )
    return before


async def known_state(settings: Settings) -> ClockState | None:
    """Return the state of the clock, or None if this database cannot tell.

    Args:
        settings: The database, and a user who may read all tables.

    Returns:
        None if there is no connection, or if the schema is older than the checks.
    """
    try:
        return await status(settings)
    except (DatabaseError, asyncpg.UndefinedTableError):
        return None


async def carry(source: Settings, target: Settings) -> None:
    """Copy the checks of one database to another that replaces it, because the clock is the host's.

    Nothing is copied if one of them is missing, or if its schema is older than the checks.

    Args:
        source: The database that was live.
        target: The database that is live next; its user must be the owner.
    """
    rows = "SELECT number, checked_at, job, confirmed_by FROM hourly.clock"
    try:
        async with (
            connect_driver(source, "occupancy-db clock", SESSION_SETTINGS) as old,
            connect_driver(target, "occupancy-db clock", SESSION_SETTINGS) as new,
        ):
            checks = [tuple(row) for row in await old.fetch(rows)]
            async with new.transaction():
                await new.execute("DELETE FROM hourly.clock" if checks else "SELECT")
                await new.executemany("INSERT INTO hourly.clock VALUES ($1, $2, $3, $4)", checks)
    except (DatabaseError, asyncpg.UndefinedTableError):
        return
