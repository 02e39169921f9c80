"""The record of what was erased: beside the backup sets, and in each set that is made later."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.files import replace
from occupancy_db.backup.manifest import Erasure, SealedFile
from occupancy_db.backup.sets import BackupSet, Store
from occupancy_db.backup.signatures import require_signature
from occupancy_db.errors import DatabaseError
from occupancy_db.history.selection import Selection


class Record(SealedFile):
    """The erasures of a database, the earliest first."""

    erasures: list[Erasure]


async def known(store: Store, database: str, backup: BackupSettings) -> list[Erasure]:
    """Return the erasures of the record and of the sets, the earliest first.

    After the loss of a host, the sets that were copied elsewhere bring the record back.

    Args:
        store: The sets; the caller holds its lock.
        database: Name of the database.
        backup: The keys whose sets are trusted.

    Raises:
        DatabaseError: the record is damaged.
    """
    found: dict[str, Erasure] = {}
    for one in store.sets(database):
        if one.manifest and one.manifest.erasures and await _is_trusted(one, backup):
            found |= {erasure.id: erasure for erasure in one.manifest.erasures}
    path = _path(store, database)
    if path.exists():
        for erasure in Record.unseal(path).erasures:
            # Those in sets are complete.
            found.setdefault(erasure.id, erasure)
    return sorted(found.values(), key=lambda erasure: (erasure.at, erasure.id))


async def complete(store: Store, database: str, backup: BackupSettings) -> list[Erasure]:
    """Return the erasures that are complete, as ``known`` does."""
    return [one for one in await known(store, database, backup) if one.complete]


def record(store: Store, database: str, erasures: Iterable[Erasure]) -> None:
    """Write the record.

    Args:
        store: The sets; the caller holds its lock.
        database: Name of the database.
        erasures: All of its erasures.

    Raises:
        OSError: the file cannot be written.
    """
    content = Record(erasures=list(erasures))
    if content.erasures:
        replace(_path(store, database), content.seal())


def begin(known: list[Erasure], selection: Selection) -> Erasure:
    """Return the erasure of a selection: the one that was interrupted, or a new one.

    Args:
        known: The erasures so far.
        selection: What is to be removed.
    """
    for one in known:
        if one.selection == selection and not one.complete:
            return one
    return Erasure(id=token_hex(8), at=datetime.now(UTC), selection=selection, complete=False)


def sets_with(sets: Iterable[BackupSet], erasure: Erasure) -> list[BackupSet]:
    """Return the sets that were made before an erasure, and may contain what it has removed."""
    return [
        one for one in sets if not one.manifest or erasure.id not in {e.id for e in one.manifest.erasures}
    ]


def _path(store: Store, database: str) -> Path:
    return store.directory / f"{database}.erasures.json"


async def _is_trusted(one: BackupSet, backup: BackupSettings) -> bool:
    try:
        await require_signature(one, backup)
    except DatabaseError:
        return False
    return True
