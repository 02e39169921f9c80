"""Observation of lock waits: the sessions that wait for a revision, and those that it waits for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.blockers import DESCRIPTION
from occupancy_db.errors import task_group

POLL = 0.05
"""Seconds between two queries of pg_locks."""

_WAITS = text(f"""
    SELECT (
        SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float
        FROM pg_locks WHERE NOT granted AND :pid = ANY (pg_blocking_pids(pid))
    ) AS longest_wait, (
        SELECT string_agg({DESCRIPTION}, '; ' ORDER BY pid)
        FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid))
    ) AS blockers
""")  # noqa: S608 - a constant


class LockWatch:
    """The lock waits around the session that applies revisions.

    Attributes:
        slowest_ms: The longest time in ms for which a session was seen to wait for the watched one.
        blockers: The sessions that were last seen to hold a lock that the watched one waited for.
    """

    def __init__(self, guard: AsyncConnection) -> None:
        """Args: guard: a session that is not used otherwise meanwhile."""
        self._guard = guard
        self.slowest_ms = 0.0
        self.blockers: str | None = None

    @asynccontextmanager
    async def watching(self, pid: int) -> AsyncIterator[None]:
        """Watch a session until the block ends; the block is cancelled if the guard's session is lost.

        Args:
            pid: The server process of the session that is watched.
        """
        ended = asyncio.Event()

        async def poll() -> None:
            while not ended.is_set():
                row = (await self._guard.execute(_WAITS, {"pid": pid})).one()
                self.slowest_ms = max(self.slowest_ms, round(row.longest_wait * 1000, 1))
                self.blockers = row.blockers or self.blockers
                with contextlib.suppress(TimeoutError):  # the block has not ended yet
                    await asyncio.wait_for(ended.wait(), POLL)

        async with task_group() as group:
            watcher = group.create_task(poll())
            try:
                yield
            except Exception:
                # Let the watcher end by itself: if the task group cancelled its query, the guard would lose
                # its session, which the recovery needs.
                ended.set()
                await asyncio.wait([watcher])
                raise
            ended.set()
