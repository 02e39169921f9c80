"""The database that a restore has replaced: it can become live again, and is dropped later."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from occupancy_db.backup.configuration import BackupSettings, as_user, in_database, product
from occupancy_db.backup.exchange import (
    LOCK_WAIT,
    DatabaseNames,
    administration,
    drop_database,
    exchange,
    find_databases,
    replaced_at,
)
from occupancy_db.backup.progress import Announce, Progress
from occupancy_db.backup.sets import Store
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import clock
from occupancy_db.months import MARGIN
from occupancy_db.schema.privileges import OWNER
from occupancy_db.settings import Settings

KEEP_REPLACED = timedelta(days=1)
"""How long the replaced database is kept at least."""


@dataclass(frozen=True)
class RestoreRollback:
    """What the rollback of a restore has done.

    Attributes:
        live: Comment of the database that is live again: when and by which set it was replaced.
        replaced: Name of the database that was live before; None if there was none.
    """

    live: str | None
    replaced: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"live": self.live, "replaced": self.replaced}


async def rollback(settings: Settings, backup: BackupSettings, announce: Announce) -> RestoreRollback:
    """Exchange the live database and the one that the last restore replaced; a second call undoes the first.

    Args:
        settings: The live database, as a user who may rename databases.
        backup: Where the sets are.
        announce: Takes a line for the operator.

    Raises:
        DatabaseError: there is no replaced database, or the exchange failed: then nothing has changed.
    """
    names = DatabaseNames(settings.database, product(settings, backup).database)
    store = Store(backup.dir)
    progress = Progress(store, names.live, announce)
    async with store.lock(LOCK_WAIT):
        async with administration(settings) as connection:
            existing = await find_databases(connection, names)
            if names.replaced not in existing:
                raise DatabaseError(
                    ExitCode.DATABASE_MISSING,
                    f"there is no database {names.replaced} to go back to",
                    f"It is kept for {KEEP_REPLACED.days} day after a restore. "
                    "Restore a backup set: see 'occupancy-db backup list'.",
                )
            await drop_database(connection, names.restoring)
        with progress.phase("exchange"):
            renames = [(names.replaced, names.live)]
            if names.live in existing:
                renames = [(names.live, names.restoring), *renames, (names.restoring, names.replaced)]
            await exchange(settings, names, renames, "a rollback")
        if names.live in existing and names.own:
            owner = as_user(settings, OWNER, backup)
            await clock.carry(in_database(owner, names.replaced), owner)
    return RestoreRollback(
        live=existing[names.replaced], replaced=names.replaced if names.live in existing else None
    )


async def cleanup(settings: Settings, backup: BackupSettings) -> list[str]:
    """Drop a database that was never finished, and the replaced one after KEEP_REPLACED and MARGIN.

    Args:
        settings: The live database, as a user who may drop databases.
        backup: Where the sets are.

    Returns:
        The names of the databases that were dropped.

    Raises:
        DatabaseError: a restore or backup is running, or the clock contradicts what is recorded.
    """
    names = DatabaseNames(settings.database, product(settings, backup).database)
    state = await clock.known_state(product(settings, backup))
    async with Store(backup.dir).lock(), administration(settings) as connection:
        existing = await find_databases(connection, names)
        dropped = [names.restoring] if names.restoring in existing else []
        since = replaced_at(existing.get(names.replaced))
        if state and since and since > state.now:  # the clock was ahead
            since = state.confirmed_at
        due = state and since and state.now - since > KEEP_REPLACED + MARGIN
        if due and state and not state.contradiction:
            dropped.append(names.replaced)
        for name in dropped:
            await drop_database(connection, name)
    if due and state and state.contradiction:
        raise state.error(f"{names.replaced} was kept.")
    return dropped
