"""The sessions whose locks another session waits for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError
from occupancy_db.settings import Settings

POLL = 0.01
"""Seconds between two queries of pg_locks: several fit into the shortest lock_timeout of the tools."""

# The owner sees how old a transaction is because it is a member of pg_read_all_stats.
DESCRIPTION = """
    format('pid %s, "%s", user %s', pid, application_name, usename)
    || coalesce(format(', %s, transaction open for %s s', state,
                       extract(epoch FROM clock_timestamp() - xact_start)::int), '')
"""
"""SQL that describes a row of pg_stat_activity."""

_BLOCKERS = text(f"""
    SELECT pid, usename AS user, application_name AS application, coalesce(state, '') AS state,
           extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds, {DESCRIPTION} AS description
    FROM pg_stat_activity
    WHERE pid = ANY (ARRAY(
        SELECT unnest(pg_blocking_pids(waiting.pid)) FROM pg_stat_activity AS waiting
        WHERE waiting.datname = current_database() AND waiting.usename = current_user
          AND waiting.application_name = ANY (:applications) AND waiting.wait_event_type = 'Lock'
    ))
    ORDER BY pid
""")  # noqa: S608 - a constant


@dataclass(frozen=True)
class Blocker:
    """A session that holds a lock which another session waits for.

    Attributes:
        pid: Its server process.
        user: Its user.
        application: The name that its client gave it.
        state: Its state as in pg_stat_activity; empty if this user may not see it.
        seconds: Age of its transaction; None if this user may not see it.
        description: All of this as text.
    """

    pid: int
    user: str
    application: str
    state: str
    seconds: int | None
    description: str

    @property
    def idle(self) -> bool:
        """Whether the session does nothing in its transaction."""
        return self.state.startswith("idle in transaction")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


class BlockerWatch:
    """Looks for the sessions that block others, over a connection that is opened at the first use.

    Attributes:
        current: The blockers that were seen last.
        idle: By process, the idle transactions among all blockers that were seen.
    """

    def __init__(self, settings: Settings, applications: list[str], stack: AsyncExitStack) -> None:
        """Connect later.

        Args:
            settings: The database.
            applications: The names of the sessions that wait.
            stack: Closes the connection.
        """
        self._settings = settings
        self._applications = applications
        self._stack = stack
        self._connection: AsyncConnection | None = None
        self.current: list[Blocker] = []
        self.idle: dict[int, Blocker] = {}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look until the block ends. Without a connection nothing is seen, and the work goes on."""
        ended = asyncio.Event()
        watcher = asyncio.create_task(self._poll(ended))
        try:
            yield
        finally:
            ended.set()
            await asyncio.wait([watcher])

    async def _poll(self, ended: asyncio.Event) -> None:
        # The watch only adds to an error or a report: its own failure must not end maintenance that works.
        with contextlib.suppress(DatabaseError, SQLAlchemyError, OSError):
            if self._connection is None:
                self._connection = await self._stack.enter_async_context(
                    connect(self._settings, "occupancy-db lock watch", autocommit=True)
                )
            while not ended.is_set():
                rows = await self._connection.execute(_BLOCKERS, {"applications": self._applications})
                if found := [Blocker(**row) for row in rows.mappings()]:
                    self.current = found
                    self.idle |= {blocker.pid: blocker for blocker in found if blocker.idle}
                with contextlib.suppress(TimeoutError):  # the time to look again
                    await asyncio.wait_for(ended.wait(), POLL)
