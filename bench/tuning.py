"""Measure the product's settings beside PostgreSQL's defaults and pgtune's, and the memory in the worst case.

Writes ``bench/results/tuning.json`` with everything and ``figures``, and a report.
"""

import argparse
import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench import home, loads, queries, tuning_report
from bench.contenders import AT_ONCE, BURSTS, MEMORY, SCALE, SQLALCHEMY, contenders
from bench.place import machine, step, workplace
from bench.server import Server
from occupancy_db.connection import dispose_engine, get_async_session
from occupancy_db.history.upkeep import maintain
from occupancy_db.pool import Pool
from occupancy_db.pool import pool as pool_size
from occupancy_db.readings import Reading, ingest
from occupancy_db.server import tuning
from occupancy_db.settings import Environment

LIMITS = {"cpus": "2", "memory": f"{MEMORY}m", "shm-size": "256m"}
SHORT = (512, 1024, 2048)
"""Containers in which every connection sorts at once, in MB."""

MONTHS_AHEAD = 3

Details = dict[str, Any]


async def probe(server: Server) -> tuning.WalCompression:
    """Return the best WAL compression method of a server's build."""
    connection = await server.connect("postgres", "postgres")
    values = await connection.fetchval("SELECT enumvals FROM pg_settings WHERE name = 'wal_compression'")
    await connection.close()
    return next(codec for codec in tuning.WalCompression if codec.value in values)


async def load(server: Server, files: list[Path], end: datetime) -> None:
    """Load the history of a home, and pgbench's tables."""
    await server.create_owner()
    await server.create_database("ours")
    loads.migrate(server, "ours")
    loads.run_import(server, "ours", files)
    await queries.add_predictions(server, "ours", end)
    await maintain(server.settings("ours"), MONTHS_AHEAD)
    await server.create_database("pgbench")
    server.pgbench("pgbench", "--initialize", f"--scale={SCALE}", "--quiet")
    await server.settle("ours", "pgbench")


async def product(server: Server, readings: list[Reading], pool: Pool) -> float:
    """Measure bursts of one reading per zone, each followed by a query; returns units per second.

    The hour of the readings is open, as for new readings. They are removed afterwards, so that every round has
    the same history.

    Args:
        server: The server.
        readings: The readings, AT_ONCE for each burst.
        pool: The pool of the application.
    """
    os.environ.update(server.environment("ours"))
    os.environ.update(POSTGRES_POOL_SIZE=str(pool.size), POSTGRES_MAX_OVERFLOW=str(pool.overflow))
    questions = [text(query) for query in queries.QUERIES.values()]

    async def unit(number: int) -> None:
        await ingest([replace(readings[number], timestamp=datetime.now(UTC))])
        async with get_async_session() as session:
            await session.execute(questions[number % len(questions)])

    begin = datetime.now(UTC)
    start = time.perf_counter()
    for first in range(0, len(readings), AT_ONCE):
        await asyncio.gather(*map(unit, range(first, first + AT_ONCE)))
    seconds = time.perf_counter() - start
    await dispose_engine()
    connection = await server.connect("ours")
    await connection.execute("DELETE FROM sensor_readings WHERE timestamp >= $1", begin)
    await connection.close()
    return len(readings) / seconds


async def pgbench(server: Server, seconds: int, *arguments: str) -> float:
    """Run pgbench, and return transactions per second."""
    said = await asyncio.to_thread(
        server.pgbench, "pgbench", "--no-vacuum", "--client=4", "--jobs=2", f"--time={seconds}", *arguments
    )
    found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench said: {said}")
    return float(found[1])


async def compare(
    servers: dict[str, Server], rounds: int, bursts: int, seconds: int, end: datetime
) -> Details:
    """Measure all workloads with all settings, in turns; each round begins with another server."""
    readings = list(home.readings(home.PIECE, end))[: bursts * AT_ONCE]
    pool = pool_size(Environment.PRODUCTION, cores=2)
    workloads: dict[str, Callable[[str], Awaitable[float]]] = {
        "product": lambda name: product(servers[name], readings, pool if name == "ours" else SQLALCHEMY),
        "product_same_pool": lambda name: product(servers[name], readings, pool),
        "tpcb": lambda name: pgbench(servers[name], seconds),
        "readonly": lambda name: pgbench(servers[name], seconds // 2, "--select-only"),
    }
    rates: dict[str, dict[str, list[float]]] = {
        workload: {name: [] for name in servers} for workload in workloads
    }
    names = list(servers)
    for number in range(-1, rounds):  # the first round is a warm-up
        for workload, measure in workloads.items():
            for name in names[number % 3 :] + names[: number % 3]:
                rate = await measure(name)
                await servers[name].settle("ours")
                if number >= 0:
                    rates[workload][name].append(round(rate, 2))
    return rates


async def crowd(server: Server, plan: tuning.Plan) -> Details:
    """Run the product's queries, and then sorts, in all connections that the server allows at the same time.

    Meanwhile an index is built with all of maintenance_work_mem.
    """
    (most,) = [int(str(setting.value)) for setting in plan.settings if setting.name == "max_connections"]
    sessions = [await server.connect("ours") for _ in range(most - tuning.RESERVED_CONNECTIONS)]
    sessions += [await server.connect("ours", "postgres") for _ in range(tuning.RESERVED_CONNECTIONS)]
    peak, ended = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, await asyncio.to_thread(_memory, server))
            await asyncio.sleep(0.2)

    watcher = asyncio.create_task(watch())
    try:
        for query in queries.QUERIES.values():
            await asyncio.gather(*(session.execute(query) for session in sessions))
        await asyncio.gather(
            sessions[0].execute(
                "CREATE TEMPORARY TABLE t AS SELECT md5(g::text) AS x FROM generate_series(1, 3000000) g; CREATE INDEX ON t (x)"
            ),
            *(session.execute(SORT) for session in sessions[1:]),
        )
    finally:
        ended.set()
        await watcher
        for session in sessions:
            await session.close()
    return {"connections": most, "peak_mb": peak, "oom_kills": _kills(server), "budget": str(plan.budget)}


