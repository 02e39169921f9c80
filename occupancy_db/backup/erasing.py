"""Erasures: data are removed from the databases of a host, and then from its backup sets."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from occupancy_db.backup import create, erasures, pruning
from occupancy_db.backup.configuration import BackupSettings, as_user, in_database
from occupancy_db.backup.exchange import (
    LOCK_WAIT,
    DatabaseNames,
    administration,
    drop_database,
    find_databases,
)
from occupancy_db.backup.manifest import Erasure, Manifest
from occupancy_db.backup.progress import Announce, Progress
from occupancy_db.backup.sets import BackupSet, Store
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import erase
from occupancy_db.history.selection import Selection, require_room
from occupancy_db.schema.privileges import BACKUP_USER, OWNER
from occupancy_db.settings import Settings


@dataclass(frozen=True)
class HoldingSet:
    """A backup set that may contain what was erased.

    Attributes:
        id: Its id.
        expires_at: When retention removes it at the latest; None if that is not decided by retention.
        pinned: Why it is kept until somebody unpins it; None if it is not pinned.
    """

    id: str
    expires_at: datetime | None
    pinned: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        expires_at = self.expires_at.isoformat(timespec="seconds") if self.expires_at else None
        return {"id": self.id, "expires_at": expires_at, "pinned": self.pinned}


@dataclass(frozen=True)
class Erased:
    """What an erasure has done.

    Attributes:
        erasure: Its record.
        rows: Number of removed rows by database and table.
        new_set: Id of the set that was made afterwards; None if none was asked for.
        removed: Ids of the sets that were removed.
        holding: The sets that are left and may contain the data.
    """

    erasure: Erasure
    rows: dict[str, dict[str, int]]
    new_set: str | None
    removed: list[str]
    holding: list[HoldingSet]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "erasure": self.erasure.model_dump(mode="json"),
            "rows": self.rows,
            "new_set": self.new_set,
            "removed_sets": self.removed,
            "sets_with_the_data": [one.as_dict() for one in self.holding],
        }


async def preview(
    settings: Settings, backup: BackupSettings, selection: Selection
) -> tuple[dict[str, erase.TableRows | None], list[HoldingSet]]:
    """Count what an erasure would remove, and list the sets that would still contain it.

    Args:
        settings: The database.
        backup: Where the sets and the passwords are.
        selection: What would be removed.

    Raises:
        DatabaseError: there is no such room, or no connection.
    """
    owner = as_user(settings, OWNER, backup)
    await require_room(owner, selection)
    sets = Store(backup.dir).sets(settings.database)
    return await erase.count(owner, selection), await _holding(settings, backup, sets)


async def run(
    settings: Settings,
    backup: BackupSettings,
    selection: Selection,
    announce: Announce,
    *,
    from_backups: bool = False,
) -> Erased:
    """Remove what a selection names from the live database, and from the one that the last restore replaced.

    The erasure is recorded first, so that a restore in the middle does not bring the data back. After an
    interruption, the same call goes on.

    Args:
        settings: The live database, as the user who restores.
        backup: Where the sets and the other users' passwords are.
        selection: What is removed.
        announce: Takes a line for the operator.
        from_backups: Whether a new set is made and verified, and the sets before the erasure are removed.

    Raises:
        DatabaseError: there is no such room, or something failed; the record says that it is not complete.
    """
    names = DatabaseNames(settings.database)
    store = Store(backup.dir)
    progress = Progress(store, names.live, announce)
    owner = as_user(settings, OWNER, backup)
    await require_room(owner, selection)
    async with store.lock(LOCK_WAIT):
        known = await erasures.known(store, names.live, backup)
        erasure = erasures.begin(known, selection)
        others = [one for one in known if one.id != erasure.id]
        erasures.record(store, names.live, [*others, erasure])
        async with administration(settings) as connection:
            await drop_database(connection, names.restoring)  # of an interrupted restore
            existing = await find_databases(connection, names)
        rows = {}
        for name in sorted(existing.keys() - {names.restoring}):
            with progress.phase(f"erase in {name}") as notes:
                rows[name] = await erase.erase(in_database(owner, name), selection)
                notes.append(f"{sum(rows[name].values()):,} rows removed")
        erasure = erasure.model_copy(update={"complete": True})
        erasures.record(store, names.live, [*others, erasure])
        new, removed = None, []
        if from_backups:
            new = await _new_set(settings, backup, progress, erasure)
            with progress.phase("remove sets") as notes:
                removed = _remove_sets(store, erasures.sets_with(store.sets(names.live), erasure), notes)
        left = erasures.sets_with(store.sets(names.live), erasure)
        return Erased(erasure, rows, new, removed, await _holding(settings, backup, left))


async def repeat(
    restored: Settings, backup: BackupSettings, manifest: Manifest, notes: list[str]
) -> list[Erasure]:
    """Erase from a restored database what its set still contains.

    Args:
        restored: The restored database, as its owner.
        backup: Where the sets are; the caller holds the lock of the store.
        manifest: The manifest of the set.
        notes: Takes a line for each erasure.

    Returns:
        The record after this restore: all erasures are complete.

    Raises:
        DatabaseError: the record is damaged, or the removal failed.
    """
    known = await erasures.known(Store(backup.dir), manifest.database, backup)
    for one in known:
        if one.id not in {earlier.id for earlier in manifest.erasures}:
            rows = await erase.erase(restored, one.selection)
            notes.append(f"{sum(rows.values()):,} rows of {one.selection}")
    return [one.model_copy(update={"complete": True}) for one in known]


async def _new_set(settings: Settings, backup: BackupSettings, progress: Progress, erasure: Erasure) -> str:
    """Make a verified set without what was erased."""
    made = await create.make_set(as_user(settings, BACKUP_USER, backup), backup, progress)
    await create.verify_set(made, backup, progress)
    assert erasures.sets_with([made], erasure) == []
    return made.id


def _remove_sets(store: Store, sets: list[BackupSet], notes: list[str]) -> list[str]:
    removed = []
    for one in sets:
        if why := store.remove(one):
            notes.append(f"{one.id} was kept: it {why}")
        else:
            removed.append(one.id)
    notes.append(f"{len(removed)} removed")
    return removed


async def _holding(settings: Settings, backup: BackupSettings, sets: list[BackupSet]) -> list[HoldingSet]:
    now = datetime.now(UTC)
    try:
        ends = pruning.expiry(Store(backup.dir).sets(settings.database), backup, now)
    except DatabaseError as error:
        if error.code is not ExitCode.CLOCK:
            raise
        ends = {}  # retention removes nothing until the clock is confirmed
    return [HoldingSet(one.id, ends.get(one.id), one.pinned) for one in sets]
