"""Measure a backup with its rehearsal, and a restore beside a writer, in the product's container.

Writes ``bench/results/backup.json``: everything, and ``figures``.
"""

import argparse
import asyncio
import json
import secrets
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from bench import loads
from bench.place import machine, step, workplace
from bench.server import ROOT, Server
from bench.timeseries import BYTES_PER_ROW, LIMITS, SETTINGS, STEP, Files, Sizes
from bench.writers import INSERT, PAUSE
from occupancy_db.history.upkeep import maintain
from provisioning import images

RESULTS = Path(__file__).parent / "results/backup.json"
DATABASE = "occupancy"
VOLUME = "occupancy-bench-backups"
PLACE = "/var/lib/occupancy"
LIMIT = "768m"
"""Memory of the container, as in compose.yaml."""

# The product's users, as created by the access role.
USERS = {
    "occupancy_app": "",
    "occupancy_readonly": "",
    "occupancy_monitor": "IN ROLE pg_monitor",
    "occupancy_backup": "IN ROLE pg_read_all_data",
    "occupancy_restore": "CREATEDB IN ROLE occupancy, pg_signal_backend",
}

TARGETS = {
    "create_and_rehearsal_s": ("a set, rehearsal included, seconds", 60),
    "restore_s": ("restore, safety backup included, seconds", 90),
    "writes_held_s": ("a client without a write at the exchange, seconds", 2),
}


