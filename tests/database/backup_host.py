"""The parts of a provisioned host that backups need: a database with its users, passwords and directories."""

import itertools
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg2.extensions
import pytest

from tests.database.cluster import Cluster
from tests.database.conftest import OWNER, Database
from tests.database.prefork import Prefork
from tests.database.users import NAMES, grant, password
from tests.waiting import wait_for

LIVE = "house"

_numbers = itertools.count()


@dataclass(frozen=True)
class BackupHost:
    """The live database, and the directories of its backups."""

    database: Database
    directory: Path

    @property
    def sets(self) -> Path:
        return self.directory / "sets"

    @property
    def rehearsals(self) -> Path:
        return self.directory / "rehearsals"

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def cluster(self) -> Cluster:
        return self.database.cluster

    def changes(self, user: str, **more: Any) -> dict[str, Any]:
        """Return the variables that differ from the environment of the owner."""
        return {
            "PATH": f"{self.cluster.bin}{os.pathsep}{self.database.environment()['PATH']}",
            "TMPDIR": self.temporary,
            "POSTGRES_HOST": self.cluster.directory,  # the socket
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD": None,
            "POSTGRES_PASSWORD_FILE": self.secrets / user,
            "BACKUP_DIR": self.sets,
            "BACKUP_REHEARSAL_DIR": self.rehearsals,
            "BACKUP_SECRETS_DIR": self.secrets,
            **more,
        }

    def cli(self, *arguments: str, **more: Any) -> CompletedProcess[str]:
        """Run a command as the database user that runs it on a host."""
        return self.database.cli(*arguments, **self.changes(user_of(arguments), **more))

    def backup(self, *arguments: str, **more: Any) -> CompletedProcess[str]:
        return self.cli("backup", *arguments, **more)

    def restore(self, name: str, *arguments: str, **more: Any) -> CompletedProcess[str]:
        return self.cli("restore", name, "--confirm", LIVE, *arguments, **more)

    def states(self) -> dict[str, str]:
        """The state of each set, the oldest first."""
        listed = self.backup("list", "--json")
        assert listed.returncode == 0, listed.stderr
        return {one["id"]: one["state"] for one in json.loads(listed.stdout)["sets"]}

    def connect(self, user: str, database: str = LIVE, **options: Any) -> psycopg2.extensions.connection:
        return self.cluster.connect(database, user, password(user), **options)

    def query(self, query: str, database: str = LIVE) -> list[tuple[Any, ...]]:
        """The rows that the superuser gets."""
        connection = self.cluster.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()
        finally:
            connection.close()

    def databases(self) -> set[str]:
        rows = self.query(f"SELECT datname FROM pg_database WHERE datname LIKE '{LIVE}%'", "postgres")
        return {row[0] for row in rows}

    def fingerprint(self, schema: str = "%") -> dict[str, tuple[int, str]]:
        """Return the number and a hash of the rows of each table, without using the product's code.

        An hour may end between two calls, and upkeep then moves its readings to the sums: the statistics that
        clients read take the place of the tables of the hourly sums.
        """
        # A restore keeps the checks of the clock, which are the host's.
        sums = {"hourly.sums", "hourly.marks", "hourly.occupied", "hourly.occupied_marks", "hourly.watermark"}
        skipped = {*sums, "hourly.clock"}
        tables = " UNION ALL ".join(
            f"SELECT '{name}', count(*), md5(string_agg(t::text, ';' ORDER BY t::text)) FROM ONLY {name} AS t"
            for name in self._tables(schema)
            if name not in skipped
        )
        if self.query("SELECT to_regclass('sensor_reading_stats')") != [(None,)]:
            tables += f" UNION ALL {HOURS}"
        return {name: (count, digest) for name, count, digest in self.query(tables)}

    def count_rows(self) -> int:
        """Return the number of rows of all tables."""
        counts = " UNION ALL ".join(f"SELECT count(*) FROM ONLY {name}" for name in self._tables("%"))
        return int(sum(count for (count,) in self.query(counts)))

    def _tables(self, schema: str) -> list[str]:
        rows = self.query(
            "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
            f"WHERE relkind = 'r' AND nspname !~ '^pg_|^information_schema$' AND nspname LIKE '{schema}'"
        )
        return [name for (name,) in rows]

    def unfinished(self) -> list[str]:
        """Return the files that interrupted commands have left."""
        places = [self.sets.glob(".partial-*"), self.rehearsals.iterdir(), self.temporary.iterdir()]
        return [str(path) for place in places for path in place]


