"""The latency of inserts during upkeep and retention, and the space that retention frees."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any
from unittest.mock import patch

from bench import manual, queries
from bench.server import Server
from bench.writers import Writers
from occupancy_db.history import retention, session, upkeep

MONTHS_KEPT = 6
MONTHS_AHEAD = 12
_QUIET_SECONDS = 5
_FURTHER_MONTHS = 24


async def beside_upkeep(server: Server, database: str) -> dict[str, dict[str, float]]:
    """Measure single-row inserts: alone, while partitions are created, and while all hours are summed up."""
    settings = server.settings(database)

    async def quiet() -> None:
        await asyncio.sleep(_QUIET_SECONDS)

    async def months() -> None:
        await upkeep.maintain(settings, MONTHS_AHEAD + _FURTHER_MONTHS)

    async def hours() -> None:
        await upkeep.maintain(settings, MONTHS_AHEAD)

    found = {"nothing else": await _beside(server, database, quiet)}
    found[f"{_FURTHER_MONTHS} months are made"] = await _beside(server, database, months)
    await server.administer(
        "INSERT INTO hourly.marks SELECT DISTINCT hour FROM hourly.sums", database=database
    )
    found["all hours are summed up again"] = await _beside(server, database, hours)
    return found


async def _beside(server: Server, database: str, work: Callable[[], Awaitable[None]]) -> dict[str, float]:
    async with Writers(server, database) as writers:
        start = time.perf_counter()
        await work()
        seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 3), **writers.summary()}


async def retire_ours(server: Server, database: str) -> dict[str, Any]:
    """Measure ``retention.cleanup`` during inserts.

    Returns:
        ``months_s``, from the first detached month to the last dropped one; ``trim_s``, the rows of the month
        of the cutoff; ``seconds``, the total time, including the connection and the sums of open hours.
    """
    moments: list[float] = []

    def timed(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(step)
        async def run(*arguments: Any, **keywords: Any) -> Any:
            moments.append(time.perf_counter())
            try:
                return await step(*arguments, **keywords)
            finally:
                moments.append(time.perf_counter())

        return run

    before = sum((await queries.size(server, database)).values())
    with (
        patch.object(session.UpkeepSession, "detach", timed(session.UpkeepSession.detach)),
        patch.object(session.UpkeepSession, "forget_month", timed(session.UpkeepSession.forget_month)),
    ):
        async with Writers(server, database) as writers:
            start = time.perf_counter()
            settings = server.settings(database)
            done = await retention.cleanup(settings, {"sensor_readings": MONTHS_KEPT}, dry_run=False)
            end = time.perf_counter()
    after = sum((await queries.size(server, database)).values())
    first, last = (min(moments), max(moments)) if moments else (start, start)
    removed = done["sensor_readings"]
    return {
        "rows": removed.rows,
        "months": len(removed.dropped or []),
        "months_s": round(last - first, 3),
        "trim_s": round(end - last, 3),
        "seconds": round(end - start, 3),
        "bytes_before": before,
        "bytes_after": after,
        **writers.summary(),
    }


async def retire_manual(server: Server, database: str) -> dict[str, Any]:
    """Measure the manual's DELETE during the same inserts, and the VACUUM that it needs afterwards."""
    before = sum((await queries.size(server, database)).values())
    connection = await server.connect(database)
    try:
        async with Writers(server, database) as writers:
            start = time.perf_counter()
            status = await connection.execute(manual.CLEANUP)
            seconds = time.perf_counter() - start
    finally:
        await connection.close()
    after = sum((await queries.size(server, database)).values())
    start = time.perf_counter()
    await server.administer("VACUUM sensor_readings", database=database)
    vacuum = time.perf_counter() - start
    return {
        "vacuum_s": round(vacuum, 3),
        "rows": int(status.rsplit(" ", 1)[1]),
        "seconds": round(seconds, 3),
        "bytes_before": before,
        "bytes_after": after,
        **writers.summary(),
    }