SORT = """
SELECT count(*) FROM (
    SELECT id FROM sensor_readings WHERE timestamp > now() - interval '30 days' ORDER BY md5(id::text) OFFSET 1
) AS sorted
"""

# Version 1 of control groups, then 2
_STAT = "cat /sys/fs/cgroup/memory/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory.stat"
_EVENTS = "cat /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null || cat /sys/fs/cgroup/memory.events"


def _memory(server: Server) -> int:
    """Return the memory that the kernel cannot reclaim, in MB: private and shared memory of the processes."""
    said = dict(line.split() for line in server.execute("sh", "-c", _STAT).splitlines())
    own = said.get("total_rss", said.get("anon"))
    shared = said.get("shmem", said.get("total_shmem", 0))
    return (int(own or 0) + int(shared)) >> 20


def _kills(server: Server) -> int:
    said = dict(line.split() for line in server.execute("sh", "-c", _EVENTS).splitlines())
    return int(said["oom_kill"])


async def measure(work: Path, rows: int, rounds: int, bursts: int, seconds: int) -> Details:
    """Run all measurements, one after the other, and return the details."""
    end = datetime.now(UTC).replace(microsecond=0)
    with step(f"{rows:,} rows as CSV"):
        file = work / "readings.csv"
        home.write(file, rows, 0, end)
        small = work / "small.csv"
        home.write(small, min(rows, 1_000_000), 0, end)
    with Server(work, LIMITS, {}, "occupancy-bench-probe") as server:
        codec = await probe(server)
    settings = contenders(codec)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(work, LIMITS, settings[name], f"occupancy-bench-{name}"))
            for name in settings
        }
        for name, server in servers.items():
            with step(f"{name}: {rows:,} readings, and pgbench's tables"):
                await load(server, [file], end)
        with step(f"{rounds} rounds, in turns"):
            rates = await compare(servers, rounds, bursts, seconds, end)
        image = server.image
    memory = {}
    for megabytes in SHORT:
        plan = tuning.plan(tuning.Request(cores=2, memory=megabytes, wal_compression=codec))
        limits = {"cpus": "2", "memory": f"{megabytes}m", "memory-swap": f"{megabytes}m"}
        limits["shm-size"] = str(next(each for each in plan.container if each.name == "shm_size"))
        with (
            step(f"every connection sorting in {megabytes} MB"),
            Server(work, limits, {setting.name: str(setting) for setting in plan.settings}) as server,
        ):
            await server.create_owner()
            await server.create_database("ours")
            loads.migrate(server, "ours")
            loads.run_import(server, "ours", [small])
            await queries.add_predictions(server, "ours", end)
            memory[str(megabytes)] = await crowd(server, plan)
    return {
        "date": f"{end:%Y-%m-%d %H:%M} UTC",
        "rows": rows,
        "rounds": rounds,
        "bursts": bursts,
        "pgbench_seconds": seconds,
        "machine": machine(),
        "server": {"image": image, "limits": LIMITS, "settings": settings},
        "rates": rates,
        "memory": memory,
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="bench.tuning", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--rows", type=int, default=3_000_000, help="readings, a multiple of 100,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bursts", type=int, default=BURSTS, help="times that all zones report, a turn")
    parser.add_argument("--seconds", type=int, default=20, help="of pgbench, a turn")
    wanted = parser.parse_args()
    start = time.perf_counter()
    with workplace(12) as work:
        details = asyncio.run(measure(work, wanted.rows, wanted.rounds, wanted.bursts, wanted.seconds))
    details["seconds"] = round(time.perf_counter() - start)
    tuning_report.write(details)


if __name__ == "__main__":
    main()
