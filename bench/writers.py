"""Two writers in a separate process, which measure the time of each row.

``python -m bench.writers RATE`` inserts rows until its standard input ends. Then it prints as JSON the time
at which each row was due, the milliseconds until it was committed, and the number of failures. RATE rows are
due per second, however long earlier rows take: the time to wait for them counts. With a rate of 0, the
writers pause for 5 ms between two rows.
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

from bench.server import OWNER, Server
from occupancy_db.settings import Settings
from occupancy_db.tls import ssl_argument

WRITERS = 2
PAUSE = 0.005

INSERT = """
INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity, confidence)
VALUES ($1, 'bedroom', 'bed', $2, 'binary_sensor.fp2_bedroom_bed', 0.95)
"""


class Writers:
    """The process with the writers; it runs until the block ends."""

    def __init__(self, server: Server, database: str, user: str = OWNER, rate: int = 0) -> None:
        """Store the database and the rate in rows per second; 0 is the highest rate that the pauses allow."""
        self._environment = {
            **os.environ,
            **server.environment(database, user),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        self._rate = rate
        self.writes: list[tuple[float, float]] = []
        self.failed = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.writers", str(self._rate)),
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
        out, _ = await self._process.communicate(b"")  # this closes its standard input
        if error is None:
            self.writes, self.failed = json.loads(out)

    def summary(self) -> dict[str, float]:
        """Return the number of rows and the distribution of their times."""
        ordered = sorted(ms for _, ms in self.writes)
        return {
            "writes": len(ordered),
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
            "slowest_ms": round(ordered[-1], 2),
        }


async def write(rate: int) -> tuple[list[tuple[float, float]], int]:
    """Write until the standard input ends."""
    settings = Settings()
    ended = asyncio.Event()
    writes: list[tuple[float, float]] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
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
        ready.release()
        state = False
        due = time.perf_counter()
        while not ended.is_set():
            try:
                await insert.fetch(datetime.now(UTC), state)
                writes.append((due, (time.perf_counter() - due) * 1000))
            except asyncpg.PostgresError:
                failed += 1
            state = not state
            if rate:
                due += WRITERS / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            else:
                await asyncio.sleep(PAUSE)
                due = time.perf_counter()
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
    return writes, failed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(write(int(sys.argv[1])))))
