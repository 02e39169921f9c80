"""The scene of an attack: sessions of a restricted user, and what must go on beside them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions

from occupancy_db.errors import ExitCode
from tests.database.backup_host import LIVE, BackupHost
from tests.database.cluster import SUPERUSER_PASSWORD
from tests.database.users import ROOT, logins, password
from tests.waiting import wait_for

OPERATORS = [
    {"name": "planner", "role": "occupancy_app"},
    {"name": "grafana", "role": "occupancy_readonly"},
    {"name": "zabbix", "role": "occupancy_monitor"},
]
WRITERS = ("occupancy_app", "planner")
READERS = ("occupancy_readonly", "grafana")
MONITORS = ("occupancy_monitor", "zabbix")
EVERYBODY = (*WRITERS, *READERS, *MONITORS)

PUT_RIGHT = ROOT / "roles/access/files/occupancy-users.py"

READING = """
    INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity)
    VALUES (now(), 'office', 'desk', true, 'hostile'),
           (now() - interval '3 hours', 'office', 'desk', true, 'hostile')
"""

Connection = psycopg2.extensions.connection


class Scene:
    """The attacker's sessions, and the jobs of a host.

    Attributes:
        host: The host.
    """

    def __init__(self, host: BackupHost, directory: Path) -> None:
        self.host = host
        self._directory = directory
        self._open: list[Connection] = []
        self._limits: dict[str, dict[str, str]] = {}
        self._month = ""

    def close(self) -> None:
        """End all sessions, and undo what was changed."""
        for connection in self._open:
            with suppress(psycopg2.Error):
                connection.close()
        here = "application_name = 'attacker' AND pid <> pg_backend_pid()"
        self.superuser(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {here}")
        wait_for(
            lambda: self.superuser(f"SELECT 1 FROM pg_stat_activity WHERE {here}") == [],
            "the end of the attack",
        )
        self._limits = {}
        assert self.put_right("1h").returncode in (0, ExitCode.DIFFERENT)

    # The attacker

    def session(self, user: str, **options: Any) -> Connection:
        """Open a session of a user, as if it would never be closed."""
        connection = self.host.connect(user, application_name="attacker", **options)
        self._open.append(connection)
        return connection

    def run(self, user: str, *statements: str, session: Connection | None = None) -> Connection:
        """Run statements, each in autocommit mode, and keep the session."""
        connection = session or self.session(user)
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        return connection

    def begin(self, user: str, statement: str) -> int:
        """Start a statement, do not read its result, and return the process of the session."""
        connection = psycopg2.connect(
            host=self.host.cluster.host, port=self.host.cluster.port, dbname=LIVE, user=user,
            password=password(user), application_name="attacker", async_=1,
        )  # fmt: skip
        self._open.append(connection)
        wait_for(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "the connection")
        connection.cursor().execute(statement)
        connection.poll()
        return int(connection.info.backend_pid)

    # What is seen, and changed, as the superuser

    def superuser(self, query: str) -> list[tuple[Any, ...]]:
        return self.host.query(query)

    def wait_until(self, query: str, what: str) -> None:
        """Wait until a query of the superuser returns a true value."""
        wait_for(lambda: self.superuser(query)[0][0], what)

    def state(self, pid: int) -> dict[str, Any]:
        """The session as pg_stat_activity has it; empty after its end."""
        rows = self.superuser(f"SELECT to_json(a) FROM pg_stat_activity AS a WHERE pid = {pid}")
        return dict(rows[0][0]) if rows else {}

    def limit(self, user: str, setting: str, value: str) -> None:
        """Give a user another limit until the test ends, as the inventory would."""
        self._limits.setdefault(user, {})[setting] = value
        self.host.cluster.execute(f"ALTER ROLE {user} SET {setting} = '{value}'")

    # What must go on

    def write(self, user: str = "occupancy_app") -> None:
        """Insert readings of the open hour and of a closed one.

        Raises:
            psycopg2.Error: the writer was stopped.
        """
        connection = self.host.connect(user)
        try:
            with connection.cursor() as cursor:
                cursor.execute(READING)
        finally:
            connection.close()

    def drop_last_month(self) -> None:
        """Drop the partition of the last month, so that upkeep has something to create."""
        ((self._month,),) = self.superuser("""
            SELECT max(relname) FROM pg_class
            WHERE relispartition AND relkind = 'r' AND relname ~ '^sensor_readings_[0-9_]+$'
        """)
        self.host.cluster.execute(f"DROP TABLE {self._month}", database=LIVE)

    def maintain(self) -> subprocess.CompletedProcess[str]:
        """Run upkeep, which creates the month that drop_last_month() has dropped."""
        year, month = map(int, self._month[-7:].split("_"))
        now = datetime.now(UTC)
        ahead = 12 * (year - now.year) + month - now.month
        done = self.host.database.cli("partitions", "maintain", "--months-ahead", str(ahead))
        if done.returncode == 0:
            assert self.superuser(f"SELECT to_regclass('{self._month}') IS NOT NULL") == [(True,)]
        return done

    def back_up(self) -> subprocess.CompletedProcess[str]:
        """Make and verify a backup set, and remove the ones before it."""
        return self.host.backup("create", **{f"BACKUP_KEEP_{kind}": 0 for kind in KINDS}, BACKUP_KEEP_LAST=1)

    def put_right(self, grace: str = "0") -> subprocess.CompletedProcess[str]:
        """Run the hourly job occupancy-users."""
        users = [
            user | {"settings": user["settings"] | self._limits.get(user["name"], {})}
            for user in logins(OPERATORS)
        ]
        (self._directory / "users.json").write_text(json.dumps(users))
        secrets = self._directory / "secrets"
        secrets.mkdir(exist_ok=True)
        for user in users:
            (secrets / user["name"]).write_text(password(user["name"]))
        return subprocess.run(
            [sys.executable, PUT_RIGHT, self._directory, self.host.cluster.directory, grace],
            env=os.environ | {"PGPASSWORD": SUPERUSER_PASSWORD, "PGPORT": str(self.host.cluster.port)},
            capture_output=True,
            text=True,
            check=False,
        )


KINDS = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")


@contextmanager
def expect_error(code: str) -> Iterator[None]:
    """Expect exactly this SQLSTATE."""
    try:
        yield
    except psycopg2.Error as error:
        found = error.pgcode
        assert found == code, f"{found} instead of {code}: {error}"
    else:
        raise AssertionError(f"nothing was refused; {code} was expected")
