"""Backups: a set is made (check, dump, decode, publish), rehearsed, and old sets are removed."""

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from occupancy_db.backup import contents, erasures, pruning
from occupancy_db.backup.configuration import BackupSettings, product
from occupancy_db.backup.copying import dumped_definitions, left_behind
from occupancy_db.backup.files import replace
from occupancy_db.backup.manifest import DUMP, FORMAT, GLOBALS, MANIFEST, PINNED, Manifest, file_facts
from occupancy_db.backup.programs import libpq_environment, run_program
from occupancy_db.backup.progress import Announce, Progress
from occupancy_db.backup.rehearsal import rehearse
from occupancy_db.backup.sets import AHEAD, BackupSet, SetState, Store, set_id
from occupancy_db.backup.signatures import require_signature, sign, unsigned_reason
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, task_group
from occupancy_db.history.clock import known_state
from occupancy_db.maintenance import hold_lock
from occupancy_db.schema.privileges import OWNER
from occupancy_db.settings import Settings

LOCK_WAIT = 120.0
"""Seconds to wait for the maintenance lock, and for another backup before a verification."""

_DUMP_SHARE = 0.25
"""Assumed size of a dump as a share of the database's size if there is no earlier set.

Readings are compressed to about a tenth.
"""

_REHEARSAL_SHARE = 1.1
"""Size of a restored copy as a share of the database's size."""

_HEADROOM = 200 * 1024**2
"""Bytes for an empty cluster with its log, and for other programs."""

_SERVER = text("""
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int AS version_num,
           pg_database_size(current_database()) AS database_bytes, pg_current_wal_lsn()::text AS lsn,
           (SELECT rolname FROM pg_roles WHERE oid = 10) AS superuser,
           (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()) AS owner
""")


@dataclass(frozen=True)
class Creation:
    """What a backup has made.

    Attributes:
        backup_set: The set.
        phases: Seconds by phase.
    """

    backup_set: BackupSet
    phases: dict[str, float]


@dataclass(frozen=True)
class _Server:
    """The server at the start of a backup.

    Attributes:
        version: As the server reports it.
        version_num: The same as a number, 160014 for 16.14.
        client_version: Version of pg_dump.
        database_bytes: Size of the database in bytes.
        lsn: WAL position.
        superuser: Name of the superuser that initdb created.
        owner: Name of the owner of the database.
    """

    version: str
    version_num: int
    client_version: str
    database_bytes: int
    lsn: str
    superuser: str
    owner: str


async def create(
    settings: Settings, backup: BackupSettings, announce: Announce, pin: str | None = None
) -> Creation:
    """Make a set, rehearse it, and remove the sets that retention does not keep.

    Args:
        settings: The database, and a user who may read all tables.
        backup: Where the sets are, and how many are kept.
        announce: Takes a line for the operator.
        pin: Why the set is kept regardless of the retention policy; None if it is not pinned.

    Raises:
        DatabaseError: the backup failed; the exit code tells the reason. No earlier set was removed.
    """
    store = Store(backup.dir)
    progress = Progress(store, settings.database, announce)
    async with store.lock():
        for line in store.foreign(settings.database):
            announce(f"note: {line}")
        with progress.measured(other=settings.database in backup.others):
            made = await make_set(settings, backup, progress, pin)
            await verify_set(made, backup, progress)
            with progress.phase("prune") as notes:
                going = [verdict for verdict in await prune(settings, backup) if not verdict.keep]
                notes.append(f"{len(going)} removed")
    return Creation(store.find(settings.database, made.id), progress.phases)


async def make_set(
    settings: Settings,
    backup: BackupSettings,
    progress: Progress,
    pin: str | None = None,
    before_restore_of: str | None = None,
) -> BackupSet:
    """Dump and publish a set, which is not verified yet. The caller holds the lock of the store.

    Args:
        settings: The database, and a user who may read all tables.
        backup: Where the sets are.
        progress: Times the phases.
        pin: Why the set is kept regardless of the retention policy; None if it is not pinned.
        before_restore_of: Id of the set that is about to replace the database; None for any other backup.

    Raises:
        DatabaseError: the backup failed; the exit code tells the reason.
    """
    store = Store(backup.dir)
    began = datetime.now(UTC)
    with progress.phase("check") as notes:
        store.clear()
        unsigned = unsigned_reason(backup)
        with libpq_environment(settings) as env:
            server = await _check(settings, backup, env, notes)
    partial = store.begin(settings.database, began)
    try:
        saved, ended = await _dump_and_decode(settings, backup, progress, partial, server.superuser)
        with progress.phase("publish") as notes:
            manifest = Manifest(
                format=FORMAT,
                id=set_id(partial),
                database=settings.database,
                started_at=began,
                ended_at=ended,
                files={name: file_facts(partial / name) for name in (DUMP, GLOBALS)},
                server_version=server.version,
                server_version_num=server.version_num,
                client_version=server.client_version,
                image=backup.image,
                superuser=server.superuser,
                lsn=server.lsn,
                database_bytes=server.database_bytes,
                contents=saved,
                before_restore_of=before_restore_of,
                erasures=await erasures.complete(store, settings.database, backup),
                # Whatever the owner of the product's own database is, a restore gives it to OWNER.
                owner=server.owner if settings.database in backup.others else OWNER,
            )
            replace(partial / MANIFEST, manifest.seal())
            await sign(partial, backup)
            if pin is not None:
                replace(partial / PINNED, f"{pin}\n".encode())
            made = store.publish(partial)
            notes += [made.id, *filter(None, [unsigned])]
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a second error must not hide the first
        raise
    return made