# Without the averages, whose last digits depend on the order of the rows.
HOURS = """
    SELECT 'sensor_reading_stats', count(*), md5(string_agg(
        concat_ws(' ', room, hour, reading_count, active_zones, first_reading, last_reading), ';'
        ORDER BY room, hour
    ))
    FROM sensor_reading_stats
"""


def user_of(arguments: tuple[str, ...]) -> str:
    """The user of the service that /usr/local/bin/occupancy-db runs a command in."""
    return "occupancy_restore" if arguments[0].startswith(("restore", "erase")) else "occupancy_backup"


@dataclass(frozen=True)
class PreparedSets:
    """The content of a new BackupHost: a filled database, and two verified sets of it (one is older)."""

    database: str
    sets: Path
    old: str
    new: str


def make_directories(database: Database, directory: Path) -> BackupHost:
    """Make the directories and password files of a BackupHost, without backup sets."""
    backup_host = BackupHost(database, directory)
    directory.mkdir()
    for path in (backup_host.sets, backup_host.secrets):
        path.mkdir(0o700)
    # As root, the tests run PostgreSQL as another user, who needs access to these two.
    for path in (backup_host.rehearsals, backup_host.temporary):
        path.mkdir(0o700)
        if database.cluster.user:
            os.chown(path, pwd.getpwnam(database.cluster.user).pw_uid, -1)
    for name in NAMES:
        path = backup_host.secrets / name
        path.touch(0o600)
        path.write_text(password(name) + "\n")
    return backup_host


def drop(cluster: Cluster) -> None:
    cluster.execute(
        *(
            f"DROP DATABASE IF EXISTS {LIVE}{suffix} WITH (FORCE)"
            for suffix in ("", "_restoring", "_replaced")
        )
    )


def _prepare(cluster: Cluster, template: str, prefork: Prefork, home: Path) -> PreparedSets:
    directory = cluster.directory / "stock"
    database = Database(cluster, LIVE, home, prefork)
    backup_host = make_directories(database, directory)
    cluster.execute(f"CREATE DATABASE {LIVE} OWNER {OWNER} TEMPLATE {template} STRATEGY FILE_COPY")
    grant(cluster, LIVE)
    ids = []
    for number in range(2):
        until = datetime.now(UTC) - timedelta(days=4 - number)
        for command in (f"seed --days 1 --until {until:%Y-%m-%d}", "partitions maintain"):
            done = database.cli(*command.split())
            assert done.returncode == 0, done.stderr
        made = backup_host.backup("create", "--json")
        assert made.returncode == 0, made.stderr
        ids.append(json.loads(made.stdout)["id"])
        # The ID contains the time in seconds: the second set must be of a later second.
        wait_for(
            lambda: f"{LIVE}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-" > ids[-1],
            "the second after that of the set",
        )
    assert ids == sorted(ids)
    cluster.execute(f"CREATE DATABASE filled OWNER {OWNER} TEMPLATE {LIVE} STRATEGY FILE_COPY")
    drop(cluster)
    return PreparedSets("filled", backup_host.sets, *ids)


_prepared: dict[str, PreparedSets] = {}


@pytest.fixture(scope="session")
def prepared(
    cluster: Cluster, template: str, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory
) -> PreparedSets:
    # Each module that imports this fixture has one of its own; they share the sets of the cluster.
    key = str(cluster.directory)
    if key not in _prepared:
        _prepared[key] = _prepare(cluster, template, prefork, tmp_path_factory.mktemp("stock"))
    return _prepared[key]


@pytest.fixture
def backup_host(
    cluster: Cluster, prepared: PreparedSets, prefork: Prefork, tmp_path: Path
) -> Iterator[BackupHost]:
    """A host for one test: two verified sets, and a live database with the content of the newer one."""
    with make_backup_host(cluster, prepared, prefork, tmp_path) as made:
        yield made


@contextmanager
def make_backup_host(
    cluster: Cluster, prepared: PreparedSets, prefork: Prefork, home: Path
) -> Iterator[BackupHost]:
    backup_host = make_directories(
        Database(cluster, LIVE, home, prefork), cluster.directory / f"host-{next(_numbers)}"
    )
    shutil.copytree(prepared.sets, backup_host.sets, dirs_exist_ok=True)
    cluster.execute(f"CREATE DATABASE {LIVE} OWNER {OWNER} TEMPLATE {prepared.database} STRATEGY FILE_COPY")
    grant(cluster, LIVE)
    yield backup_host
    drop(cluster)
    shutil.rmtree(backup_host.directory)


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and content of every file below a directory."""
    return {
        str(file.relative_to(path)): (stat.S_IMODE(file.lstat().st_mode), file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }
