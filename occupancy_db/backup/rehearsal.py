"""Rehearsals: a set is restored into a throwaway cluster that no other user can reach, and compared."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import text

from occupancy_db.backup.configuration import in_database
from occupancy_db.backup.contents import Contents
from occupancy_db.backup.copying import RESTORE_USER, compare, grant, quote, restore_copy
from occupancy_db.backup.manifest import GLOBALS
from occupancy_db.backup.programs import libpq_environment, run_program, start_program
from occupancy_db.backup.sets import BackupSet
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.schema.privileges import BACKUP_USER, OWNER, USERS
from occupancy_db.server import POSTGRES_MAJOR
from occupancy_db.settings import Settings

# The cluster need not survive a crash, and only its owner can connect to it.
_CONFIGURATION = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1d",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "128MB",
    "max_parallel_maintenance_workers": "0",
    "max_connections": "20",
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
}

_START = 60.0
_POLL = 0.05


async def rehearse(backup: BackupSet, directory: Path) -> Contents:
    """Restore a set as a restore does into a throwaway cluster with its roles, and compare the content.

    Args:
        backup: The set; its files are checked first.
        directory: Where throwaway clusters are made.

    Returns:
        The restored content, which equals that of the manifest.

    Raises:
        DatabaseError: the set is damaged, cannot be restored, or does not restore what was saved.
    """
    manifest = backup.intact()
    if manifest.server_version_num // 10_000 != POSTGRES_MAJOR:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{backup.id} is of PostgreSQL {manifest.server_version}, and this is {POSTGRES_MAJOR}",
            "Use the release that made it.",
        )
    async with throwaway_cluster(directory, manifest.superuser) as settings:
        with libpq_environment(settings) as env:
            await run_program(
                "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", backup.path / GLOBALS, env=env
            )
        await make_users(settings, manifest.owner)
        restoring = settings.model_copy(update={"postgres_user": RESTORE_USER})
        owner, reader = None, settings
        if manifest.owner != OWNER:  # it may not run its functions as the superuser
            owner = settings.model_copy(update={"postgres_user": manifest.owner})
            reader = settings.model_copy(update={"postgres_user": BACKUP_USER})
        await restore_copy(restoring, manifest.database, backup, manifest, owner)
        found = await compare(in_database(reader, manifest.database), backup, manifest.contents)
        await grant(in_database(owner or restoring, manifest.database), manifest.owner)
        return found


async def make_users(settings: Settings, owner: str = OWNER) -> None:
    """Create those users of the product in a throwaway cluster that it does not have, as on a host.

    Args:
        settings: The cluster, as its superuser.
        owner: The owner of the database that is going to be restored.
    """
    async with connect(settings, "occupancy-db rehearsal", autocommit=True) as connection:
        for user in (*USERS, RESTORE_USER):
            if not await connection.scalar(text("SELECT to_regrole(:user) IS NOT NULL"), {"user": user}):
                await connection.exec_driver_sql(f"CREATE ROLE {user} LOGIN")
        await connection.exec_driver_sql(f"ALTER ROLE {RESTORE_USER} LOGIN CREATEDB NOSUPERUSER")
        await connection.exec_driver_sql(f"GRANT {OWNER}, {quote(owner)} TO {RESTORE_USER}")


@asynccontextmanager
async def throwaway_cluster(directory: Path, superuser: str) -> AsyncIterator[Settings]:
    """Run a cluster that no other user can reach until the block ends; yields the settings to connect to it.

    The caller holds the lock of the store of backup sets.

    Args:
        directory: Where the cluster is made; interrupted clusters there are removed first.
        superuser: Name of the only user.

    Raises:
        DatabaseError: the server failed.
    """
    user = _server_user(directory)
    for left in _left_over(directory):
        await _remove(left, user)
    # The path of the socket must be short. The mode of its directory protects it: there is no password.
    with tempfile.TemporaryDirectory(prefix="occupancy-") as sockets:
        data = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=directory))
        if user is not None:
            os.chown(sockets, user, -1)
            os.chown(data, user, -1)
        # The environment names another server, so it is not used.
        settings = Settings.model_construct(
            postgres_host=sockets, postgres_db="postgres", postgres_user=superuser
        )
        try:
            await run_program(
                "initdb", f"--pgdata={data}", f"--username={superuser}", "--auth=trust", "--no-sync",
                "--no-instructions", "--encoding=UTF8", "--locale=C", user=user,
            )  # fmt: skip
            options = [f"-c{name}={value}" for name, value in _CONFIGURATION.items()]
            log = Path(sockets, "log")
            async with start_program(
                "postgres", "-D", data, "-k", sockets, *options, user=user, stop=signal.SIGQUIT, log=log
            ) as server:
                try:
                    await _ready(settings, server)
                    yield settings
                except Exception as error:
                    if reason := _reason(error, log):
                        raise reason from error
                    raise
        finally:
            shutil.rmtree(data)


async def _ready(settings: Settings, server: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            async with connect(settings, "occupancy-db rehearsal"):
                return
        except DatabaseError:
            if server.returncode is not None or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL)


def _reason(error: Exception, log: Path) -> DatabaseError | None:
    """Return why the server ended, according to its log; None if it did not end."""
    said = log.read_text(errors="replace")
    if "No space left on device" in said:
        return DatabaseError(
            ExitCode.NO_SPACE, "the rehearsal ran out of disk space", "Free some space, then try again."
        )
    known = explain(error)
    lost = known is not None and known.code is ExitCode.UNREACHABLE
    if not lost and "was terminated by signal" not in said:  # otherwise the server has recovered
        return None
    words = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line or "terminated" in line]
    return DatabaseError(
        ExitCode.PROGRAM,
        f"the rehearsal's server ended: {(words or said.splitlines() or ['its log is empty'])[-1]}",
        "Check memory and disk, then try again.",
    )


def _server_user(directory: Path) -> int | None:
    """Return the user to run the server as, because PostgreSQL refuses to run as root; None if not root."""
    if os.geteuid():
        return None
    owner = directory.stat().st_uid
    if not owner:
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"root owns {directory}, and PostgreSQL does not run as root",
            "Change the owner of the directory, or run as another user.",
        )
    return owner


def _left_over(directory: Path) -> list[Path]:
    # A file or a link of that name was not made here.
    return [path for path in directory.glob("rehearsal-*") if path.is_dir() and not path.is_symlink()]


async def _remove(data: Path, user: int | None) -> None:
    """Remove the cluster of an interrupted rehearsal, and stop its server if it still runs."""
    try:
        await run_program("pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate", user=user)
    except DatabaseError as error:
        if error.code is not ExitCode.PROGRAM:  # that one means that no server runs
            raise
    shutil.rmtree(data)