async def verify_set(
    made: BackupSet, backup: BackupSettings, progress: Progress, *, unsigned: bool = False
) -> None:
    """Rehearse a set, and record the result. The caller holds the lock of the store.

    Args:
        made: The set.
        backup: Where throwaway clusters are made.
        progress: Times the phase.
        unsigned: Whether a set without a signature is accepted where keys are trusted.

    Raises:
        DatabaseError: the set is damaged or not signed, or does not restore what was saved. A set that was
            verified before is then marked as damaged, unless it is not signed.
    """
    began = time.monotonic()
    with progress.phase("rehearse") as notes:
        await require_signature(made, backup, unsigned=unsigned)
        try:
            found = await rehearse(made, backup.rehearsal_dir)
            notes += left_behind(await dumped_definitions(made))
        except DatabaseError as error:
            # A full disk, for instance, does not mean that the set is damaged.
            if error.code in {ExitCode.DIFFERENT, ExitCode.DAMAGED} and made.state is SetState.VERIFIED:
                made.mark_damaged(error.what)
            raise
        made.mark_verified(time.monotonic() - began, found.rows)
        notes.append(f"{found.rows:,} rows compared")


async def verify(
    settings: Settings,
    backup: BackupSettings,
    names: list[str],
    older_than: timedelta | None,
    announce: Announce,
    *,
    unsigned: bool = False,
) -> list[str]:
    """Check and rehearse sets again.

    Args:
        settings: They name the database; no connection is made.
        backup: Where the sets are.
        names: Ids of the sets, or ``latest``; if empty, ``older_than`` applies.
        older_than: Verify all sets that were not verified for this time; if None, the newest set.
        announce: Takes a line for a person.
        unsigned: Whether sets without a signature are accepted where keys are trusted.

    Returns:
        Ids of the sets that were verified.

    Raises:
        DatabaseError: there is no such set, or some sets failed: the first of them sets the exit code.
    """
    store = Store(backup.dir)
    failed: list[DatabaseError] = []
    async with store.lock(wait=LOCK_WAIT):
        for line in store.foreign(settings.database):
            announce(f"note: {line}")
        sets = store.sets(settings.database)
        if names:
            chosen = [store.find(settings.database, name) for name in names]
        elif older_than is not None:
            now = datetime.now(UTC)
            # A clock that was ahead has left times in the future, which would not become old for long.
            chosen = [
                one
                for one in sets
                if not one.verified or not now - older_than <= one.verified.verified_at <= now + AHEAD
            ]
        else:
            usable = [one for one in sets if not one.ahead]
            chosen = usable[-1:] or [store.find(settings.database, "latest")]
        progress = Progress(store, settings.database, announce)
        for one in chosen:
            announce(f"{one.id}:")
            try:
                await verify_set(one, backup, progress, unsigned=unsigned)
            except DatabaseError as error:
                failed.append(error)
    if failed:
        what = "; ".join(error.what for error in failed)
        raise DatabaseError(
            failed[0].code, f"{len(failed)} of {len(chosen)} sets failed: {what}", failed[0].hint
        )
    return [one.id for one in chosen]


async def prune(settings: Settings, backup: BackupSettings, dry_run: bool = False) -> list[pruning.Verdict]:
    """Remove the sets that retention does not keep. The caller holds the lock of the store.

    The clock is compared with what the database has recorded, if it can be asked, and with the sets. When the
    operator has confirmed the clock, sets from the future are marked as made while it was ahead.

    Args:
        settings: The database, and a user who may read all tables.
        backup: Where the sets are, and how many are kept.
        dry_run: Whether to remove nothing.

    Returns:
        The verdict on each set.

    Raises:
        DatabaseError: the clock contradicts what is recorded, or the sets.
    """
    store = Store(backup.dir)
    clock = await known_state(product(settings, backup))
    if clock and clock.contradiction:
        raise clock.error("No set was removed.")
    now = clock.now if clock else datetime.now(UTC)
    verdicts = pruning.plan(store.sets(settings.database), backup, now, clock.confirmed_at if clock else None)
    if dry_run:
        return verdicts
    for number, verdict in enumerate(verdicts):
        if not verdict.keep and (why := store.remove(verdict.backup)):
            verdicts[number] = pruning.Verdict(verdict.backup, True, why)
        if verdict.keep and pruning.is_ahead(verdict.backup, now):
            verdict.backup.mark_ahead(now)
    return verdicts


