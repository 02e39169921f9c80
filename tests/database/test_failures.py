"""A failed connection: one clear line, its own exit code, no traceback, no secret."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from occupancy_db.errors import ExitCode
from tests.database.conftest import Database


@pytest.fixture(autouse=True)
def roles(cluster_roles: None) -> None:
    """All tests here need the roles."""


@pytest.fixture(scope="module")
def cluster_roles(request: pytest.FixtureRequest) -> Iterator[None]:
    cluster = request.getfixturevalue("cluster")
    cluster.execute(
        "CREATE ROLE turned_away LOGIN PASSWORD 'x'",
        "CREATE ROLE no_connect LOGIN PASSWORD 'x'",
    )
    yield
    cluster.execute("DROP ROLE turned_away", "DROP ROLE no_connect")


SECRET = "do-not-print-me"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"POSTGRES_PASSWORD": SECRET}, ExitCode.AUTHENTICATION, "wrong password or unknown user"),
        ({"POSTGRES_PASSWORD": None}, ExitCode.AUTHENTICATION, "none is set"),
        ({"POSTGRES_USER": "nobody_here"}, ExitCode.AUTHENTICATION, "wrong password or unknown user"),
        ({"POSTGRES_USER": "turned_away"}, ExitCode.AUTHENTICATION, "pg_hba.conf rejects connection"),
        (
            {"POSTGRES_USER": "no_connect", "POSTGRES_PASSWORD": "x"},
            ExitCode.PERMISSION,
            "permission denied for database",
        ),
        ({"POSTGRES_DB": "nowhere"}, ExitCode.DATABASE_MISSING, 'database "nowhere" does not exist'),
        ({"POSTGRES_PORT": "1"}, ExitCode.UNREACHABLE, "connection refused"),
        ({"POSTGRES_HOST": "no-such-host.invalid"}, ExitCode.UNREACHABLE, "does not resolve"),
        ({"POSTGRES_HOST": "/no/socket/here"}, ExitCode.UNREACHABLE, "no server listens"),
        ({"POSTGRES_SSLMODE": "require"}, ExitCode.TLS, "does not speak TLS"),
        ({"ENVIRONMENT": "production"}, ExitCode.TLS, "does not speak TLS"),
        (
            {"POSTGRES_SSLMODE": "verify-full", "POSTGRES_SSLROOTCERT": "/no/ca.crt"},
            ExitCode.CONFIGURATION,
            "POSTGRES_SSLROOTCERT",
        ),
        ({"POSTGRES_PORT": SECRET}, ExitCode.CONFIGURATION, "POSTGRES_PORT"),
        ({"POSTGRES_PASSWORD_FILE": "/no/file"}, ExitCode.CONFIGURATION, "not both"),
    ],
)
def test_a_failed_connection_is_reported_in_one_line_with_its_exit_code(
    database: Database, changes: dict[str, Any], code: ExitCode, words: str
) -> None:
    result = database.cli("test-connection", **changes)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert SECRET not in result.stderr
    if code is not ExitCode.CONFIGURATION:
        settings = database.environment(**changes)
        assert f"{settings['POSTGRES_HOST']}:{settings['POSTGRES_PORT']}/" in result.stderr
        assert f"as {settings['POSTGRES_USER']}:" in result.stderr


def test_a_server_that_is_not_postgresql_is_unreachable(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def hang_up() -> None:
            for _ in range(2):  # prefer tries twice
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        result = database.cli("test-connection", POSTGRES_PORT=str(server.getsockname()[1]))
    assert result.returncode == ExitCode.UNREACHABLE
    assert len(result.stderr.splitlines()) == 1


def test_errors_are_json_for_a_program(database: Database) -> None:
    for arguments in (["--json", "current"], ["current", "--json"]):
        result = database.cli(*arguments, POSTGRES_DB="nowhere")
        assert result.returncode == ExitCode.DATABASE_MISSING
        error = json.loads(result.stderr)["error"]
        assert error["exit_code"] == 7
        assert set(error) == {"exit_code", "reason", "what", "hint"}


def test_a_command_on_an_empty_database_names_migrate(empty: Database) -> None:
    for command in ("cleanup", "seed"):
        result = empty.cli(command)
        assert result.returncode == ExitCode.FAILED
        assert "occupancy-db migrate" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_reader_may_not_migrate(empty: Database) -> None:
    empty.cluster.execute(f"GRANT CONNECT ON DATABASE {empty.name} TO no_connect")
    empty.cluster.execute("GRANT USAGE ON SCHEMA public TO no_connect", database=empty.name)
    try:
        result = empty.cli("migrate", POSTGRES_USER="no_connect", POSTGRES_PASSWORD="x")
    finally:
        empty.cluster.execute("DROP OWNED BY no_connect", database=empty.name)
    assert result.returncode == ExitCode.PERMISSION
    assert "permission denied" in result.stderr
    assert len(result.stderr.splitlines()) == 1
