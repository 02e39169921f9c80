"""The command occupancy-users: it puts right what users change in their logins, and ends their sessions."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from tests.database.cluster import SUPERUSER_PASSWORD, Cluster
from tests.database.users import OWNER, ROOT, logins, password
from tests.waiting import wait_for

PROGRAM = ROOT / "roles/access/files/occupancy-users.py"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def put_right(cluster: Cluster, tmp_path: Path) -> Iterator[Run]:
    """Run the command as the job does, with other settings of users if they are given by name."""
    (tmp_path / "secrets").mkdir()
    users = logins()
    for user in users:
        (tmp_path / "secrets" / user["name"]).write_text(password(user["name"]))
    own = [f"ALTER ROLE {OWNER} IN DATABASE {name} RESET ALL" for name in databases(cluster)]
    cluster.execute(*own)  # of other tests

    def run(*grace: str, **settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        changed = [user | {"settings": settings.get(user["name"], user["settings"])} for user in users]
        (tmp_path / "users.json").write_text(json.dumps(changed))
        return subprocess.run(
            [sys.executable, PROGRAM, tmp_path, cluster.directory, *grace],
            env=os.environ | {"PGPASSWORD": SUPERUSER_PASSWORD, "PGPORT": str(cluster.port)},
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    assert run().returncode in (0, 13)  # the settings and passwords of the other tests


def databases(cluster: Cluster) -> list[str]:
    return [name for (name,) in query(cluster, "SELECT datname FROM pg_database WHERE datallowconn")]


def query(cluster: Cluster, statement: str) -> list[tuple[Any, ...]]:
    connection = cluster.connect("postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def as_user(cluster: Cluster, user: str, *statements: str) -> list[tuple[Any, ...]]:
    connection = cluster.connect("postgres", user, password(user))
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_nothing_is_done_where_nothing_was_changed(put_right: Run) -> None:
    done = put_right()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER ROLE occupancy_app SET statement_timeout = 0", "statement_timeout=0"),
        (
            "ALTER ROLE occupancy_app SET default_transaction_read_only = on",
            "default_transaction_read_only=on",
        ),
        ("ALTER ROLE occupancy_app RESET ALL", "some were removed"),
        ("ALTER ROLE occupancy_app RESET lock_timeout", "some were removed"),
        (
            "ALTER ROLE occupancy_app IN DATABASE postgres SET lock_timeout = 0",
            "lock_timeout=0 in postgres",
        ),
    ],
)
def test_settings_that_a_user_has_changed_are_set_again(
    cluster: Cluster, put_right: Run, change: str, named: str
) -> None:
    before = query(cluster, "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2")
    as_user(cluster, "occupancy_app", change)
    done = put_right()
    assert (done.returncode, done.stderr) == (13, "")
    assert f"<4>user occupancy_app had changed its settings: {named}" in done.stdout
    limits = as_user(cluster, "occupancy_app", "SELECT current_setting('statement_timeout')")
    assert limits == [("1min",)]
    after = query(cluster, "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2")
    assert [(*key, sorted(config)) for *key, config in after] == [
        (*key, sorted(config)) for *key, config in before
    ]
    assert put_right().returncode == 0


def test_a_password_that_a_user_has_changed_is_set_again(cluster: Cluster, put_right: Run) -> None:
    as_user(cluster, "occupancy_app", "ALTER ROLE occupancy_app PASSWORD 'of a burglar'")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        as_user(cluster, "occupancy_app", "SELECT 1")
    done = put_right()
    assert done.returncode == 13
    assert "<4>user occupancy_app had changed its password" in done.stdout
    assert "burglar" not in done.stdout + done.stderr
    assert as_user(cluster, "occupancy_app", "SELECT 1") == [(1,)]
    assert put_right().returncode == 0


SESSION = "SELECT state FROM pg_stat_activity WHERE pid = {}"


def wait_until_ended(cluster: Cluster, pid: int) -> None:
    wait_for(lambda: query(cluster, SESSION.format(pid)) == [], f"the end of session {pid}")


@pytest.mark.parametrize("user", ["occupancy_app", "occupancy_readonly", "occupancy_monitor"])
def test_an_idle_transaction_that_has_lifted_its_limit_is_ended(
    cluster: Cluster, put_right: Run, user: str
) -> None:
    connection = cluster.connect("postgres", user, password(user), application_name="a forgotten shell")
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = 0")
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1")
    pid = connection.info.backend_pid
    assert query(cluster, SESSION.format(pid)) == [("idle in transaction",)]
    assert put_right().returncode == 0  # it is younger than the limit
    assert query(cluster, SESSION.format(pid)) == [("idle in transaction",)]
    short = {"idle_in_transaction_session_timeout": "1ms"}
    done = put_right("0", **{user: short})
    assert done.returncode == 13
    assert f'<4>ended pid {pid}, "a forgotten shell", user {user}: idle in transaction for' in done.stdout
    wait_until_ended(cluster, pid)


def test_a_statement_that_has_lifted_its_limit_is_ended(cluster: Cluster, put_right: Run) -> None:
    user = "occupancy_readonly"
    connection = psycopg2.connect(
        host=cluster.host, port=cluster.port, dbname="postgres", user=user, password=password(user), async_=1
    )
    pid = start(connection, "SET statement_timeout = 0; SELECT pg_sleep(3600)")
    wait_for(lambda: query(cluster, SESSION.format(pid)) == [("active",)], "the statement")
    done = put_right("0", **{user: {"statement_timeout": "1ms"}})
    assert f'ended pid {pid}, "", user {user}: a statement of' in done.stdout
    wait_until_ended(cluster, pid)


def start(connection: Any, statement: str) -> int:
    wait_for(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "the connection")
    connection.cursor().execute(statement)
    connection.poll()
    return int(connection.info.backend_pid)


def test_sessions_of_the_owner_are_not_ended(cluster: Cluster, put_right: Run) -> None:
    cluster.execute(f"CREATE DATABASE of_the_owner OWNER {OWNER}")
    connection = cluster.connect("postgres", OWNER, password(OWNER))
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        done = put_right("0", **{OWNER: {"idle_in_transaction_session_timeout": "1ms"}})
        assert "ended" not in done.stdout
        cursor.execute("SELECT 1")
    connection.close()
    cluster.execute("DROP DATABASE of_the_owner")
