"""One vocabulary for what can go wrong: exit codes, and one clear line for each failure."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any, Self

import asyncpg
from alembic.util import CommandError
from pydantic import ValidationError

from occupancy_db.settings import Settings


class ExitCode(IntEnum):
    """Exit codes of ``occupancy-db``. They are an interface: scripts depend on them."""

    label: str

    def __new__(cls, value: int, label: str) -> Self:
        """Keep the words for a person beside the number."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member

    OK = 0, "success"
    FAILED = 1, "failed"
    USAGE = 2, "wrong usage"
    CONFIGURATION = 3, "bad configuration"
    UNREACHABLE = 4, "server unreachable"
    AUTHENTICATION = 5, "authentication refused"
    TLS = 6, "TLS refused or certificate not trusted"
    DATABASE_MISSING = 7, "database missing"
    PERMISSION = 8, "permission denied"
    LOCKED = 9, "lock not obtained in time"
    REFUSED = 10, "refused: needs confirmation, or not allowed in production"
    NO_SPACE = 11, "not enough disk space"
    DAMAGED = 12, "backup set missing, damaged or not verified"
    DIFFERENT = 13, "restored content or schema differs from what it should be"
    PROGRAM = 14, "a program of PostgreSQL failed"
    UNSUITABLE = 15, "versions or features do not fit"
    CLOCK = 16, "the clock contradicts the backup sets"


class DatabaseError(Exception):
    """A failure that a person can act on.

    Attributes:
        code: The exit code it maps to.
        what: What was wrong and where, without secrets.
        hint: What to do next.
        details: More for a program.
    """

    def __init__(self, code: ExitCode, what: str, hint: str, details: dict[str, Any] | None = None) -> None:
        """Keep both halves apart for ``--json``; together they are one line."""
        super().__init__(f"{what}. {hint}")
        self.details = details or {}
        self.code = code
        self.what = what
        self.hint = hint


# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_NAME_MISMATCH = frozenset({62, 64})


def explain_connection(error: BaseException, settings: Settings) -> DatabaseError:
    """What a failed attempt to connect means.

    Args:
        error: What asyncpg, the operating system or OpenSSL raised while connecting.
        settings: Where the attempt went.
    """
    code, reason, hint = _connection_reason(error, settings)
    return DatabaseError(code, f"cannot connect to {settings.where}: {reason}", hint)


def _connection_reason(error: BaseException, settings: Settings) -> tuple[ExitCode, str, str]:
    host = settings.postgres_host
    match error:
        case asyncpg.InvalidPasswordError() if settings.postgres_password is None:
            hint = "Set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE."
            return ExitCode.AUTHENTICATION, "the server asks for a password and none is set", hint
        case asyncpg.InvalidPasswordError():
            # The server says the same for an unknown role, on purpose.
            hint = "Check POSTGRES_USER and POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE."
            return ExitCode.AUTHENTICATION, "wrong password or unknown user", hint
        case asyncpg.InvalidAuthorizationSpecificationError():
            hint = "Check POSTGRES_USER, POSTGRES_SSLMODE and the rules in the server's pg_hba.conf."
            return ExitCode.AUTHENTICATION, _sentence(error), hint
        case asyncpg.InvalidCatalogNameError():
            hint = "Create it with 'occupancy-db init', or correct POSTGRES_DB."
            return ExitCode.DATABASE_MISSING, f'database "{settings.database}" does not exist', hint
        case asyncpg.InsufficientPrivilegeError():
            hint = "Ask the owner of the database for the privilege."
            return ExitCode.PERMISSION, _sentence(error), hint
        case (
            asyncpg.TooManyConnectionsError()
            | asyncpg.PostgresConnectionError()
            | asyncpg.CannotConnectNowError()
            | asyncpg.AdminShutdownError()
            | asyncpg.CrashShutdownError()
        ):
            return ExitCode.UNREACHABLE, _sentence(error), "Try again in a moment."
        case asyncpg.PostgresError():
            return ExitCode.FAILED, _sentence(error), "See the server's log."
        case ssl.SSLCertVerificationError(verify_code=code) if code in _NAME_MISMATCH:
            hint = "Use the name in the certificate as POSTGRES_HOST, or have the certificate reissued."
            return ExitCode.TLS, f"the server's certificate is not for {host}", hint
        case ssl.SSLCertVerificationError():
            hint = "Set POSTGRES_SSLROOTCERT to the CA that signed it."
            return ExitCode.TLS, f"the server's certificate is not trusted ({error.verify_message})", hint
        case ssl.SSLError():
            hint = "Check that server and client share a TLS version (1.2 or newer)."
            return ExitCode.TLS, f"the TLS handshake failed ({_sentence(error)})", hint
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            hint = f"Enable ssl on the server, or choose a weaker POSTGRES_SSLMODE than {settings.sslmode}."
            return ExitCode.TLS, "the server does not speak TLS", hint
        case socket.gaierror():
            return ExitCode.UNREACHABLE, f"the name {host} does not resolve", "Check POSTGRES_HOST."
        case TimeoutError():
            hint = "Check POSTGRES_HOST, POSTGRES_PORT and firewalls on the way."
            return ExitCode.UNREACHABLE, "no answer in time", hint
        case FileNotFoundError():
            hint = "Check POSTGRES_HOST, POSTGRES_PORT and that the server runs."
            return ExitCode.UNREACHABLE, "no server listens on this socket", hint
        case PermissionError():
            hint = "Run as a user who may use the socket's directory."
            return ExitCode.UNREACHABLE, "the operating system denies access to the socket", hint
        case _:
            reason = "connection refused" if _refused(error) else _sentence(error)
            hint = "Check that the server runs, and POSTGRES_HOST and POSTGRES_PORT."
            return ExitCode.UNREACHABLE, reason, hint


