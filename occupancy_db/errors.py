"""Failures as one line and an exit code each."""

import asyncio
import errno
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
from pydantic import ValidationError

from occupancy_db.exit_codes import ExitCode as ExitCode
from occupancy_db.settings import Settings


class DatabaseError(Exception):
    """A failure that the user can act on.

    Attributes:
        code: The exit code of the command line.
        what: What failed and where, without secrets.
        hint: What to do next.
        details: More facts for programs; part of the JSON output.
    """

    def __init__(self, code: ExitCode, what: str, hint: str, details: dict[str, Any] | None = None) -> None:
        """Store the parts; ``str()`` joins ``what`` and ``hint`` in one line."""
        super().__init__(f"{what}. {hint}")
        self.details = details or {}
        self.code = code
        self.what = what
        self.hint = hint


class Reason(NamedTuple):
    """Why something failed: an exit code, one clause, and what to do next."""

    code: ExitCode
    what: str
    hint: str


_EXPLANATION = "_occupancy_db_explanation"
"""The attribute of an exception in which :func:`keep_explanation` keeps a DatabaseError."""

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_NAME_MISMATCH = frozenset({62, 64})

START_SERVER = (
    "Check POSTGRES_HOST and POSTGRES_PORT. To start the server, run 'make up' in the checkout, or "
    "'docker compose --project-directory /opt/occupancy up --detach postgres' on its host."
)


def explain_connection(error: BaseException, settings: Settings) -> DatabaseError:
    """Translate a failed attempt to connect.

    Args:
        error: The exception of asyncpg, the operating system or OpenSSL.
        settings: The settings that were used.
    """
    reason = (
        _server_reason(error, settings) or _tls_reason(error, settings) or _network_reason(error, settings)
    )
    return DatabaseError(reason.code, f"cannot connect to {settings.where}: {reason.what}", reason.hint)


