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

from bench import home, loads, manual, queries, readers, report, upkeep
from bench.place import machine, step, workplace
from bench.server import Server
from occupancy_db.history.upkeep import maintain
from occupancy_db.server import tuning

LIMITS = {"cpus": "2", "memory": "4g", "shm-size": "1g"}
SETTINGS = {"shared_buffers": "512MB", "maintenance_work_mem": "128MB", "max_wal_size": "4GB"}
STEP = 100_000
SMALL = 1_000_000
LIVE = 3_000_000
MANUAL = 10_000_000
BYTES_PER_ROW = 800
"""Bytes of disk space for a row: files, one database of the product and one of the manual's schema."""


def tuned() -> dict[str, str]:
    """Return the settings that the product computes for a server with these limits."""
    plan = tuning.plan(tuning.Request(cores=int(LIMITS["cpus"]), memory=4096))
    # Huge pages of the kernel are a matter of the host.
    return {setting.name: str(setting) for setting in plan.settings} | {"huge_pages": "off"}


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


class Measurement:
    """All measurements in one server, one at a time.

    Attributes:
        loaded: How fast rows were loaded, by the way of loading.
        bytes: Bytes of the readings by database.
        answers: Times of the queries by schema.
        readers: Times of the clients' queries, by how the months are stored.
        created: Times of single rows by the ORM.
        retirement: Retention beside writers, by schema.
    """

    def __init__(self, server: Server, sizes: Sizes, files: Files, end: datetime) -> None:
        """Args: server: where; sizes: how many rows; files: the rows; end: when the newest was measured."""
        self._server = server
        self._sizes = sizes
        self._files = files
        self._end = end
        self.loaded: dict[str, loads.Load] = {}
        self.bytes: dict[str, dict[str, int]] = {}
        self.answers: dict[str, Any] = {}
        self.readers: dict[str, readers.Answers] = {}
        self.created: dict[str, dict[str, float]] = {}
        self.retirement: dict[str, Any] = {}

    async def raw_copy(self) -> None:
        """Measure COPY into a table without indexes."""
        server = self._server
        await server.create_database("raw")
        connection = await server.connect("raw")
        await connection.execute(loads.RAW)
        await connection.close()
        await server.settle()
        self.loaded["raw_copy"] = await loads.copy(
            server, "raw", "raw", self._files.between(self._sizes.rows)
        )
        await server.drop_database("raw")

    async def import_history(self) -> None:
        """Import the rows before the live ones into the product's schema."""
        await _create(self._server, "ours_live")
        await self._server.settle()
        files = self._files.between(self._sizes.rows, self._sizes.live)
        self.loaded["import_history"] = loads.run_import(self._server, "ours_live", files)
        await self._maintain("ours_live")

    async def copy_history(self) -> None:
        """Copy the rows before the live ones into the manual's schema."""
        await _create(self._server, "manual")
        await self._server.settle()
        files = self._files.between(self._sizes.manual, self._sizes.live)
        self.loaded["manual_copy"] = await loads.copy(self._server, "manual", "sensor_readings", files)

    async def live(self) -> None:
        """Write the live rows into both schemas, in turns, and measure the size of both."""
        server, sizes = self._server, self._sizes
        await server.settle("ours_live", "manual")
        self.loaded["live"], self.loaded["manual_live"] = await loads.live(
            server, "ours_live", "manual", sizes.live, self._end
        )
        await _check_rows(server, "ours_live", sizes.rows)
        await _check_rows(server, "manual", sizes.manual)
        await self._maintain("ours_live")
        await server.settle("ours_live", "manual")
        self.bytes["ours_live"] = await queries.size(server, "ours_live")
        self.bytes["manual"] = await queries.size(server, "manual")

    async def beside_upkeep(self) -> dict[str, dict[str, float]]:
        """Measure writers beside upkeep; the database is dropped afterwards."""
        found = await upkeep.beside_upkeep(self._server, "ours_live")
        await self._server.drop_database("ours_live")
        return found

    async def import_all(self) -> None:
        """Import all rows, and measure the size."""
        server = self._server
        await _create(server, "ours")
        await server.settle()
        self.loaded["import"] = loads.run_import(server, "ours", self._files.between(self._sizes.rows))
        await _check_rows(server, "ours", self._sizes.rows)
        await self._maintain("ours")
        await server.settle("ours")
        self.bytes["ours"] = await queries.size(server, "ours")

    async def small(self) -> None:
        """Load the newest rows into a small database of each schema, and predictions into all databases."""
        server = self._server
        for database in ("ours_small", "manual_small"):
            await _create(server, database)
        newest = self._files.between(self._sizes.small)
        self.loaded["import_small"] = loads.run_import(server, "ours_small", newest)
        await self._maintain("ours_small")
        self.loaded["manual_copy_small"] = await loads.copy(server, "manual_small", "sensor_readings", newest)
        databases = ["ours", "ours_small", "manual", "manual_small"]
        for database in databases:
            await queries.add_predictions(server, database, self._end)
        await server.settle(*databases)

    async def query(self, schema: str) -> None:
        """Measure the queries of one schema, in both sizes."""
        self.answers[schema] = await queries.measure(self._server, [schema, f"{schema}_small"])

    async def read(self, database: str) -> None:
        """Run the clients' queries in a database of the product and in the manual's."""
        self.readers[database] = await readers.ask(self._server, [database, "manual"], self._end)

    async def orm(self) -> None:
        """Write rows as objects of the ORM: single ones into both schemas, then batches into the manual's."""
        self.created = await readers.create_rows(self._server, ("ours", "manual"), self._end)
        self.loaded["manual_orm"] = await loads.orm_manual(self._server, "manual", self._end)
        await self._server.settle("manual")

    async def _maintain(self, database: str) -> None:
        await maintain(self._server.settings(database), upkeep.MONTHS_AHEAD)