class Tools:
    """``occupancy-db`` in the ops image, on the server's network, with the limits of a host's container."""

    def __init__(self, server: Server, work: Path) -> None:
        """Create the volume, and the password files of the users."""
        self.image: str = images.read_manifest(ROOT)["ops"]["image"]
        self._server = server
        self.passwords = {user: secrets.token_urlsafe(24) for user in USERS}
        self._secrets = work / "secrets"
        self._secrets.mkdir()  # the parent directory is accessible to this user only
        known = {**self.passwords, "occupancy": server.environment(DATABASE)["POSTGRES_PASSWORD"]}
        for user, password in known.items():
            (self._secrets / user).write_text(password, encoding="utf-8")
        self._ca = server.environment(DATABASE)["POSTGRES_SSLROOTCERT"]
        directories = f"mkdir {PLACE}/backups {PLACE}/rehearsal; chown -R 10001:10001 {PLACE}"
        self._docker("run", "--rm", "--user=0", f"--volume={VOLUME}:{PLACE}", "--entrypoint=/bin/sh",
                     self.image, "-c", directories)  # fmt: skip

    def run(self, user: str, *command: str) -> tuple[float, dict[str, Any]]:
        """Run a command as a user of the database; return the seconds and the output."""
        environment = {
            "ENVIRONMENT": "production",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_DB": DATABASE,
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD_FILE": f"/run/secrets/{user}",
            "POSTGRES_SSLROOTCERT": "/ca.crt",
        }
        start = time.perf_counter()
        printed = self._docker(
            *(
                "run",
                "--rm",
                f"--network=container:{self._server.name}",
                "--user=10001:10001",
                "--cap-drop=ALL",
            ),
            *("--security-opt=no-new-privileges", "--read-only", "--tmpfs=/tmp", f"--memory={LIMIT}"),
            *(f"--volume={VOLUME}:{PLACE}", f"--volume={self._secrets}:/run/secrets:ro"),
            f"--volume={self._ca}:/ca.crt:ro",
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(self.image, "--json", *command),
        )
        return time.perf_counter() - start, json.loads(printed)

    @staticmethod
    def remove() -> None:
        """Remove the volume and the files."""
        subprocess.run(["docker", "volume", "rm", "--force", VOLUME], check=False, capture_output=True)

    @staticmethod
    def _docker(*arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {arguments[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout


class Client:
    """An application that writes a reading every few milliseconds, and connects again after an error."""

    def __init__(self, server: Server, password: str) -> None:
        """Args: server: the server; password: the password of occupancy_app."""
        self._server = server
        self._password = password
        self._over = asyncio.Event()
        self.written: list[float] = []
        self.errors = 0

    async def write(self) -> None:
        """Write until stop()."""
        connection = None
        while not self._over.is_set():
            try:
                connection = connection or await asyncpg.connect(
                    host="127.0.0.1", port=self._server.port, user="occupancy_app", password=self._password,
                    database=DATABASE, ssl=self._server.ssl,
                )  # fmt: skip
                await connection.execute(INSERT, datetime.now(UTC), True)
                self.written.append(time.perf_counter())
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self.errors += 1
                connection = None
            await asyncio.sleep(PAUSE)
        if connection:
            await connection.close()

    def stop(self) -> None:
        """Stop writing."""
        self._over.set()

    @property
    def longest_pause(self) -> float:
        """The largest number of seconds between two successive writes."""
        return max(later - earlier for earlier, later in zip(self.written, self.written[1:], strict=False))


async def measure(server: Server, rows: int, work: Path) -> dict[str, Any]:
    """Run all measurements, one after the other."""
    end = datetime.now(UTC).replace(microsecond=0)
    with step(f"import of {rows:,} rows"):
        files = Files(work, Sizes.of(rows), end)
        await server.create_owner()
        await server.create_database(DATABASE)
        loads.migrate(server, DATABASE)
        loads.run_import(server, DATABASE, files.between(rows))
        await maintain(server.settings(DATABASE), 3)
        tools = Tools(server, work)
        for user, rights in USERS.items():
            await server.administer(f"CREATE ROLE {user} LOGIN PASSWORD '{tools.passwords[user]}' {rights}")
        privileges = Path(loads.__file__).parents[1] / "occupancy_db/schema/privileges.sql"
        await server.administer(privileges.read_text(encoding="utf-8"), database=DATABASE)
        await server.settle(DATABASE)
    client = Client(server, tools.passwords["occupancy_app"])
    writing = asyncio.create_task(client.write())
    with step("a set, beside a writer"):
        create_seconds, made = await asyncio.to_thread(tools.run, "occupancy_backup", "backup", "create")
        beside_create = client.longest_pause
    client.written.clear()
    with step("a restore, beside a writer"):
        restore_seconds, restored = await asyncio.to_thread(
            tools.run, "occupancy_restore", "restore", made["id"], "--confirm", DATABASE
        )
        await asyncio.sleep(1)
    client.stop()
    await writing
    connection = await server.connect(DATABASE)
    found = await connection.fetchval("SELECT count(*) FROM sensor_readings WHERE timestamp < $1", end)
    version = await connection.fetchval("SELECT current_setting('server_version')")
    await connection.close()
    if found != rows:
        raise RuntimeError(f"{found:,} of {rows:,} readings are there after the restore")
    rehearsal = made["phases"]["rehearse"]
    return {
        "figures": {
            "rows": rows,
            "create_s": round(create_seconds - rehearsal, 1),
            "rehearsal_s": round(rehearsal, 1),
            "create_and_rehearsal_s": round(create_seconds, 1),
            "restore_s": round(restore_seconds, 1),
            "writes_held_s": round(client.longest_pause, 3),
            "set_bytes": made["bytes"],
        },
        "date": f"{end:%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "server": {"version": version, "image": server.image, "limits": LIMITS, "settings": SETTINGS},
        "tools": {"image": tools.image, "memory": LIMIT},
        "create": {"phases": made["phases"], "slowest_write_s": round(beside_create, 3)},
        "restore": {"phases": restored["phases"], "writes_refused": client.errors},
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="bench.backup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help=f"a multiple of {STEP:,}")
    rows: int = parser.parse_args().rows
    if rows <= 0 or rows % STEP:
        parser.error(f"--rows must be a multiple of {STEP:,}")
    with workplace((rows * BYTES_PER_ROW >> 30) + 8) as work, Server(work, LIMITS, SETTINGS) as server:
        Tools.remove()
        try:
            details = asyncio.run(measure(server, rows, work))
        finally:
            Tools.remove()
    RESULTS.write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    table = Table("Figure", "Measured", "Target", title=f"{rows:,} rows")
    for name, (meaning, target) in TARGETS.items():
        value = details["figures"][name]
        table.add_row(meaning, f"{value:g}", f"≤ {target} {'met' if value <= target else 'missed'}")
    Console().print(table, f"written: {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
