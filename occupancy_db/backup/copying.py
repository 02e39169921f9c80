"""The restore of a set into a new database, and the comparison with what was saved."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents
from occupancy_db.backup.contents import Contents
from occupancy_db.backup.manifest import DUMP
from occupancy_db.backup.programs import libpq_environment, run_program
from occupancy_db.backup.sets import BackupSet
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

_JOBS = 2
"""Number of sessions of pg_restore, one for each core."""

# The jobs build indexes at the same time, and share maintenance_work_mem: the memory suffices for one of it.
_INDEX_MEMORY = text(
    "SELECT greatest(min_val::int, setting::int / CAST(:jobs AS int))"
    " FROM pg_settings WHERE name = 'maintenance_work_mem'"
)


TEMPLATE = "occupancy_template"
"""The database that a restore copies: the superuser has revoked privileges of PUBLIC in it (role access)."""

# Another encoding or locale is possible with template0 only.
_TEMPLATE = text("""
    SELECT datname FROM pg_database
    WHERE datname = :name AND datistemplate AND pg_encoding_to_char(encoding) = :encoding
      AND datcollate = :collate AND datctype = :ctype
""")


def quote(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


async def create_database(connection: AsyncConnection, name: str, saved: Contents, owner: str = "") -> None:
    """Create an empty database with the encoding and the locale of the saved one.

    Args:
        connection: A connection in autocommit mode, as a user who may create databases.
        name: Name of the new database.
        saved: Content of the saved database.
        owner: Owner of the new database; the connection's user if empty.

    Raises:
        sqlalchemy.exc.DBAPIError: the server refused.
    """
    same = {"encoding": saved.encoding, "collate": saved.collate, "ctype": saved.ctype}
    template = await connection.scalar(_TEMPLATE, {"name": TEMPLATE, **same}) or "template0"
    await connection.exec_driver_sql(
        f"CREATE DATABASE {quote(name)} {f'OWNER {quote(owner)}' if owner else ''} TEMPLATE {template} "
        f"ENCODING '{saved.encoding}' LC_COLLATE '{saved.collate}' LC_CTYPE '{saved.ctype}'"
    )


async def restore_dump(settings: Settings, backup: BackupSet, *arguments: str) -> None:
    """Restore a set's dump into an empty database.

    Args:
        settings: The database, and a user who may create everything in it.
        backup: The set; its files have been checked.
        arguments: Additional arguments of pg_restore.

    Raises:
        DatabaseError: pg_restore failed, at the first error.
    """
    async with connect(settings, "occupancy-db restore") as connection:
        memory = await connection.scalar(_INDEX_MEMORY, {"jobs": _JOBS})
    with libpq_environment(settings) as env:
        await run_program(
            "pg_restore", "--exit-on-error", f"--jobs={_JOBS}", f"--dbname={settings.database}",
            *arguments, backup.path / DUMP, env=env | {"PGOPTIONS": f"-c maintenance_work_mem={memory}kB"},
        )  # fmt: skip


async def compare(settings: Settings, name: str, saved: Contents) -> Contents:
    """Read the content of a restored database, and compare it with what was saved.

    Args:
        settings: The restored database.
        name: Id of the set, for the error.
        saved: Content according to the manifest.

    Returns:
        The content of the restored database.

    Raises:
        DatabaseError: the content is different; the text names the differences.
    """
    found = await contents.read(settings)
    if lines := saved.differences(found):
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise DatabaseError(
            ExitCode.DIFFERENT,
            f"{name} does not restore what was saved: {'; '.join(lines[:5])}{more}",
            "Use another set, and keep this one for an investigation.",
        )
    return found
