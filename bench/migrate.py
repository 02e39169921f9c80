"""Measure inserts during migrations: each released one, and an index on a large partitioned table.

Writes ``bench/results/migrate.json``: everything, and ``figures``.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from bench import loads
from bench.place import machine, step, workplace
from bench.server import Server
from bench.timeseries import BYTES_PER_ROW, LIMITS, SETTINGS, STEP, Files, Sizes
from bench.writers import Writers
from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.release import protocol
from occupancy_db.release.rollback import roll_back
from occupancy_db.schema import privileges, runner
from occupancy_db.settings import Environment

RESULTS = Path(__file__).parent / "results/migrate.json"
DATABASE = "occupancy"
APP = "occupancy_app"
RATE = 200
"""Writes per second."""
_BEFORE = 3.0
"""Seconds of writing before and after each migration."""

INDEX = '''"""An index on all readings

Intent: the history of a zone in order of time.
Locks: SHARE on sensor_readings, for a moment.
Reversible: yes.
Phase: expand.
Release: 0.2.0

Revision ID: bench_index
"""

from alembic import op

from occupancy_db.schema import migration_ops

revision = "bench_index"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migration_ops.create_index("ix_sensor_readings_bench", "sensor_readings", "(zone, timestamp DESC)")


def downgrade() -> None:
    op.execute("DROP INDEX ix_sensor_readings_bench")
'''

TARGETS = {
    "failed_writes": ("writes that failed", 0),
    "lost_writes": ("writes that were confirmed and are not there", 0),
    "slowest_write_ms": ("the slowest write, ms", 500),
}


class Bench:
    """One database, and its measurements.

    Attributes:
        revisions: By revision: rows in the table, seconds, attempts, the slowest write meanwhile in ms.
        written: Writes that were confirmed.
        failed: Writes that failed.
        seconds: Duration of writing.
    """

    def __init__(self, server: Server) -> None:
        """Args: server: the server."""
        self._server = server
        # The environment of a developer: as in production, without confirmations.
        self._settings = server.settings(DATABASE).model_copy(update={"environment": Environment.DEVELOPMENT})
        self.revisions: dict[str, dict[str, float]] = {}
        self.written = self.failed = 0
        self.seconds = 0.0

    async def count(self) -> int:
        """Return the number of readings."""
        connection = await self._server.connect(DATABASE)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM sensor_readings"))
        finally:
            await connection.close()

    async def deploy(self) -> None:
        """Migrate the database to the newest revision during inserts."""
        rows = await self.count()
        ends: list[tuple[str, float]] = []
        say = lambda line: ends.append((line.split(":")[0], time.perf_counter()))  # noqa: E731
        async with Writers(self._server, DATABASE, user=APP, rate=RATE) as writers:
            began = time.perf_counter()
            await asyncio.sleep(_BEFORE)
            start = time.perf_counter()
            done = await protocol.deploy(
                self._settings, BackupSettings(dir=Path("/nowhere")), say, save=False
            )
            await asyncio.sleep(_BEFORE)
            self.seconds += time.perf_counter() - began
        self.written += len(writers.writes)
        self.failed += writers.failed
        moments = dict(ends)
        for one in done.revisions:
            revision = one.summary.revision
            end = moments[revision]
            meanwhile = [ms for due, ms in writers.writes if due <= end and due + ms / 1000 >= start]
            self.revisions[revision] = {
                "rows": rows,
                "seconds": one.seconds,
                "attempts": one.attempts,
                "slowest_write_ms": round(max(meanwhile), 1),
            }
            start = end

    async def roll_back(self) -> None:
        """Revert the newest revision, without writers."""
        await roll_back(self._settings, "-1")


async def measure(server: Server, rows: int, work: Path) -> dict[str, Any]:
    """Run all measurements, one after the other, and return the details."""
    end = datetime.now(UTC).replace(microsecond=0)
    shipped = [script.revision for script in runner.script_directory().walk_revisions()][::-1]
    await server.create_owner()
    for user in privileges.USERS[1:]:
        await server.create_user(user)
    await server.create_database(DATABASE)
    await runner.upgrade(server.settings(DATABASE), shipped[0])
    sql = Path(privileges.__file__).with_name("privileges.sql").read_text(encoding="utf-8")
    await server.administer(sql, database=DATABASE)
    bench = Bench(server)
    with step("the shipped migrations, as on the day of installation"):
        await bench.deploy()
    young = dict(bench.revisions)
    found = await bench.count()
    with step(f"import of {rows:,} rows"):
        loads.run_import(server, DATABASE, Files(work, Sizes.of(rows), end).between(rows))
        await server.settle(DATABASE)
    imported = await bench.count() - found
    with step(f"the newest migration again, on {rows:,} rows"):
        await bench.roll_back()
        await bench.deploy()
    next_release = work / "next"
    next_release.mkdir()
    (next_release / "bench_index.py").write_text(INDEX.format(head=shipped[-1]), encoding="utf-8")
    config = runner.alembic_config()
    locations = [f"{config.get_main_option('script_location')}/versions", str(next_release)]
    config.set_main_option("version_locations", os.pathsep.join(locations))
    with step(f"an index on {rows:,} rows"), patch.object(runner, "alembic_config", lambda: config):
        await bench.deploy()
    lost = bench.written + imported - await bench.count()
    slowest = max(one["slowest_write_ms"] for one in [*young.values(), *bench.revisions.values()])
    return {
        "figures": {
            "writes_per_s": round(bench.written / bench.seconds, 1),
            "failed_writes": bench.failed,
            "lost_writes": lost,
            "slowest_write_ms": slowest,
            "revisions": {**young, f"{shipped[-1]}, full": bench.revisions[shipped[-1]],
                          "an index, full": bench.revisions["bench_index"]},
        },
        "rows": rows,
        "date": f"{end:%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "server": {"image": server.image, "limits": LIMITS, "settings": SETTINGS},
    }  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="bench.migrate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help=f"a multiple of {STEP:,}")
    rows: int = parser.parse_args().rows
    if rows <= 0 or rows % STEP:
        parser.error(f"--rows must be a multiple of {STEP:,}")
    with workplace((rows * BYTES_PER_ROW >> 30) + 8) as work, Server(work, LIMITS, SETTINGS) as server:
        details = asyncio.run(measure(server, rows, work))
    RESULTS.write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("Revision", "Rows", "Seconds", "Attempts", "Slowest write, ms")
    for name, one in details["figures"]["revisions"].items():
        table.add_row(
            name,
            f"{one['rows']:,}",
            f"{one['seconds']:.2f}",
            f"{one['attempts']}",
            f"{one['slowest_write_ms']}",
        )
    console.print(table)
    table = Table(
        "Figure", "Measured", "Target", title=f"{details['figures']['writes_per_s']:g} writes a second"
    )
    for name, (meaning, target) in TARGETS.items():
        value = details["figures"][name]
        table.add_row(meaning, f"{value:g}", f"≤ {target} {'met' if value <= target else 'missed'}")
    console.print(table, f"written: {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
