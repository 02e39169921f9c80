"""PostgreSQL's client and server programs: run without a shell, without secrets in their arguments."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.server import POSTGRES_MAJOR
from occupancy_db.settings import Settings, SslMode

# Text in the output of a failed program, its exit code and the hint. The first match applies.
_MEANINGS = [
    ("No space left on device", ExitCode.NO_SPACE, "Free some space, then try again."),
    ("Disk quota exceeded", ExitCode.NO_SPACE, "Free some space, then try again."),
    ("Read-only file system", ExitCode.PERMISSION, "Mount it for writing."),
    ("lock timeout", ExitCode.LOCKED, "Another session holds a lock: see pg_stat_activity, then try again."),
    ("server version mismatch", ExitCode.UNSUITABLE, "Use programs of the server's version."),
    (
        "does not support compression",
        ExitCode.UNSUITABLE,
        "Choose another BACKUP_COMPRESSION: every build supports gzip:3.",
    ),
    (
        "SSL support is not compiled in",
        ExitCode.UNSUITABLE,
        "Use programs of PostgreSQL that were built with SSL.",
    ),
    ("unrecognized compression algorithm", ExitCode.UNSUITABLE, "Correct BACKUP_COMPRESSION, as in gzip:3."),
    ("invalid compression specification", ExitCode.UNSUITABLE, "Correct BACKUP_COMPRESSION, as in gzip:3."),
    (
        "permission denied",
        ExitCode.PERMISSION,
        "Run 'make up', which grants every user its privileges again.",
    ),
    ("Permission denied", ExitCode.PERMISSION, "Check the path and its permissions."),
    (
        "password authentication failed",
        ExitCode.AUTHENTICATION,
        "Run 'make up', which sets every user's password.",
    ),
    ("server closed the connection", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("terminating connection", ExitCode.UNREACHABLE, "The session or the server was terminated: try again."),
    # The session that holds the snapshot was lost before or during the import of the snapshot.
    ("invalid snapshot identifier", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("import the requested snapshot", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("connection to server", ExitCode.UNREACHABLE, "Check that the server runs."),
]


_NAMES = {"minisign": "it"}
"""How a hint names programs that are not of PostgreSQL."""


@contextmanager
def libpq_environment(settings: Settings) -> Iterator[dict[str, str]]:
    """Yield libpq's environment variables; the password is in a file that is removed when the block ends.

    Args:
        settings: The server, the user and the database.
    """
    variables = {
        "PGHOST": settings.postgres_host,
        "PGPORT": str(settings.postgres_port),
        "PGUSER": settings.postgres_user,
        "PGDATABASE": settings.database,
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "occupancy-db backup",
        "PGTZ": "UTC",  # for the times in definitions
    }
    if not settings.uses_socket:
        variables["PGSSLMODE"] = settings.sslmode
        if settings.postgres_sslrootcert:
            variables["PGSSLROOTCERT"] = str(settings.postgres_sslrootcert)
        elif settings.sslmode in {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}:
            variables["PGSSLROOTCERT"] = "system"
    # Only this user can access the directory
    with tempfile.TemporaryDirectory(prefix="occupancy-") as directory:
        if settings.postgres_password:
            secret = settings.postgres_password.get_secret_value()
            escaped = secret.replace("\\", "\\\\").replace(":", "\\:")
            file = Path(directory, "pgpass")
            file.touch(mode=0o600)
            file.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
            variables["PGPASSFILE"] = str(file)
        yield variables


async def run_program(
    program: str, *arguments: str | Path, env: dict[str, str] | None = None, user: int | None = None
) -> str:
    """Run a program to its end.

    Args:
        program: Name of the program.
        arguments: Its arguments; no secrets.
        env: Environment variables besides PATH, as from libpq_environment().
        user: Numeric id of the user to run it as; the caller's if None.

    Returns:
        The standard output.

    Raises:
        DatabaseError: the program is missing, or it failed; the text contains its first error.
    """
    async with start_program(program, *arguments, env=env, user=user) as process:
        stdout, stderr = await process.communicate()
    if process.returncode:
        raise _failure(program, process.returncode, stderr.decode(errors="replace"))
    return stdout.decode(errors="replace")


async def missing_programs() -> str | None:
    """Return which programs of PostgreSQL are missing or of another version; None if all are there."""
    for program in ("pg_dump", "pg_restore", "psql", "initdb", "postgres"):
        if not shutil.which(program):
            return f"{program} of PostgreSQL {POSTGRES_MAJOR} is not on PATH"
        said = await run_program(program, "--version")
        if not re.search(rf" {POSTGRES_MAJOR}\b", said):
            return f"PostgreSQL {POSTGRES_MAJOR} is needed, and there is {said.strip()}"
    return None


@asynccontextmanager
async def start_program(
    program: str,
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    user: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
    log: Path | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a program, and end it when the block ends; yields its process.

    Args:
        program: Name of the program.
        arguments: Its arguments; no secrets.
        env: Environment variables besides PATH.
        user: Numeric id of the user to run it as; the caller's if None.
        stop: Signal that ends the program if it still runs when the block ends.
        log: File for its output, for a program that writes more than a pipe holds.

    Raises:
        DatabaseError: the program is missing.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) if log else asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *map(str, arguments),
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # An interrupt at the terminal must not reach the program: this process ends it.
            start_new_session=True,
            user=user,
            cwd="/",  # accessible to every user
        )
    except FileNotFoundError:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"there is no program {program}",
            f"Put {_NAMES.get(program, f'the programs of PostgreSQL {POSTGRES_MAJOR}')} on PATH, or use "
            "'occupancy-db' on the host.",
        ) from None
    finally:
        if log:
            os.close(output)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(stop)
            await process.communicate()


# What pg_restore was restoring when an error occurred
_OBJECT = re.compile(r"^Command was: (.+)|(COPY failed for table \"[^\n]+?\")", re.MULTILINE)


def _failure(program: str, code: int, said: str) -> DatabaseError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # The first error is the cause. Consequences, statements and hints follow.
    errors = [line for line in lines if "error:" in line or "FATAL:" in line or "ERROR:" in line]
    words = " ".join(
        (errors or lines or [f"it was ended by signal {-code}" if code < 0 else f"exit code {code}"])[:1]
    )
    object_ = _OBJECT.search(said) if program == "pg_restore" else None
    for sign, meaning, hint in _MEANINGS:
        if sign in said and not (object_ and meaning is ExitCode.PERMISSION):
            return DatabaseError(meaning, f"{program} failed: {words}", hint)
    if object_:
        return DatabaseError(
            ExitCode.DAMAGED,
            f"this cannot be restored: {object_[1] or object_[2]} ({words})",
            "A restore is not a superuser, and has only what is in the set: drop or change that object, "
            "then take another backup.",
        )
    return DatabaseError(
        ExitCode.PROGRAM, f"{program} failed: {words}", "See the server's log, then try again."
    )
