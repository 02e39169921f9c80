"""Compare the time of the commands with importing SQLAlchemy and asyncpg.

    make bench-cli

The measure is the median of five runs of ``python -c "import sqlalchemy.ext.asyncio, asyncpg"``, in turn
with the commands, so that another load of the machine slows both. The server is a throwaway cluster on this
machine with the schema of this release. The output is seconds, ratio to the measure and limit; the exit
code is 1 if a limit is exceeded. Bytecode is compiled by a first run that is not counted.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.database.cluster import Cluster
from tests.database.users import OWNER, PASSWORD, make_users

ROUNDS = 5
IMPORTED = 20_000
"""Rows of the small import."""

BASE = ("python", "-c", "import sqlalchemy.ext.asyncio, asyncpg")


@dataclass(frozen=True)
class Limit:
    """The time that a command may take.

    Attributes:
        arguments: Arguments of ``occupancy-db``.
        ratio: Largest ratio to the measure.
        more: Additional seconds.
    """

    arguments: tuple[str, ...]
    ratio: float
    more: float = 0.0


QUERIES = (
    "current",
    "check-tables",
    "test-connection",
    "partitions status",
    "partitions maintain --dry-run",
    "cleanup --dry-run",
    "migrate --plan",
    "migrate",
    "init",
)


def seconds(command: tuple[str, ...], environment: dict[str, str], directory: str) -> float:
    """Run a command once; it must succeed."""
    start = time.perf_counter()
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return took


def readings(directory: str) -> str:
    """Write the files of the import; each run imports another one, so that no reading exists already."""
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    for run in range(ROUNDS + 1):
        lines = [
            f"{(end - timedelta(seconds=row)).isoformat()},office,zone_{run},true,binary_sensor.z{run}"
            for row in range(IMPORTED)
        ]
        text = "\n".join(["timestamp,room,zone,state,source_entity", *lines, ""])
        Path(directory, f"{run}.csv").write_text(text, encoding="utf-8")
    return "{run}.csv"


def measure(environment: dict[str, str], directory: str) -> bool:
    """Measure all commands in turn, print the medians, and return whether no limit is exceeded."""
    limits = [
        Limit(("--help",), 0.5),
        *(Limit(tuple(words.split()), 1.5) for words in QUERIES),
        Limit(("import", readings(directory)), 1.5, 1.0),
    ]
    times: dict[tuple[str, ...], list[float]] = {BASE: [], **{limit.arguments: [] for limit in limits}}
    for run in range(ROUNDS + 1):  # the first run compiles bytecode
        for arguments, found in times.items():
            given = tuple(argument.format(run=run) for argument in arguments)
            command = given if arguments == BASE else ("occupancy-db", *given)
            found.append(seconds(command, environment, directory))
    medians = {arguments: statistics.median(found[1:]) for arguments, found in times.items()}
    base = medians[BASE]
    print(f"{base:7.3f} s  1.00  {' '.join(BASE)}")
    kept = True
    for limit in limits:
        took = medians[limit.arguments]
        most = limit.ratio * base + limit.more
        kept = kept and took <= most
        words = " ".join(limit.arguments)
        print(f"{took:7.3f} s  {took / base:4.2f}  occupancy-db {words} (at most {most:.3f} s)")
    return kept


def main() -> None:
    """Start a server, migrate it, measure."""
    cluster = Cluster()
    cluster.start()
    try:
        make_users(cluster)
        cluster.execute(f"CREATE DATABASE bench_cli OWNER {OWNER} TEMPLATE template0")
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "POSTGRES_HOST": cluster.host,
            "POSTGRES_PORT": str(cluster.port),
            "POSTGRES_DB": "bench_cli",
            "POSTGRES_USER": OWNER,
            "POSTGRES_PASSWORD": PASSWORD,
        }
        with tempfile.TemporaryDirectory() as directory:
            seconds(("occupancy-db", "migrate"), environment, directory)
            kept = measure(environment, directory)
    finally:
        cluster.stop()
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
