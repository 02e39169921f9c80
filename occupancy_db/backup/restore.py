"""Restores: into another database, which is compared, verified and then exchanged with the live one."""

from dataclasses import dataclass
from typing import Any

from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents, create, erasing, erasures
from occupancy_db.backup.configuration import BackupSettings, as_user, in_database, product
from occupancy_db.backup.copying import compare, grant, restore_copy
from occupancy_db.backup.exchange import (
    LOCK_WAIT,
    DatabaseNames,
    Rename,
    administration,
    drop_database,
    exchange,
    find_databases,
    require_no_superuser,
)
from occupancy_db.backup.manifest import DUMP, Erasure, Manifest
from occupancy_db.backup.progress import Announce, Progress
from occupancy_db.backup.replaced import KEEP_REPLACED
from occupancy_db.backup.sets import BackupSet, SetState, Store
from occupancy_db.backup.signatures import require_signature
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import clock, upkeep
from occupancy_db.history.policy import RetentionSettings
from occupancy_db.schema import privileges, runner
from occupancy_db.schema.privileges import BACKUP_USER, CONNECTION_WAIT, OWNER, USERS
from occupancy_db.settings import Settings

_OWNER = text("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :name")
_MISSING_ROLES = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
""")


@dataclass(frozen=True)
class Restoration:
    """What a restore has done.

    Attributes:
        set_id: Id of the set that is live now.
        revision: Its revision, after the migrations of this release.
        rows: Number of rows that were compared.
        safety_backup: Id of the set that was made of the former live database; None if none was made.
        replaced: Name of the database that was live before; None if there was none.
        phases: Seconds by phase.
    """

    set_id: str
    revision: str | None
    rows: int
    safety_backup: str | None
    replaced: str | None
    phases: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "set": self.set_id,
            "revision": self.revision,
            "rows": self.rows,
            "safety_backup": self.safety_backup,
            "replaced": self.replaced,
            "phases": self.phases,
        }


@dataclass(frozen=True)
class _Chosen:
    """A set that can be restored, and where.

    Attributes:
        backup_set: The set; its files have been checked.
        manifest: Its manifest.
        existing: Which of the databases exist, with their comments.
    """

    backup_set: BackupSet
    manifest: Manifest
    existing: dict[str, str | None]


async def restore(
    settings: Settings,
    backup: BackupSettings,
    name: str,
    announce: Announce,
    *,
    safety_backup: bool = True,
    unsigned: bool = False,
) -> Restoration:
    """Replace the live database with a set, and keep the replaced database for a day.

    The live database is not changed before the exchange, and the exchange is one transaction.

    Args:
        settings: The live database, as a user who may create databases for the owner and rename them.
        backup: Where the sets and the other users' passwords are.
        name: A set's id, or ``latest``.
        announce: Takes a line for the operator.
        safety_backup: Whether a set is made of the live database first.
        unsigned: Whether a set without a signature is accepted where keys are trusted.

    Raises:
        DatabaseError: the restore failed; the error names the reason and the state of the live database.
    """
    names = DatabaseNames(settings.database, product(settings, backup).database)
    store = Store(backup.dir)
    progress = Progress(store, names.live, announce)
    async with store.lock(LOCK_WAIT):
        with progress.phase("choose") as notes:
            chosen = await _choose(settings, backup, names, name, unsigned)
            set_id = chosen.backup_set.id
            notes += [set_id, *store.foreign(names.live)]
        with progress.phase("restore"):
            await _restore_beside_live(settings, backup, names, chosen)
        restored = in_database(settings, names.restoring)
        with progress.phase("compare") as notes:
            reader = as_user(restored, BACKUP_USER, backup)
            found = await compare(reader, chosen.backup_set, chosen.manifest.contents)
            notes.append(f"{found.rows:,} rows")
        with progress.phase("prepare") as notes:
            revision, erased = await _prepare(restored, backup, names, chosen.manifest, notes)
        with progress.phase("try"):
            for user in USERS if names.own else []:
                await privileges.verify_privileges(as_user(restored, user, backup))
        saved = names.live in chosen.existing and safety_backup
        safety = await _save_live(settings, backup, progress, set_id) if saved else None
        with progress.phase("exchange"):
            renames = await _make_live(settings, names, chosen)
            erasures.record(store, names.live, erased)
        with progress.phase("look again"):
            users = _users(names, chosen.manifest)
            await _verify_exchange(settings, backup, names, renames, users, revision)
    return Restoration(
        set_id=set_id,
        revision=revision,
        rows=found.rows,
        safety_backup=safety.id if safety else None,
        replaced=names.replaced if names.live in chosen.existing else None,
        phases=progress.phases,
    )


async def _choose(
    settings: Settings, backup: BackupSettings, names: DatabaseNames, name: str, unsigned: bool
) -> _Chosen:
    """Find the set, and check everything that is known before the restore begins."""
    backup_set = Store(backup.dir).find(names.live, name)
    await require_signature(backup_set, backup, unsigned=unsigned)
    manifest = _usable(backup_set, names)
    async with administration(settings) as connection:
        existing = await _preflight(connection, names, manifest)
    for user in _users(names, manifest):
        as_user(settings, user, backup)
    create.require_space(backup, manifest.database_bytes, manifest.files[DUMP].bytes)
    return _Chosen(backup_set, manifest, existing)


def _users(names: DatabaseNames, manifest: Manifest) -> list[str]:
    """The users who connect to the database."""
    return USERS if names.own else [BACKUP_USER, manifest.owner]


def _usable(backup_set: BackupSet, names: DatabaseNames) -> Manifest:
    manifest = backup_set.intact()
    if backup_set.state is not SetState.VERIFIED:
        raise DatabaseError(
            ExitCode.DAMAGED,
            f"{backup_set.id} has not been verified",
            f"Run 'occupancy-db backup verify {backup_set.id}' first, or use another set.",
        )
    if not names.own:
        return manifest
    revision = manifest.contents.revision
    try:
        known = revision is not None and runner.script_directory().get_revision(revision) is not None
    except CommandError:
        known = False
    if not known:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{backup_set.id} has the revision {revision}, which this release does not know",
            "Use the release that it was made with, or a newer one.",
        )
    return manifest


async def _preflight(
    connection: AsyncConnection, names: DatabaseNames, manifest: Manifest
) -> dict[str, str | None]:
    version = await connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if version // 10_000 != manifest.server_version_num // 10_000:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{manifest.id} is of PostgreSQL {manifest.server_version}, the server of {version // 10_000}",
            "Use a server of the same version.",
        )
    users = [*USERS, connection.engine.url.username, manifest.owner]
    if missing := (await connection.scalars(_MISSING_ROLES, {"names": users})).all():
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"users of the product are missing: {', '.join(missing)}",
            "Run 'make up', which creates them. Nothing was changed.",
        )
    owner = await connection.scalar(_OWNER, {"name": names.live})
    if not names.own and (manifest.owner == OWNER or owner not in {None, manifest.owner}):
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{manifest.id} is of a database of {manifest.owner}, and {names.live} belongs to {owner}",
            "Name that owner in occupancy_extra_databases, and run 'make up'. Nothing was changed.",
        )
    await require_no_superuser(connection, names.live)
    return await find_databases(connection, names)


async def _restore_beside_live(
    settings: Settings, backup: BackupSettings, names: DatabaseNames, chosen: _Chosen
) -> None:
    async with administration(settings) as connection:
        await drop_database(connection, names.restoring)
    owner = None if names.own else as_user(settings, chosen.manifest.owner, backup)
    await restore_copy(settings, names.restoring, chosen.backup_set, chosen.manifest, owner)


async def _prepare(
    restored: Settings, backup: BackupSettings, names: DatabaseNames, manifest: Manifest, notes: list[str]
) -> tuple[str | None, list[Erasure]]:
    """Make a restored database ready for its clients; returns its revision, and what has been erased."""
    revision = manifest.contents.revision
    erased: list[Erasure] = []
    if names.own:
        revision = await _migrate(restored, backup, names.live, notes)
    owner = as_user(restored, manifest.owner, backup)
    await grant(restored if names.own else owner, manifest.owner)
    async with connect(
        owner, "occupancy-db restore", server_settings=contents.SNAPSHOT_SETTINGS, autocommit=True
    ) as connection:
        await connection.exec_driver_sql("ANALYZE")
    if names.own:
        erased = await erasing.repeat(owner, backup, manifest, notes)
    return revision, erased


async def _migrate(restored: Settings, backup: BackupSettings, live: str, notes: list[str]) -> str | None:
    """Bring a restored database of the product to this release, and return its revision."""
    owner = as_user(restored, OWNER, backup)
    migrated = await runner.upgrade(owner)
    notes += [f"applied {revision}" for revision in migrated.applied]
    await clock.carry(in_database(owner, live), owner)
    try:
        policy = RetentionSettings()
        await upkeep.maintain(owner, policy.retention_months_ahead, months_back=policy.retention_months_back)
    except DatabaseError as error:
        if error.code is not ExitCode.CLOCK:
            raise
        notes.append(error.what)  # the jobs will name the command that confirms the clock
    return migrated.after


async def _save_live(
    settings: Settings, backup: BackupSettings, progress: Progress, set_id: str
) -> BackupSet:
    """Make a verified set of the live database before the set of the given id replaces it."""
    live = as_user(settings, BACKUP_USER, backup)
    try:
        made = await create.make_set(
            live, backup, progress, pin=f"made before the restore of {set_id}", before_restore_of=set_id
        )
        await create.verify_set(made, backup, progress)
    except DatabaseError as error:
        raise DatabaseError(
            error.code,
            f"no safety backup of the live database could be made; it was not changed: {error.what}",
            f"{error.hint} If the live database cannot be dumped, restore with --without-safety-backup; "
            f"it is still kept for {KEEP_REPLACED.days} day.",
        ) from error
    return made


async def _make_live(settings: Settings, names: DatabaseNames, chosen: _Chosen) -> list[Rename]:
    """Exchange the restored and the live database; returns the renames."""
    if names.replaced in chosen.existing:
        async with administration(settings) as connection:
            # The exchange must not be refused after the older database was dropped.
            await require_no_superuser(connection, names.live)
            await drop_database(connection, names.replaced)
    renames = [(names.live, names.replaced)] if names.live in chosen.existing else []
    renames.append((names.restoring, names.live))
    await exchange(settings, names, renames, chosen.backup_set.id)
    return renames


async def _verify_exchange(
    settings: Settings,
    backup: BackupSettings,
    names: DatabaseNames,
    renames: list[Rename],
    users: list[str],
    revision: str | None,
) -> None:
    """Verify that every user can connect to the new live database; exchange it back if one cannot."""
    try:
        for user in users:
            async with connect(
                as_user(settings, user, backup), "occupancy-db restore", patience=CONNECTION_WAIT
            ):
                pass  # disconnected clients connect again at the same time
        if not names.own:
            return
        async with connect(
            as_user(settings, OWNER, backup), "occupancy-db restore", patience=CONNECTION_WAIT
        ) as connection:
            found = await runner.current_revision(connection)
        if found != revision:
            raise DatabaseError(ExitCode.DIFFERENT, f"{names.live} has the revision {found}", "")
    except DatabaseError as error:
        undo = [(new, old) for old, new in reversed(renames)]
        try:
            await exchange(settings, names, undo, "nothing")
        except Exception:  # after any error the operator needs to know the state
            raise DatabaseError(
                error.code,
                f"{names.live} is the restored database, and it fails: {error.what}",
                "The replaced database still exists: run 'occupancy-db restore-rollback "
                f"--confirm {names.live}' to exchange them again.",
            ) from error
        raise DatabaseError(
            error.code,
            f"the restored database failed after the exchange, which was reverted: {error.what}",
            f"{names.live} is unchanged.",
        ) from error