def explain(error: BaseException) -> DatabaseError | None:
    """What a failure inside a command means, or None if it is not one that is known.

    Args:
        error: Anything raised by SQLAlchemy, asyncpg, Alembic or pydantic; its causes are looked at too.
    """
    for cause in _causes(error):
        match cause:
            case DatabaseError():
                return cause
            case ValidationError():
                return DatabaseError(
                    ExitCode.CONFIGURATION, _settings_problems(cause), "Correct the environment or .env."
                )
            case (
                asyncpg.LockNotAvailableError()
                | asyncpg.QueryCanceledError()
                | asyncpg.DeadlockDetectedError()
            ):
                hint = "Another session is in the way: see pg_stat_activity, then try again."
                return DatabaseError(ExitCode.LOCKED, _sentence(cause), hint)
            case asyncpg.InsufficientPrivilegeError():
                hint = "Run as the owner of the database, or ask for the privilege."
                return DatabaseError(ExitCode.PERMISSION, _sentence(cause), hint)
            case asyncpg.UndefinedTableError() | asyncpg.UndefinedFunctionError():
                hint = "Bring the schema up to date with 'occupancy-db migrate'."
                return DatabaseError(ExitCode.FAILED, _sentence(cause), hint)
            case (
                asyncpg.DuplicateTableError()
                | asyncpg.DuplicateObjectError()
                | asyncpg.DuplicateFunctionError()
            ):
                hint = "The database holds objects that these migrations did not make: use an empty database."
                return DatabaseError(ExitCode.FAILED, _sentence(cause), hint)
            case (
                asyncpg.PostgresConnectionError()
                | asyncpg.AdminShutdownError()
                | asyncpg.CrashShutdownError()
            ):
                hint = "Check the server's log, then try again."
                return DatabaseError(
                    ExitCode.UNREACHABLE, f"the connection was lost: {_sentence(cause)}", hint
                )
            # What asyncpg says where the server has ended the session between two statements.
            case asyncpg.InterfaceError() | asyncpg.InternalClientError() if any(
                words in str(cause) for words in ("connection is closed", "cannot switch to state")
            ):
                hint = "Check the server's log, then try again."
                return DatabaseError(ExitCode.UNREACHABLE, "the connection was lost", hint)
            case asyncpg.DiskFullError():
                return DatabaseError(ExitCode.NO_SPACE, _sentence(cause), "Free some, then try again.")
            case asyncpg.PostgresError():
                return DatabaseError(
                    ExitCode.FAILED, _sentence(cause), "Nothing was changed by the failed step."
                )
            case CommandError():
                hint = "Compare 'occupancy-db current' with the revisions of 'occupancy-db history'."
                return DatabaseError(ExitCode.FAILED, _sentence(cause), hint)
            case OSError():
                where = f": {cause.filename}" if cause.filename else ""
                reason = f"{cause.strerror or _sentence(cause)}{where}"
                if cause.errno in {errno.ENOSPC, errno.EDQUOT}:
                    return DatabaseError(ExitCode.NO_SPACE, reason, "Free some, then try again.")
                code = ExitCode.PERMISSION if cause.errno in {errno.EACCES, errno.EROFS} else ExitCode.FAILED
                return DatabaseError(code, reason, "Check the path and its permissions.")
    return None


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """As asyncio's; what failed first is raised as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The innermost known cause decides, and SQLAlchemy keeps the driver's error behind two wrappers."""
    while error is not None:
        yield error
        error = error.__cause__ or getattr(error, "orig", None)


def caused_by(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether an error, or one it was raised from, is of one of these kinds."""
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _settings_problems(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        variable = ".".join(str(part) for part in problem["loc"]).upper()
        problems.append(f"{variable}: {message}" if variable else message)
    return "; ".join(problems)


def _sentence(error: BaseException) -> str:
    """The error's own words as one line without a full stop."""
    text = str(error)
    if isinstance(
        error, asyncpg.PostgresError
    ):  # whose text goes on for lines, with a hint of the server's own
        text = f"{error.args[0]} ({error.detail})" if error.detail else error.args[0]
    words = " ".join(text.split())
    return words.rstrip(".") or type(error).__name__


def _refused(error: BaseException) -> bool:
    """Whether every address refused; asyncio joins the errors of several addresses into one text."""
    text = str(error)
    return isinstance(error, ConnectionRefusedError) or text.count("[Errno 111]") >= max(
        1, text.count("[Errno")
    )
