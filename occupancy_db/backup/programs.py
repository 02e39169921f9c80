"""PostgreSQL's own programs: no shell, no secret on their command line, and their errors are read."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.server import POSTGRES_MAJOR
from occupancy_db.settings import Settings, SslMode

# What a program says, and what that means. The first match decides.
_MEANINGS = [
    ("No space left on device", ExitCode.NO_SPACE, "Free some, then try again."),
    ("Disk quota exceeded", ExitCode.NO_SPACE, "Free some, then try again."),
    ("Read-only file system", ExitCode.PERMISSION, "Mount it for writing."),
    ("lock timeout", ExitCode.LOCKED, "Another session is in the way: see pg_stat_activity, then try again."),
    ("server version mismatch", ExitCode.UNSUITABLE, "Use programs of the server's version."),
    (
        "does not support compression",
        ExitCode.UNSUITABLE,
        "Choose another BACKUP_COMPRESSION: gzip:3 is always there.",
    ),
    ("unrecognized compression algorithm", ExitCode.UNSUITABLE, "Correct BACKUP_COMPRESSION, as in gzip:3."),
    ("invalid compression specification", ExitCode.UNSUITABLE, "Correct BACKUP_COMPRESSION, as in gzip:3."),
    ("permission denied", ExitCode.PERMISSION, "Run 'make up', which gives every user its rights again."),
    ("Permission denied", ExitCode.PERMISSION, "Check the path and its permissions."),
    (
        "password authentication failed",
        ExitCode.AUTHENTICATION,
        "Run 'make up', which sets every user's password.",
    ),
    ("server closed the connection", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("terminating connection", ExitCode.UNREACHABLE, "Somebody ended the session, or the server: try again."),
    # When the session that holds the snapshot was lost, and when it was being lost.
    ("invalid snapshot identifier", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("import the requested snapshot", ExitCode.UNREACHABLE, "Check the server's log, then try again."),
    ("connection to server", ExitCode.UNREACHABLE, "Check that the server runs."),
]


@contextmanager
def login(settings: Settings) -> Iterator[dict[str, str]]:
    """Libpq's environment for these settings; the password is in a file that goes when the block ends.

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
    }
    if not settings.uses_socket:
        variables["PGSSLMODE"] = settings.sslmode
        if settings.postgres_sslrootcert:
            variables["PGSSLROOTCERT"] = str(settings.postgres_sslrootcert)
        elif settings.sslmode in {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}:
            variables["PGSSLROOTCERT"] = "system"
    # A directory that only this user may enter
    with tempfile.TemporaryDirectory(prefix="occupancy-") as directory:
        if settings.postgres_password:
            secret = settings.postgres_password.get_secret_value()
            escaped = secret.replace("\\", "\\\\").replace(":", "\\:")
            file = Path(directory, "pgpass")
            file.touch(mode=0o600)
            file.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
            variables["PGPASSFILE"] = str(file)
        yield variables


async def run(
    program: str, *arguments: str | Path, env: dict[str, str] | None = None, user: int | None = None
) -> str:
    """Run one program to its end and return its output.

    Args:
        program: Its name.
        arguments: Its arguments; no secrets.
        env: Variables besides PATH, as from login().
        user: Run it as this uid.

    Raises:
        DatabaseError: it is missing, or it failed: what it said, and what that means.
    """
    async with running(program, *arguments, env=env, user=user) as process:
        stdout, stderr = await process.communicate()
    if process.returncode:
        raise _failure(program, process.returncode, stderr.decode(errors="replace"))
    return stdout.decode(errors="replace")


@asynccontextmanager
async def running(
    program: str,
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    user: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
    log: Path | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that does not outlive the block; arguments and errors as for run().

    Args:
        program: Its name.
        arguments: Its arguments.
        env: Variables besides PATH.
        user: Run it as this uid.
        stop: The signal that ends it, if the block is left before it ends by itself.
        log: Where what it says goes, for one that says more than a pipe holds.
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
            # An interrupt at the terminal reaches this process alone, which then ends that one.
            start_new_session=True,
            user=user,
            cwd="/",  # which every user may enter
        )
    except FileNotFoundError:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"there is no program {program}",
            f"Put the programs of PostgreSQL {POSTGRES_MAJOR} on PATH, or use 'occupancy-db' on the host.",
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


def _failure(program: str, code: int, said: str) -> DatabaseError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # The first error is the cause; what follows are consequences, statements and hints.
    errors = [line for line in lines if "error:" in line or "FATAL:" in line or "ERROR:" in line]
    words = " ".join(
        (errors or lines or [f"it was ended by signal {-code}" if code < 0 else f"exit code {code}"])[:1]
    )
    for sign, meaning, hint in _MEANINGS:
        if sign in said:
            return DatabaseError(meaning, f"{program} failed: {words}", hint)
    return DatabaseError(
        ExitCode.PROGRAM, f"{program} failed: {words}", "See the server's log, then try again."
    )
