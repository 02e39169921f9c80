"""Making a set, and proving it: lock, check, dump, decode, publish, rehearse, prune."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from occupancy_db.backup import contents, pruning
from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.programs import login, run
from occupancy_db.backup.rehearsal import rehearse
from occupancy_db.backup.run import Run, Say
from occupancy_db.backup.sets import (
    DUMP,
    FORMAT,
    GLOBALS,
    MANIFEST,
    PINNED,
    BackupSet,
    Manifest,
    State,
    Store,
    file_facts,
    new_id,
    replace,
)
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, task_group
from occupancy_db.maintenance import maintenance_lock
from occupancy_db.settings import Settings

LOCK_WAIT = 120.0
"""Seconds to wait for a migration, upkeep or an import."""

# As a share of the database's size, when there is no earlier set to go by: readings shrink to about a tenth.
_DUMP_SHARE = 0.25
_REHEARSAL_SHARE = 1.1
_HEADROOM = 200 * 1024**2
"""An empty cluster with its log, and room for everybody else."""

_SERVER = text("""
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS num,
           pg_database_size(current_database()) AS bytes, pg_current_wal_lsn()::text AS lsn,
           (SELECT rolname FROM pg_roles WHERE oid = 10) AS superuser
""")


async def create(
    settings: Settings, backup: BackupSettings, say: Say, pin: str | None = None
) -> tuple[BackupSet, dict[str, float]]:
    """Make a set, rehearse it, and remove the sets that retention has no use for.

    Args:
        settings: The database, and a user who may read all of it.
        backup: Where to, and how much is kept.
        say: Takes a line for a person.
        pin: Why it is to be kept for ever; not kept for ever if None.

    Returns:
        The set, and seconds by phase.

    Raises:
        DatabaseError: it did not work; the exit code says in which way. Sets that were there are still there.
    """
    store = Store(backup.dir)
    work = Run(store, settings.database, say)
    async with store.lock():
        with work.measured():
            made = await make(settings, backup, work, pin)
            await prove(made, backup, work)
            with work.phase("prune") as notes:
                going = [verdict for verdict in prune(settings.database, backup) if not verdict.keep]
                notes.append(f"{len(going)} removed")
    return store.find(settings.database, made.id), work.phases


async def make(
    settings: Settings,
    backup: BackupSettings,
    work: Run,
    pin: str | None = None,
    before_restore_of: str | None = None,
) -> BackupSet:
    """Dump and publish, for who holds the lock; the set is not verified yet. Errors as for create()."""
    store = Store(backup.dir)
    began = datetime.now(UTC)
    with work.phase("check") as notes:
        store.clear()
        with login(settings) as env:
            server = await _check(settings, backup, env, notes)
    partial = store.begin(settings.database, began)
    try:
        with work.phase("dump") as notes:
            async with maintenance_lock(settings, LOCK_WAIT, contents.SESSION):
                saved = await _dump(settings, backup, partial, server["superuser"])
            ended = datetime.now(UTC)
            notes.append(f"{saved.rows:,} rows, {(partial / DUMP).stat().st_size / 1e6:,.1f} MB")
        with work.phase("decode"):
            # To the last byte: what pg_restore lists is at the beginning only.
            await run("pg_restore", "--file=/dev/null", partial / DUMP)
        with work.phase("publish") as notes:
            manifest = Manifest(
                format=FORMAT,
                id=new_id(partial),
                database=settings.database,
                started_at=began,
                ended_at=ended,
                files={name: file_facts(partial / name) for name in (DUMP, GLOBALS)},
                server_version=server["version"],
                server_version_num=server["num"],
                client_version=server["client"],
                image=backup.image,
                superuser=server["superuser"],
                lsn=server["lsn"],
                database_bytes=server["bytes"],
                contents=saved,
                before_restore_of=before_restore_of,
            )
            replace(partial / MANIFEST, manifest.seal())
            if pin is not None:
                replace(partial / PINNED, f"{pin}\n".encode())
            made = store.publish(partial)
            notes.append(made.id)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # what led here is worth more than a second error
        raise
    return made


async def prove(made: BackupSet, backup: BackupSettings, work: Run) -> None:
    """Rehearse a set, for who holds the lock, and write down that it has been.

    Raises:
        DatabaseError: it is damaged, or does not restore what was saved; one that once did is marked.
    """
    began = time.monotonic()
    with work.phase("rehearse") as notes:
        try:
            found = await rehearse(made, backup.rehearsal_dir)
        except DatabaseError as error:
            # Only what speaks against the set itself: a full disk does not.
            if error.code in {ExitCode.DIFFERENT, ExitCode.DAMAGED} and made.state is State.VERIFIED:
                made.mark_damaged(error.what)
            raise
        made.mark_verified(time.monotonic() - began, found.rows)
        notes.append(f"{found.rows:,} rows compared")


async def verify(
    settings: Settings, backup: BackupSettings, names: list[str], older_than: timedelta | None, say: Say
) -> list[str]:
    """Check and rehearse sets again.

    Args:
        settings: They name the database; no server is asked.
        backup: Where the sets are.
        names: Which, by id or ``latest``; if none, see older_than.
        older_than: All those that were not verified for so long; if None, the newest one.
        say: Takes a line for a person.

    Returns:
        The sets that were verified.

    Raises:
        DatabaseError: there is no such set, or some failed: the first of them decides how.
    """
    store = Store(backup.dir)
    failed: list[DatabaseError] = []
    async with store.lock(wait=LOCK_WAIT):
        sets = store.sets(settings.database)
        if names:
            chosen = [store.find(settings.database, name) for name in names]
        elif older_than is not None:
            limit = datetime.now(UTC) - older_than
            chosen = [one for one in sets if not one.verified or one.verified.verified_at < limit]
        else:
            chosen = sets[-1:] or [store.find(settings.database, "latest")]
        work = Run(store, settings.database, say)
        for one in chosen:
            say(f"{one.id}:")
            try:
                await prove(one, backup, work)
            except DatabaseError as error:
                failed.append(error)
    if failed:
        what = "; ".join(error.what for error in failed)
        raise DatabaseError(
            failed[0].code, f"{len(failed)} of {len(chosen)} sets failed: {what}", failed[0].hint
        )
    return [one.id for one in chosen]


def prune(database: str, backup: BackupSettings, dry_run: bool = False) -> list[pruning.Verdict]:
    """Remove what retention has no use for, for who holds the lock.

    Returns:
        The verdict on each set.

    Raises:
        DatabaseError: the clock has jumped.
    """
    store = Store(backup.dir)
    verdicts = pruning.plan(store.sets(database), backup, datetime.now(UTC))
    for verdict in verdicts:
        if not verdict.keep and not dry_run:
            store.remove(verdict.backup)
    return verdicts


async def _check(
    settings: Settings, backup: BackupSettings, env: dict[str, str], notes: list[str]
) -> dict[str, Any]:
    client = (await run("pg_dump", "--version")).split()[2]
    async with connect(settings, "occupancy-db backup", server_settings=contents.SESSION) as connection:
        server = dict((await connection.execute(_SERVER)).mappings().one())
    if client.split(".")[0] != str(server["num"] // 10_000):
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"pg_dump is of version {client}, and the server of {server['version']}",
            "Use programs of the server's version, as 'occupancy-db' on the host does.",
        )
    rehearsal = int(server["bytes"] * _REHEARSAL_SHARE)
    notes.append(require_space(backup, rehearsal, _expected_dump(settings, backup, server["bytes"])))
    # Whether this user may read everything and this build compresses like this: asked of pg_dump itself.
    await run(
        "pg_dump", "--schema-only", "--format=custom", f"--compress={backup.compression}",
        "--lock-wait-timeout=60s", "--file=/dev/null", "--no-sync", env=env,
    )  # fmt: skip
    return {**server, "client": client}


def require_space(backup: BackupSettings, aside: int, dump: int) -> str:
    """Refuse to begin what would fill a disk.

    Args:
        backup: Where sets and rehearsals go.
        aside: Bytes that a copy of the database takes.
        dump: Bytes that a set takes.

    Returns:
        A line for a person.

    Raises:
        DatabaseError: not enough is free.
    """
    needs = {backup.dir: dump + _HEADROOM, backup.rehearsal_dir: aside + _HEADROOM}
    if backup.dir.stat().st_dev == backup.rehearsal_dir.stat().st_dev:
        needs = {backup.dir: dump + aside + _HEADROOM}
    for directory, need in needs.items():
        free = shutil.disk_usage(directory).free
        if free < need:
            raise DatabaseError(
                ExitCode.NO_SPACE,
                f"{free / 1e6:,.0f} MB are free for {directory}, and this may take {need / 1e6:,.0f} MB",
                "Free some, or keep fewer sets. Nothing was begun.",
            )
    return f"{needs[backup.dir] / 1e6:,.0f} MB wanted, {shutil.disk_usage(backup.dir).free / 1e6:,.0f} free"


def _expected_dump(settings: Settings, backup: BackupSettings, database_bytes: int) -> int:
    sets = [one.manifest for one in Store(backup.dir).sets(settings.database) if one.manifest]
    shares = [one.files[DUMP].bytes / one.database_bytes * 1.2 for one in sets[-1:] if one.database_bytes]
    return int(database_bytes * (shares[0] if shares else _DUMP_SHARE))


async def _dump(
    settings: Settings, backup: BackupSettings, partial: Path, superuser: str
) -> contents.Contents:
    """Dump and fingerprint at once, in one snapshot."""
    for name in (DUMP, GLOBALS):
        (partial / name).touch(mode=0o600)
    with login(settings) as env:
        await run("pg_dumpall", "--roles-only", "--no-role-passwords", f"--database={settings.database}",
                  f"--file={partial / GLOBALS}", env=env)  # fmt: skip
        # Every cluster has this one from the start, and it alone may grant in its own name.
        roles = (partial / GLOBALS).read_text(encoding="utf-8")
        quoted = {f"CREATE ROLE {superuser};", f'CREATE ROLE "{superuser}";'}
        lines = [line for line in roles.splitlines() if line not in quoted]
        (partial / GLOBALS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        async with contents.snapshot(settings) as (name, sequences), task_group() as group:
            reading = group.create_task(contents.read(settings, name, sequences))
            await run(
                "pg_dump", "--format=custom", f"--compress={backup.compression}", f"--snapshot={name}",
                "--lock-wait-timeout=60s", f"--file={partial / DUMP}", env=env,
            )  # fmt: skip
        return reading.result()
