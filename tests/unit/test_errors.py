"""Each failure has one line and its own exit code; most are tested without a server."""

import socket
import ssl
from typing import Any

import asyncpg
import pytest
from alembic.util import CommandError
from pydantic import SecretStr

from occupancy_db.errors import DatabaseError, ExitCode, explain, explain_connection
from occupancy_db.settings import Settings


def untrusted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (untrusted(20, "unable to get local issuer certificate"), ExitCode.TLS, "is not trusted"),
        (untrusted(10, "certificate has expired"), ExitCode.TLS, "certificate has expired"),
        (untrusted(62, "Hostname mismatch"), ExitCode.TLS, "is not for db.example"),
        (untrusted(64, "IP address mismatch"), ExitCode.TLS, "is not for db.example"),
        (ssl.SSLError(1, "[SSL: UNSUPPORTED_PROTOCOL]"), ExitCode.TLS, "handshake failed"),
        (ConnectionError("PostgreSQL server rejected SSL upgrade"), ExitCode.TLS, "does not speak TLS"),
        (TimeoutError(), ExitCode.UNREACHABLE, "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), ExitCode.UNREACHABLE, "does not resolve"),
        (PermissionError(13, "Permission denied"), ExitCode.UNREACHABLE, "denies access to the socket"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1'), [Errno 111] Connect call ..."
            ),
            ExitCode.UNREACHABLE,
            "connection refused",
        ),
        (OSError(113, "No route to host"), ExitCode.UNREACHABLE, "No route to host"),
        (asyncpg.TooManyConnectionsError("too many clients"), ExitCode.UNREACHABLE, "too many clients"),
        (asyncpg.CannotConnectNowError("starting up"), ExitCode.UNREACHABLE, "starting up"),
        (asyncpg.ConnectionDoesNotExistError("closed"), ExitCode.UNREACHABLE, "closed"),
        (asyncpg.AdminShutdownError("terminating"), ExitCode.UNREACHABLE, "terminating"),
        (
            asyncpg.InvalidAuthorizationSpecificationError('no pg_hba.conf entry for host "10.0.0.1"'),
            ExitCode.AUTHENTICATION,
            "no pg_hba.conf entry",
        ),
    ],
)
def test_a_failed_connection_names_the_cause_and_the_server(
    error: BaseException, code: ExitCode, words: str
) -> None:
    settings = Settings(
        postgres_host="db.example", postgres_db="home", postgres_password=SecretStr("hunter2-hunter2")
    )
    known = explain_connection(error, settings)
    assert known.code is code
    assert "db.example:5432/home as occupancy" in str(known)
    assert words in known.what
    assert known.hint.endswith(".")
    assert "\n" not in str(known)
    assert "hunter2" not in str(known)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.LockNotAvailableError("canceling statement due to lock timeout"), ExitCode.LOCKED),
        (asyncpg.DeadlockDetectedError("deadlock detected"), ExitCode.LOCKED),
        # 9 is not alerted on, because the next run of a job tries again.
        (asyncpg.QueryCanceledError("canceling statement due to statement timeout"), ExitCode.FAILED),
        (asyncpg.QueryCanceledError("canceling statement due to user request"), ExitCode.FAILED),
        (asyncpg.InsufficientPrivilegeError("permission denied for table"), ExitCode.PERMISSION),
        (asyncpg.UndefinedTableError('relation "x" does not exist'), ExitCode.FAILED),
        (asyncpg.AdminShutdownError("terminating connection"), ExitCode.UNREACHABLE),
        (asyncpg.CrashShutdownError("terminating connection"), ExitCode.UNREACHABLE),
        (asyncpg.InterfaceError("connection is closed"), ExitCode.UNREACHABLE),
        (asyncpg.InternalClientError("cannot switch to state 12; another op"), ExitCode.UNREACHABLE),
        (asyncpg.IdleSessionTimeoutError("terminating connection"), ExitCode.UNREACHABLE),
        (asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"), ExitCode.UNREACHABLE),
        (asyncpg.CannotConnectNowError("the database system is starting up"), ExitCode.UNREACHABLE),
        (asyncpg.DatabaseDroppedError("terminating connection"), ExitCode.DATABASE_MISSING),
        (ConnectionResetError(104, "Connection reset by peer"), ExitCode.UNREACHABLE),
        (TimeoutError(), ExitCode.UNREACHABLE),
        (CommandError("Can't locate revision identified by 'x'"), ExitCode.UNSUITABLE),
        (CommandError("Multiple head revisions are present"), ExitCode.FAILED),
        (PermissionError(1, "Operation not permitted", "/var/lib/occupancy/backups"), ExitCode.PERMISSION),
        (OSError(30, "Read-only file system", "/app/migrations/versions/003.py"), ExitCode.PERMISSION),
        (OSError(28, "No space left on device", "/var/lib/occupancy/backups"), ExitCode.NO_SPACE),
        (OSError(20, "Not a directory", "/var/lib/occupancy/backups"), ExitCode.FAILED),
        (asyncpg.DiskFullError("could not extend file"), ExitCode.NO_SPACE),
        (DatabaseError(ExitCode.REFUSED, "no", "Ask."), ExitCode.REFUSED),
    ],
)
def test_the_cause_of_a_wrapped_exception_is_recognised(error: Exception, code: ExitCode) -> None:
    wrapped = RuntimeError("wrapper")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        known = explain(seen)
        assert known is not None
        assert known.code is code


def test_a_database_that_pg_hba_does_not_list_is_named() -> None:
    error = asyncpg.InvalidAuthorizationSpecificationError(
        'no pg_hba.conf entry for host "127.0.0.1", user "occupancy", database "hoem", SSL encryption'
    )
    known = explain_connection(error, Settings(postgres_db="hoem"))
    assert 'database "hoem" ' in known.what
    assert "POSTGRES_DB" in known.hint
    assert '"hoem" may not exist' in known.hint


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "Connect call failed"), FileNotFoundError(2, "No such file")]
)
def test_the_error_of_a_stopped_server_names_the_command_that_starts_it(error: OSError) -> None:
    hint = explain_connection(error, Settings()).hint
    assert "'make up'" in hint
    assert "docker compose --project-directory /opt/occupancy up --detach postgres" in hint


def test_an_unknown_exception_is_not_translated() -> None:
    assert explain(KeyError("bug")) is None


def test_exit_codes_are_an_interface() -> None:
    codes: dict[str, Any] = {code.name: code.value for code in ExitCode}
    assert codes == {
        "OK": 0, "FAILED": 1, "USAGE": 2, "CONFIGURATION": 3, "UNREACHABLE": 4, "AUTHENTICATION": 5, "TLS": 6,
        "DATABASE_MISSING": 7, "PERMISSION": 8, "LOCKED": 9, "REFUSED": 10,
        "NO_SPACE": 11, "DAMAGED": 12, "DIFFERENT": 13, "PROGRAM": 14, "UNSUITABLE": 15, "CLOCK": 16,
        "WARNING": 20, "BAD": 21,
    }  # fmt: skip
