"""Measure inserts while rooms are added, over TLS: ``python -m bench.rooms``.

Writes ``bench/results/rooms.json``: the figures, and the machine.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from bench.place import machine, step, workplace
from bench.server import Server
from bench.timeseries import LIMITS, SETTINGS
from bench.writers import Writers
from occupancy_db.schema import privileges, rooms, runner

RESULTS = Path(__file__).parent / "results/rooms.json"
DATABASE = "occupancy"
RATE = 200
"""Writes a second."""
ROOMS = 20
PAUSE = 0.5
"""Seconds between two rooms."""
_BEFORE = 3.0
READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES (now(), $1, 'zone', true, 'binary_sensor.bench')"
)

TARGETS = {"failed_writes": 0, "slowest_write_ms": 100, "refused_readings_of_new_rooms": 0}


async def prepare(server: Server) -> None:
    """Make a database at the newest revision, with the rights of the product."""
    await server.create_owner()
    for user in privileges.USERS[1:]:
        await server.create_user(user)
    await server.create_database(DATABASE)
    await runner.upgrade(server.settings(DATABASE))
    sql = Path(privileges.__file__).with_name("privileges.sql").read_text(encoding="utf-8")
    await server.administer(sql, database=DATABASE)
    await server.settle(DATABASE)


async def call(server: Server, *arguments: str) -> float:
    """Call `occupancy-db rooms` as an operator does, and return the seconds that it took."""
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "occupancy_db", "--json", "rooms", *arguments),
        env={**os.environ, **server.environment(DATABASE)},
        stdout=asyncio.subprocess.PIPE,
    )
    await process.communicate()
    if process.returncode:
        raise RuntimeError(f"rooms {arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - start


async def list_rooms(server: Server) -> None:
    """Call the command as often as it is called to add rooms: what starting it costs the writers."""
    for _ in range(ROOMS):
        await call(server, "list")
        await asyncio.sleep(PAUSE)


async def add_rooms(server: Server) -> tuple[list[float], int]:
    """Add rooms by the command.

    Returns:
        The seconds of each command, and how many rooms did not take a reading from a session that was open
        before.
    """
    application = await server.connect(DATABASE, "occupancy_app")
    seconds, refused = [], 0
    for number in range(ROOMS):
        seconds.append(await call(server, "add", f"room {number}"))
        try:
            await application.execute(READING, f"room {number}")
        except asyncpg.PostgresError:
            refused += 1
        await asyncio.sleep(PAUSE)
    await application.close()
    return seconds, refused


async def add_in_session(server: Server) -> list[tuple[float, float]]:
    """Add rooms by one open session, without the start of a process: what the server alone costs the writers.

    Returns:
        When each room was begun and finished, in seconds of ``time.perf_counter``.
    """
    owner = await server.connect(DATABASE)
    spans = []
    for number in range(ROOMS):
        start = time.perf_counter()
        await rooms.add(owner, {f"hall {number}": f"Hall {number}"})
        spans.append((start, time.perf_counter()))
        await asyncio.sleep(PAUSE)
    await owner.close()
    return spans


def overlapping(writes: list[tuple[float, float]], spans: list[tuple[float, float]]) -> list[float]:
    """The milliseconds of the writes that were not finished before a span began, and due before it ended."""
    return [ms for due, ms in writes if any(due <= end and due + ms / 1000 >= start for start, end in spans)]


async def measure(server: Server) -> dict[str, Any]:
    """Measure the writers while the command lists rooms, and while it adds rooms."""
    with step("a database at the newest revision"):
        await prepare(server)
    with step(f"{RATE} writes a second, rooms listed {ROOMS} times"):
        async with Writers(server, DATABASE, user="occupancy_app", rate=RATE) as listing:
            await asyncio.sleep(_BEFORE)
            await list_rooms(server)
            await asyncio.sleep(_BEFORE)
    with step(f"{RATE} writes a second, {ROOMS} rooms added"):
        async with Writers(server, DATABASE, user="occupancy_app", rate=RATE) as writers:
            await asyncio.sleep(_BEFORE)
            seconds, refused = await add_rooms(server)
            await asyncio.sleep(_BEFORE)
    with step(f"{RATE} writes a second, {ROOMS} rooms added by an open session"):
        async with Writers(server, DATABASE, user="occupancy_app", rate=RATE) as session:
            await asyncio.sleep(_BEFORE)
            spans = await add_in_session(server)
            await asyncio.sleep(_BEFORE)
    meanwhile = overlapping(session.writes, spans)
    return {
        "figures": {
            "failed_writes": writers.failed + session.failed,
            "slowest_write_ms": writers.summary()["slowest_ms"],
            "refused_readings_of_new_rooms": refused,
            "rooms_added": ROOMS,
            "command_s": round(statistics.median(seconds), 2),
            "add_ms": round(statistics.median(end - start for start, end in spans) * 1000, 1),
            "slowest_write_during_add_ms": round(max(meanwhile), 2),
            "writes_during_add": len(meanwhile),
            "writers": writers.summary(),
            "writers_while_listing": listing.summary(),
            "writers_beside_session": session.summary(),
        },
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "server": {"image": server.image, "limits": LIMITS, "settings": SETTINGS},
    }


def main() -> None:
    """Entry point."""
    with workplace(4) as work, Server(work, LIMITS, SETTINGS, name="occupancy-bench-rooms") as server:
        details = asyncio.run(measure(server))
    RESULTS.write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    table = Table("Figure", "Measured", "Target")
    for name, target in TARGETS.items():
        value = details["figures"][name]
        table.add_row(name, f"{value:g}", f"≤ {target} {'met' if value <= target else 'missed'}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table, f"written: {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