async def measure(server: Server, sizes: Sizes, directory: Path) -> dict[str, Any]:
    """Measure everything, one thing at a time, and return the details."""
    end = datetime.now(UTC).replace(microsecond=0)
    with step(f"{sizes.rows:,} rows as CSV"):
        files = Files(directory, sizes, end)
    await server.create_owner()
    found = Measurement(server, sizes, files, end)
    with step("raw: COPY into a table without indexes"):
        await found.raw_copy()
    with step(f"ours: import of {sizes.rows - sizes.live:,} rows"):
        await found.import_history()
    with step(f"manual: COPY of {sizes.manual - sizes.live:,} rows"):
        await found.copy_history()
    with step(f"both in turns: {sizes.live:,} live rows"):
        await found.live()
    with step("both: queries of clients, months with live rows"):
        await found.read("ours_live")
    with step("ours: writers beside upkeep"):
        beside_upkeep = await found.beside_upkeep()
    with step(f"ours: import of all {sizes.rows:,} rows"):
        await found.import_all()
    with step("both: queries of clients, imported months"):
        await found.read("ours")
    with step(f"both: the newest {sizes.small:,} rows, and predictions"):
        await found.small()
    for schema in ("ours", "manual"):
        with step(f"{schema}: queries"):
            await found.query(schema)
    with step("both: rows as objects of the ORM"):
        await found.orm()
    with step("ours: retention beside writers"):
        found.retirement["ours"] = await upkeep.retire_ours(server, "ours")
    with step("manual: retention beside writers"):
        found.retirement["manual"] = await upkeep.retire_manual(server, "manual")
    return {
        "date": f"{end:%Y-%m-%d %H:%M} UTC",
        "rows": sizes.rows,
        "small_rows": sizes.small,
        "live_rows": sizes.live,
        "manual_rows": sizes.manual,
        "csv_bytes": files.bytes,
        "machine": machine(),
        "server": {
            "version": await _version(server),
            "image": server.image,
            "limits": LIMITS,
            "settings": tuned(),
        },
        "loads": found.loaded,
        "bytes": found.bytes,
        "queries": found.answers,
        "readers": found.readers,
        "orm_create": found.created,
        "write_latency": beside_upkeep,
        "retention": found.retirement,
    }


async def _version(server: Server) -> str:
    connection = await server.connect("ours")
    version: str = await connection.fetchval("SELECT current_setting('server_version')")
    await connection.close()
    return version


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
    with (
        workplace((min(rows, MANUAL) * BYTES_PER_ROW + max(0, rows - MANUAL) * 400 >> 30) + 8) as work,
        Server(work, LIMITS, tuned()) as server,
    ):
        details = asyncio.run(measure(server, Sizes.of(rows), work))
    details["seconds"] = round(time.perf_counter() - start)
    report.write(details)


if __name__ == "__main__":
    main()
