"""Measure the product beside the schema of the operator's manual, in one throwaway server.

Writes ``bench/results/``: ``timeseries.json`` with everything and ``figures``, and a report with plots.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import home, loads, manual, queries, report, upkeep
from bench.place import machine, step, workplace
from bench.server import Server
from occupancy_db.history.upkeep import maintain

LIMITS = {"cpus": "2", "memory": "4g", "shm-size": "1g"}
SETTINGS = {"shared_buffers": "512MB", "maintenance_work_mem": "128MB", "max_wal_size": "4GB"}
STEP = 100_000
SMALL = 1_000_000
LIVE = 3_000_000
MANUAL = 10_000_000
BYTES_PER_ROW = 500
"""On disk at the fullest: the files, and both parties."""


@dataclass(frozen=True)
class Sizes:
    """How many rows of what; each counted back from the newest.

    Attributes:
        rows: All.
        small: The small size that growth is measured against.
        live: The rows that come over the live path, on top of the rest.
        manual: What the manual's schema holds: no more than ten million, which would take hours.
    """

    rows: int
    small: int
    live: int
    manual: int

    @classmethod
    def of(cls, rows: int) -> "Sizes":
        """The sizes for so many rows."""
        return cls(rows, min(SMALL, rows // 10), min(LIVE, rows * 3 // 10), min(rows, MANUAL))


class Files:
    """The rows as CSV, cut where somebody begins or ends to read."""

    def __init__(self, directory: Path, sizes: Sizes, end: datetime) -> None:
        cuts = sorted({sizes.rows, sizes.manual, sizes.live, sizes.small, 0}, reverse=True)
        self._files = []
        for since, until in pairwise(cuts):
            path = directory / f"{since}.csv"
            home.write(path, since, until, end)
            self._files.append((since, until, path))

    def between(self, since: int, until: int = 0) -> list[Path]:
        """The files of the rows from one to before another, counted back from the newest."""
        return [path for first, last, path in self._files if first <= since and last >= until]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for _, _, path in self._files)


async def measure(server: Server, sizes: Sizes, directory: Path) -> dict[str, Any]:
    """Everything, one thing at a time."""
    end = datetime.now(UTC).replace(microsecond=0)
    loaded: dict[str, loads.Load] = {}
    bytes_: dict[str, dict[str, int]] = {}

    with step(f"{sizes.rows:,} rows as CSV"):
        files = Files(directory, sizes, end)
    await server.create_owner()

    with step("raw: COPY into a table without indexes"):
        await server.create_database("raw")
        connection = await server.connect("raw")
        await connection.execute(loads.RAW)
        await connection.close()
        await server.settle()
        loaded["raw_copy"] = await loads.copy(server, "raw", "raw", files.between(sizes.rows))
        await server.drop_database("raw")

    with step(f"ours: import of {sizes.rows - sizes.live:,} rows"):
        await _create(server, "ours_live")
        await server.settle()
        loaded["import_history"] = loads.run_import(
            server, "ours_live", files.between(sizes.rows, sizes.live)
        )
        await maintain(server.settings("ours_live"), upkeep.MONTHS_AHEAD)

    with step(f"manual: COPY of {sizes.manual - sizes.live:,} rows"):
        await _create(server, "manual")
        await server.settle()
        loaded["manual_copy"] = await loads.copy(
            server, "manual", "sensor_readings", files.between(sizes.manual, sizes.live)
        )

    with step(f"both in turns: {sizes.live:,} live rows"):
        await server.settle("ours_live", "manual")
        loaded["live"], loaded["manual_live"] = await loads.live(
            server, "ours_live", "manual", sizes.live, end
        )
        await _check_rows(server, "ours_live", sizes.rows)
        await _check_rows(server, "manual", sizes.manual)
        await maintain(server.settings("ours_live"), upkeep.MONTHS_AHEAD)
        await server.settle("ours_live", "manual")
        bytes_["ours_live"] = await queries.size(server, "ours_live")
        bytes_["manual"] = await queries.size(server, "manual")

    with step("ours: writers beside upkeep"):
        beside_upkeep = await upkeep.beside_upkeep(server, "ours_live")
        await server.drop_database("ours_live")

    with step(f"ours: import of all {sizes.rows:,} rows"):
        await _create(server, "ours")
        await server.settle()
        loaded["import"] = loads.run_import(server, "ours", files.between(sizes.rows))
        await _check_rows(server, "ours", sizes.rows)
        await maintain(server.settings("ours"), upkeep.MONTHS_AHEAD)
        await server.settle("ours")
        bytes_["ours"] = await queries.size(server, "ours")

    with step(f"both: the newest {sizes.small:,} rows, and predictions"):
        for database in ("ours_small", "manual_small"):
            await _create(server, database)
        newest = files.between(sizes.small)
        loaded["import_small"] = loads.run_import(server, "ours_small", newest)
        await maintain(server.settings("ours_small"), upkeep.MONTHS_AHEAD)
        loaded["manual_copy_small"] = await loads.copy(server, "manual_small", "sensor_readings", newest)
        databases = ["ours", "ours_small", "manual", "manual_small"]
        for database in databases:
            await queries.add_predictions(server, database, end)
        await server.settle(*databases)

    with step("ours: queries"):
        answers = {"ours": await queries.measure(server, ["ours", "ours_small"])}
    with step("manual: queries"):
        answers["manual"] = await queries.measure(server, ["manual", "manual_small"])

    with step("manual: rows as objects of the ORM"):
        loaded["manual_orm"] = await loads.orm_manual(server, "manual", end)
    await server.settle("manual")

    with step("ours: retention beside writers"):
        retirement = {"ours": await upkeep.retire_ours(server, "ours")}
    with step("manual: retention beside writers"):
        retirement["manual"] = await upkeep.retire_manual(server, "manual")

    connection = await server.connect("ours")
    version = await connection.fetchval("SELECT current_setting('server_version')")
    await connection.close()
    return {
        "date": f"{end:%Y-%m-%d %H:%M} UTC",
        "rows": sizes.rows,
        "small_rows": sizes.small,
        "live_rows": sizes.live,
        "manual_rows": sizes.manual,
        "csv_bytes": files.bytes,
        "machine": machine(),
        "server": {"version": version, "image": server.image, "limits": LIMITS, "settings": SETTINGS},
        "loads": loaded,
        "bytes": bytes_,
        "queries": answers,
        "write_latency": beside_upkeep,
        "retention": retirement,
    }


async def _create(server: Server, database: str) -> None:
    await server.create_database(database)
    if database.startswith("ours"):
        loads.migrate(server, database)
        return
    connection = await server.connect(database)
    await connection.execute(manual.SCHEMA)
    await connection.close()


async def _check_rows(server: Server, database: str, expected: int) -> None:
    connection = await server.connect(database)
    found = await connection.fetchval("SELECT count(*) FROM sensor_readings")
    await connection.close()
    if found != expected:
        raise RuntimeError(
            f"{database} holds {found:,} rows, not {expected:,}: nothing that it measures counts"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="bench.timeseries", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help=f"a multiple of {STEP:,} (default: ten million)"
    )
    rows: int = parser.parse_args().rows
    if rows <= 0 or rows % STEP:
        parser.error(f"--rows must be a multiple of {STEP:,}")
    start = time.perf_counter()
    with workplace((rows * BYTES_PER_ROW >> 30) + 8) as work, Server(work, LIMITS, SETTINGS) as server:
        details = asyncio.run(measure(server, Sizes.of(rows), work))
    details["seconds"] = round(time.perf_counter() - start)
    report.write(details)


if __name__ == "__main__":
    main()