def _server_reason(error: BaseException, settings: Settings) -> Reason | None:
    """The answers of a PostgreSQL server to a connection request."""
    match error:
        case asyncpg.InvalidPasswordError() if settings.postgres_password is None:
            return Reason(
                ExitCode.AUTHENTICATION,
                "the server asks for a password and none is set",
                "Set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE.",
            )
        case asyncpg.InvalidPasswordError():
            # The server gives the same answer for an unknown role, on purpose.
            return Reason(
                ExitCode.AUTHENTICATION,
                "wrong password or unknown user",
                "Check POSTGRES_USER and POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE.",
            )
        case asyncpg.InvalidAuthorizationSpecificationError() if "pg_hba.conf" in str(error):
            # The server checks pg_hba.conf before it looks for the database, so that it cannot say which.
            return Reason(
                ExitCode.AUTHENTICATION,
                f'pg_hba.conf does not let user "{settings.postgres_user}" connect to database '
                f'"{settings.database}" from here ({_sentence(error)})',
                f"Check POSTGRES_DB: pg_hba.conf lists the databases of the server, and "
                f'"{settings.database}" may not exist. Check POSTGRES_USER and POSTGRES_SSLMODE too.',
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return Reason(
                ExitCode.AUTHENTICATION,
                _sentence(error),
                "Check POSTGRES_USER, POSTGRES_SSLMODE and the rules in the server's pg_hba.conf.",
            )
        case asyncpg.InvalidCatalogNameError():
            return Reason(
                ExitCode.DATABASE_MISSING,
                f'database "{settings.database}" does not exist',
                "Create it with 'occupancy-db init', or correct POSTGRES_DB.",
            )
        case asyncpg.InsufficientPrivilegeError():
            hint = "Ask the owner of the database for the privilege."
            return Reason(ExitCode.PERMISSION, _sentence(error), hint)
        case (
            asyncpg.TooManyConnectionsError()
            | asyncpg.PostgresConnectionError()
            | asyncpg.CannotConnectNowError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
        ):
            return Reason(ExitCode.UNREACHABLE, _sentence(error), "Try again in a moment.")
        case asyncpg.PostgresError():
            return Reason(ExitCode.FAILED, _sentence(error), "See the server's log.")
    return None


def _tls_reason(error: BaseException, settings: Settings) -> Reason | None:
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _NAME_MISMATCH:
            return Reason(
                ExitCode.TLS,
                f"the server's certificate is not for {settings.postgres_host}",
                "Use the name in the certificate as POSTGRES_HOST, or have the certificate reissued.",
            )
        case ssl.SSLCertVerificationError():
            return Reason(
                ExitCode.TLS,
                f"the server's certificate is not trusted ({error.verify_message})",
                "Set POSTGRES_SSLROOTCERT to the CA that signed it.",
            )
        case ssl.SSLError():
            return Reason(
                ExitCode.TLS,
                f"the TLS handshake failed ({_sentence(error)})",
                "Check that server and client share a TLS version (1.2 or newer).",
            )
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return Reason(
                ExitCode.TLS,
                "the server does not speak TLS",
                f"Enable ssl on the server, or choose a weaker POSTGRES_SSLMODE than {settings.sslmode}.",
            )
    return None


def _network_reason(error: BaseException, settings: Settings) -> Reason:
    match error:
        case socket.gaierror():
            what = f"the name {settings.postgres_host} does not resolve"
            return Reason(ExitCode.UNREACHABLE, what, "Check POSTGRES_HOST.")
        case TimeoutError():
            hint = "Check POSTGRES_HOST, POSTGRES_PORT and the firewalls between here and the server."
            return Reason(ExitCode.UNREACHABLE, "no answer in time", hint)
        case FileNotFoundError():
            return Reason(ExitCode.UNREACHABLE, "no server listens on this socket", START_SERVER)
        case PermissionError():
            hint = "Run the command as a user who may access the socket's directory."
            return Reason(ExitCode.UNREACHABLE, "the operating system denies access to the socket", hint)
        case _:
            what = "connection refused" if _refused(error) else _sentence(error)
            return Reason(ExitCode.UNREACHABLE, what, START_SERVER)


def keep_explanation(error: Exception, explanation: DatabaseError) -> None:
    """Attach the explanation of a failure to its exception: as a note, and for :func:`explain`."""
    error.add_note(str(explanation))
    setattr(error, _EXPLANATION, explanation)


def explain(error: BaseException) -> DatabaseError | None:
    """Translate a failure inside a command.

    Args:
        error: Any exception; its causes are examined too.

    Returns:
        None for an exception that is not a known failure of SQLAlchemy, asyncpg, Alembic, pydantic or the
        operating system.
    """
    for cause in _causes(error):
        if isinstance(cause, DatabaseError):
            return cause
        kept = getattr(cause, _EXPLANATION, None)
        if isinstance(kept, DatabaseError):
            return kept
        reason = _statement_reason(cause) or _client_reason(cause)
        if reason is not None:
            return DatabaseError(*reason)
    return None


def _statement_reason(cause: BaseException) -> Reason | None:
    """The errors of PostgreSQL and asyncpg while a statement runs."""
    match cause:
        case asyncpg.QueryCanceledError():
            hint = "A limit such as statement_timeout ended it, or an administrator: see the server's log."
            return Reason(ExitCode.FAILED, _sentence(cause), hint)
        case asyncpg.LockNotAvailableError() | asyncpg.DeadlockDetectedError():
            hint = "Another session holds the lock: see pg_stat_activity, then try again."
            return Reason(ExitCode.LOCKED, _sentence(cause), hint)
        case asyncpg.InsufficientPrivilegeError():
            hint = "Run as the owner of the database, or ask for the privilege."
            return Reason(ExitCode.PERMISSION, _sentence(cause), hint)
        case (
            asyncpg.UndefinedTableError()
            | asyncpg.UndefinedObjectError()
            | asyncpg.UndefinedFunctionError()
            | asyncpg.InvalidSchemaNameError()
        ):
            hint = "Bring the schema up to date with 'occupancy-db migrate'."
            return Reason(ExitCode.FAILED, _sentence(cause), hint)
        case (
            asyncpg.DuplicateTableError() | asyncpg.DuplicateObjectError() | asyncpg.DuplicateFunctionError()
        ):
            hint = (
                "The database contains objects that these migrations did not create: use an empty database."
            )
            return Reason(ExitCode.FAILED, _sentence(cause), hint)
        case asyncpg.DatabaseDroppedError():
            hint = "Create it with 'occupancy-db init', or restore a backup set."
            return Reason(ExitCode.DATABASE_MISSING, _sentence(cause), hint)
        case (
            asyncpg.PostgresConnectionError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
            | asyncpg.CannotConnectNowError()
            | asyncpg.IdleSessionTimeoutError()
            | asyncpg.IdleInTransactionSessionTimeoutError()
        ):
            what = f"the connection was lost: {_sentence(cause)}"
            return Reason(ExitCode.UNREACHABLE, what, "Check the server's log, then try again.")
        # asyncpg raises these after the server has ended the session between two statements.
        case asyncpg.InterfaceError() | asyncpg.InternalClientError() if any(
            words in str(cause) for words in ("connection is closed", "cannot switch to state")
        ):
            hint = "Check the server's log, then try again."
            return Reason(ExitCode.UNREACHABLE, "the connection was lost", hint)
        case asyncpg.DiskFullError():
            return Reason(ExitCode.NO_SPACE, _sentence(cause), "Free some space, then try again.")
        case asyncpg.PostgresError():
            return Reason(ExitCode.FAILED, _sentence(cause), "Nothing was changed by the failed step.")
    return None


def _client_reason(cause: BaseException) -> Reason | None:
    """The errors of pydantic, Alembic and the operating system."""
    match cause:
        case ValidationError():
            return Reason(
                ExitCode.CONFIGURATION, _settings_problems(cause), "Correct the environment or .env."
            )
        # The operating system reports a connection that was lost, or that does not answer.
        case ConnectionAbortedError() | ConnectionRefusedError() | ConnectionResetError() | TimeoutError():
            what = f"the connection was lost: {_sentence(cause)}"
            return Reason(ExitCode.UNREACHABLE, what, "Check the server's log, then try again.")
        case OSError():
            where = f": {cause.filename}" if cause.filename else ""
            what = f"{cause.strerror or _sentence(cause)}{where}"
            if cause.errno in {errno.ENOSPC, errno.EDQUOT}:
                return Reason(ExitCode.NO_SPACE, what, "Free some space, then try again.")
            refused = {errno.EACCES, errno.EPERM, errno.EROFS}
            code = ExitCode.PERMISSION if cause.errno in refused else ExitCode.FAILED
            return Reason(code, what, "Check the path and its permissions.")
    # An Alembic error exists only if Alembic has been imported, and clients do not import it.
    alembic = sys.modules.get("alembic.util.exc")
    if alembic is not None and isinstance(cause, alembic.CommandError):
        hint = "Compare 'occupancy-db current' with the revisions of 'occupancy-db history'."
        unknown = "Can't locate revision" in str(cause)
        return Reason(ExitCode.UNSUITABLE if unknown else ExitCode.FAILED, _sentence(cause), hint)
    return None


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """An ``asyncio.TaskGroup`` that raises the first exception itself instead of an exception group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and its causes. SQLAlchemy keeps the driver's exception in ``orig``."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None)


def caused_by(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether an exception, or one of its causes, is of one of these types."""
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _settings_problems(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        variable = ".".join(str(part) for part in problem["loc"]).upper()
        problems.append(f"{variable}: {message}" if variable else message)
    return "; ".join(problems)


def _sentence(error: BaseException) -> str:
    """The text of an exception as one line without a full stop."""
    text = str(error)
    if isinstance(error, asyncpg.PostgresError):  # str() adds the server's detail and hint on further lines
        text = f"{error.args[0]} ({error.detail})" if error.detail else error.args[0]
    words = " ".join(text.split())
    return words.rstrip(".") or type(error).__name__


def _refused(error: BaseException) -> bool:
    """Whether every address refused; asyncio joins the errors of several addresses into one text."""
    text = str(error)
    return isinstance(error, ConnectionRefusedError) or text.count("[Errno 111]") >= max(
        1, text.count("[Errno")
    )