async def _check(
    settings: Settings, backup: BackupSettings, env: dict[str, str], notes: list[str]
) -> _Server:
    client = (await run_program("pg_dump", "--version")).split()[2]
    async with connect(
        settings, "occupancy-db backup", server_settings=contents.SNAPSHOT_SETTINGS
    ) as connection:
        server = _Server(client_version=client, **(await connection.execute(_SERVER)).mappings().one())
    if client.split(".")[0] != str(server.version_num // 10_000):
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"pg_dump is of version {client}, and the server of {server.version}",
            "Use programs of the server's version, as 'occupancy-db' on the host does.",
        )
    rehearsal = int(server.database_bytes * _REHEARSAL_SHARE)
    notes.append(require_space(backup, rehearsal, _expected_dump(settings, backup, server.database_bytes)))
    # pg_dump checks whether this user may read all tables, and whether its build supports the compression.
    await run_program(
        "pg_dump", "--schema-only", "--format=custom", f"--compress={backup.compression}",
        "--lock-wait-timeout=60s", "--file=/dev/null", "--no-sync", env=env,
    )  # fmt: skip
    return server


def require_space(backup: BackupSettings, aside: int, dump: int) -> str:
    """Refuse a backup or restore that would fill a disk.

    Args:
        backup: Where sets and throwaway clusters are.
        aside: Size of a copy of the database in bytes.
        dump: Size of a set in bytes.

    Returns:
        A line for the operator.

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
                "Free some space, or keep fewer sets. Nothing was changed.",
            )
    return f"{needs[backup.dir] / 1e6:,.0f} MB wanted, {shutil.disk_usage(backup.dir).free / 1e6:,.0f} free"


def _expected_dump(settings: Settings, backup: BackupSettings, database_bytes: int) -> int:
    sets = [one.manifest for one in Store(backup.dir).sets(settings.database) if one.manifest]
    shares = [one.files[DUMP].bytes / one.database_bytes * 1.2 for one in sets[-1:] if one.database_bytes]
    return int(database_bytes * (shares[0] if shares else _DUMP_SHARE))


async def _dump_and_decode(
    settings: Settings, backup: BackupSettings, progress: Progress, partial: Path, superuser: str
) -> tuple[contents.Contents, datetime]:
    """Write the dump, read it once, and return the content of the database and the end of the dump."""
    with progress.phase("dump") as notes:
        other = settings.database in backup.others  # its clients do not know the lock
        lock = nullcontext() if other else hold_lock(settings, LOCK_WAIT, contents.SNAPSHOT_SETTINGS)
        async with lock:
            saved = await _dump(settings, backup, partial, superuser)
        ended = datetime.now(UTC)
        notes.append(f"{saved.rows:,} rows, {(partial / DUMP).stat().st_size / 1e6:,.1f} MB")
    with progress.phase("decode"):
        # pg_restore --list reads only the beginning of the dump; this reads the complete dump.
        await run_program("pg_restore", "--file=/dev/null", partial / DUMP)
    return saved, ended


async def _dump(
    settings: Settings, backup: BackupSettings, partial: Path, superuser: str
) -> contents.Contents:
    """Dump the database and fingerprint its content at the same time, in one snapshot."""
    for name in (DUMP, GLOBALS):
        (partial / name).touch(mode=0o600)
    with libpq_environment(settings) as env:
        await run_program(
            "pg_dumpall", "--roles-only", "--no-role-passwords", f"--database={settings.database}",
            f"--file={partial / GLOBALS}", env=env,
        )  # fmt: skip
        # initdb has created the superuser already, and only the superuser may grant in its own name.
        roles = (partial / GLOBALS).read_text(encoding="utf-8")
        quoted = {f"CREATE ROLE {superuser};", f'CREATE ROLE "{superuser}";'}
        lines = [line for line in roles.splitlines() if line not in quoted]
        (partial / GLOBALS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        async with contents.snapshot(settings) as (name, sequences), task_group() as group:
            reading = group.create_task(contents.read(settings, name, sequences))
            await run_program(
                "pg_dump", "--format=custom", f"--compress={backup.compression}", f"--snapshot={name}",
                "--lock-wait-timeout=60s", f"--file={partial / DUMP}", env=env,
            )  # fmt: skip
        return reading.result()
