"""Two writers who insert a row every 5 ms, in a process of their own, and remember how long each row took.

``python -m bench.writers`` writes until its standard input ends, and then prints the milliseconds as JSON.
"""

import asyncio
import gc
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from bench.server import Server
from occupancy_db.settings import Settings
from occupancy_db.tls import ssl_argument

WRITERS = 2
PAUSE = 0.005

INSERT = """
INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity, confidence)
VALUES ($1, 'bedroom', 'bed', $2, 'binary_sensor.fp2_bedroom_bed', 0.95)
"""


class Writers:
    """The process, as something to do other things beside."""

    def __init__(self, server: Server, database: str) -> None:
        """Name the database to write to."""
        self._environment = {
            **os.environ,
            **server.environment(database),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        self.latencies: list[float] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.writers"),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 30,
        )
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the writers did not start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        out, _ = await self._process.communicate(b"")  # which ends its standard input
        if error is None:
            self.latencies = json.loads(out)

    def summary(self) -> dict[str, float]:
        """How many rows there were, and how long they took."""
        ordered = sorted(self.latencies)
        return {
            "writes": len(ordered),
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
            "slowest_ms": round(ordered[-1], 2),
        }


async def write() -> list[float]:
    """Write until the standard input ends."""
    settings = Settings()
    ended = asyncio.Event()
    latencies: list[float] = []

    async def work() -> None:
        assert settings.postgres_password is not None
        connection = await asyncpg.connect(
            host=settings.postgres_host,
            port=settings.postgres_port,
            user=settings.postgres_user,
            password=settings.postgres_password.get_secret_value(),
            database=settings.database,
            ssl=ssl_argument(settings),
        )
        insert = await connection.prepare(INSERT)
        await insert.fetch(datetime.now(UTC), True)
        ready.release()
        state = False
        while not ended.is_set():
            start = time.perf_counter()
            await insert.fetch(datetime.now(UTC), state)
            latencies.append((time.perf_counter() - start) * 1000)
            state = not state
            await asyncio.sleep(PAUSE)
        await connection.close()

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(work()) for _ in range(WRITERS)]
    for _ in tasks:
        await ready.acquire()
    print("ready", flush=True)
    gc.disable()
    await asyncio.to_thread(sys.stdin.read)
    ended.set()
    await asyncio.gather(*tasks)
    return latencies


if __name__ == "__main__":
    print(json.dumps(asyncio.run(write())))
