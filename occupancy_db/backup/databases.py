"""The databases of a host: the product's own, and others that it backs up and restores beside it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from occupancy_db.backup import replaced
from occupancy_db.backup.configuration import BackupSettings, in_database
from occupancy_db.backup.sets import database_of
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.settings import Settings

T = TypeVar("T")


def choose(database: str | None, name: str = "") -> tuple[Settings, BackupSettings]:
    """Return the settings for one of the databases.

    Args:
        database: Its name. If None, that of the set whose id is given, or else the product's own database.
        name: The id of a set.

    Raises:
        DatabaseError: the host has no database of this name.
        pydantic.ValidationError: a value of the environment is invalid.
    """
    settings, backup = Settings(), BackupSettings()
    known = [settings.database, *backup.others]
    database = database or next((one for one in backup.others if database_of(name) == one), None)
    if database is not None and database not in known:
        raise DatabaseError(
            ExitCode.DATABASE_MISSING,
            f"{database} is none of the databases of this host: {', '.join(known)}",
            "Name one of them. Others are added with occupancy_extra_databases and 'make up'.",
        )
    return (in_database(settings, database) if database else settings), backup


async def each(work: Callable[[Settings, BackupSettings], Awaitable[T]]) -> list[T]:
    """Do the same for each database, the product's own first; a failure does not keep it from the others.

    Args:
        work: What is done, with the settings of a database.

    Returns:
        The results.

    Raises:
        DatabaseError: it failed for some; the first failure sets the exit code.
    """
    settings, backup = Settings(), BackupSettings()
    done: list[T] = []
    failed: list[tuple[str, DatabaseError]] = []
    for name in [settings.database, *backup.others]:
        try:
            done.append(await work(in_database(settings, name), backup))
        except Exception as error:  # raised below, or at once if it has no explanation
            if not (known := explain(error)):
                raise
            failed.append((name, known))
    if failed:
        # A lock that another command holds is no failure: what is one sets the exit code.
        first = min((error for _, error in failed), key=lambda error: error.code is ExitCode.LOCKED)
        what = "; ".join(f"{name}: {error.what}" for name, error in failed) if backup.others else first.what
        raise DatabaseError(first.code, what, first.hint)
    return done


async def cleanup() -> list[str]:
    """Drop what restores of any database have left or replaced, as ``replaced.cleanup`` does.

    Returns:
        The names of the databases that were dropped.

    Raises:
        DatabaseError: a restore or backup is running, or the clock contradicts what is recorded.
    """
    return [name for dropped in await each(replaced.cleanup) for name in dropped]
