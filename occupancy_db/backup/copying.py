"""A set becomes a database: made like the one that was saved, filled, and compared with it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents
from occupancy_db.backup.contents import Contents
from occupancy_db.backup.programs import login, run
from occupancy_db.backup.sets import DUMP, BackupSet
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

_JOBS = 2
"""Sessions of pg_restore: a core each."""

# The server's memory has room for one index build, and each job builds indexes: they share it.
_INDEX_MEMORY = text(
    "SELECT greatest(min_val::int, setting::int / CAST(:jobs AS int))"
    " FROM pg_settings WHERE name = 'maintenance_work_mem'"
)


def quote(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


async def create_database(connection: AsyncConnection, name: str, saved: Contents, owner: str = "") -> None:
    """Make an empty database with the encoding and the order of the one that was saved.

    Args:
        connection: In autocommit, of a user who may.
        name: Its name.
        saved: What the other one held.
        owner: Whose it is; the user's own if not given.
    """
    await connection.exec_driver_sql(
        f"CREATE DATABASE {quote(name)} {f'OWNER {quote(owner)}' if owner else ''} TEMPLATE template0 "
        f"ENCODING '{saved.encoding}' LC_COLLATE '{saved.collate}' LC_CTYPE '{saved.ctype}'"
    )


async def fill(settings: Settings, backup: BackupSet, *arguments: str) -> None:
    """Restore a set's dump into an empty database.

    Args:
        settings: The database, and a user who may make everything in it.
        backup: The set, checked.
        arguments: More for pg_restore.

    Raises:
        DatabaseError: pg_restore failed, at the first error.
    """
    async with connect(settings, "occupancy-db restore") as connection:
        memory = await connection.scalar(_INDEX_MEMORY, {"jobs": _JOBS})
    with login(settings) as env:
        await run(
            "pg_restore", "--exit-on-error", f"--jobs={_JOBS}", f"--dbname={settings.database}",
            *arguments, backup.path / DUMP, env=env | {"PGOPTIONS": f"-c maintenance_work_mem={memory}kB"},
        )  # fmt: skip


async def compare(settings: Settings, name: str, saved: Contents) -> Contents:
    """Read what a database holds, and insist that it is what was saved.

    Args:
        settings: The restored database.
        name: The set's id, for the error.
        saved: What its manifest says.

    Raises:
        DatabaseError: it is not; it says where they differ.
    """
    found = await contents.read(settings)
    if lines := saved.differences(found):
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise DatabaseError(
            ExitCode.DIFFERENT,
            f"{name} does not restore what was saved: {'; '.join(lines[:5])}{more}",
            "Use another set, and keep this one for whoever looks into it.",
        )
    return found
