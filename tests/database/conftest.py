"""Fixtures: one server for the session, one database for each test that asks for it."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest

from occupancy_db.months import following, month_of
from occupancy_db.schema.runner import script_directory
from occupancy_db.settings import Environment, Settings
from tests.database.cluster import Cluster
from tests.database.prefork import PROGRAMS, Prefork
from tests.database.users import OWNER as OWNER
from tests.database.users import PASSWORD as PASSWORD
from tests.database.users import ROOT as ROOT
from tests.database.users import make_users
from tests.waiting import LIMIT

REVISIONS = [revision.revision for revision in script_directory().walk_revisions()][::-1]
HEAD = REVISIONS[-1]

_numbers = itertools.count()

MONTH_END = timedelta(minutes=12)
"""Time before the end of a month in which a test run waits for the next month."""


def wait_for_new_month() -> None:
    """Wait if the month ends within the time of a run: the tests expect that the month does not change."""
    now = datetime.now(UTC)
    left = datetime.combine(following(month_of(now), 1), datetime.min.time(), UTC) - now
    if left < MONTH_END:
        print(f"the month ends in {left.total_seconds():.0f} s: waiting for the new one", file=sys.__stderr__)
        time.sleep(left.total_seconds() + 1)


wait_for_new_month()  # before the modules of the tests are imported, which read the clock


@dataclass(frozen=True)
class Database:
    """A database, and commands with the environment of a user's shell."""

    cluster: Cluster
    name: str
    directory: Path
    prefork: Prefork

    def settings(self) -> Settings:
        return Settings(
            environment=Environment.DEVELOPMENT,
            postgres_host=self.cluster.host,
            postgres_port=self.cluster.port,
            postgres_db=self.name,
            postgres_user=OWNER,
            postgres_password=PASSWORD,
        )

    def environment(self, **changes: Any) -> dict[str, str]:
        """Return an environment without the developer's variables, so that results do not depend on them."""
        variables: dict[str, Any] = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.directory),
            "POSTGRES_HOST": self.cluster.host,
            "POSTGRES_PORT": str(self.cluster.port),
            "POSTGRES_DB": self.name,
            "POSTGRES_USER": OWNER,
            "POSTGRES_PASSWORD": PASSWORD,
            **changes,
        }
        return {name: str(value) for name, value in variables.items() if value is not None}

    def run(
        self, *command: str, stdin: str = "", cwd: Path | None = None, **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would, in a directory without a .env."""
        env, cwd = self.environment(**changes), cwd or self.directory
        if command[0] in PROGRAMS and cwd == self.directory:
            return self.prefork.run(command, env, cwd, stdin)
        return subprocess.run(
            command, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def cli(self, *arguments: str, stdin: str = "", **changes: Any) -> subprocess.CompletedProcess[str]:
        return self.run("occupancy-db", *arguments, stdin=stdin, **changes)

    def alembic(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("alembic", "-c", str(ROOT / "alembic.ini"), *arguments)

    def psql(self, script: str) -> None:
        """Run a script as the owner; an error fails the test."""
        self._program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", input=script)

    def dump(self, *arguments: str) -> str:
        """Return the schema and rows, dumped as the owner."""
        return self._program("pg_dump", *arguments)

    def _program(self, program: str, *arguments: str, input: str | None = None) -> str:  # noqa: A002
        result = subprocess.run(
            [
                self.cluster.bin / program, *arguments,
                "-h", self.cluster.host, "-p", str(self.cluster.port), "-U", OWNER, self.name,
            ],
            env={"PGPASSWORD": PASSWORD},
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def connect(self, **options: str) -> psycopg2.extensions.connection:
        return self.cluster.connect(self.name, OWNER, PASSWORD, **options)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.start()
    make_users(cluster)
    # In the tests the owner creates databases, and ten commands may run at once.
    cluster.execute(f"ALTER ROLE {OWNER} CREATEDB CONNECTION LIMIT -1")
    yield cluster
    cluster.stop()


def create(cluster: Cluster, name: str) -> None:
    """Create a database as on a provisioned host, where PUBLIC has no privileges."""
    cluster.execute(
        f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    )
    cluster.execute(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE USAGE ON TYPES FROM PUBLIC",
        database=name,
    )


@pytest.fixture(scope="session")
def template(cluster: Cluster, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database, copied for each test that needs one."""
    name = "migrated"
    create(cluster, name)
    result = Database(cluster, name, tmp_path_factory.mktemp("template"), prefork).cli("migrate")
    assert result.returncode == 0, result.stderr
    return name


@pytest.fixture(scope="session")
def prefork() -> Iterator[Prefork]:
    prefork = Prefork()
    yield prefork
    prefork.close()


@pytest.fixture
def empty(cluster: Cluster, tmp_path: Path, prefork: Prefork) -> Iterator[Database]:
    """A database without a schema."""
    name = f"empty_{next(_numbers)}"
    create(cluster, name)
    yield Database(cluster, name, tmp_path, prefork)
    cluster.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database(cluster: Cluster, template: str, tmp_path: Path, prefork: Prefork) -> Iterator[Database]:
    """A database at the newest revision, without rows."""
    name = f"test_{next(_numbers)}"
    cluster.execute(
        f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template} STRATEGY FILE_COPY",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    )
    yield Database(cluster, name, tmp_path, prefork)
    cluster.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def cursor(database: Database) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor of the owner in autocommit mode."""
    connection = database.connect()
    with connection.cursor() as cursor:
        yield cursor
    connection.close()
