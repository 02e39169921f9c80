"""The restore of a set into a new database, and the comparison with what was saved.

Restores and rehearsals call the same functions, as the same user.
"""

import re
import tempfile
from pathlib import Path

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents
from occupancy_db.backup.configuration import in_database
from occupancy_db.backup.contents import Contents
from occupancy_db.backup.manifest import DUMP, Manifest
from occupancy_db.backup.programs import libpq_environment, run_program
from occupancy_db.backup.sets import BackupSet
from occupancy_db.connection import connect
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema import privileges
from occupancy_db.schema.definitions import Definitions
from occupancy_db.schema.privileges import OWNER
from occupancy_db.settings import Settings

RESTORE_USER = "occupancy_restore"
"""The user who restores: no superuser, but a member of the owner."""

_JOBS = 2
"""Number of sessions of pg_restore, one for each core."""

_PRIVILEGES = Path(privileges.__file__).with_name("privileges.sql")
_OTHER_PRIVILEGES = _PRIVILEGES.with_name("other_privileges.sql")

# The jobs build indexes at the same time, and share maintenance_work_mem: the memory suffices for one of it.
_INDEX_MEMORY = text(
    "SELECT greatest(min_val::int, setting::int / CAST(:jobs AS int))"
    " FROM pg_settings WHERE name = 'maintenance_work_mem'"
)

# The statements about the database itself, with its name as the second group
_NAMED = re.compile(
    r"^(ALTER DATABASE|ALTER ROLE \S+ IN DATABASE|GRANT [^\n]* ON DATABASE|REVOKE [^\n]* ON DATABASE) "
    r'("(?:[^"]|"")+"|\S+) ',
    re.MULTILINE,
)

# An entry of the list of pg_restore; its last word is the owner.
_DEFAULT_PRIVILEGES = re.compile(r"^\d+; \d+ \d+ DEFAULT ACL .* (\S+)$")

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


async def dumped_definitions(backup: BackupSet) -> Definitions:
    """Return the definitions that a set contains.

    Raises:
        DatabaseError: pg_restore failed.
    """
    return Definitions(
        await run_program("pg_restore", "--create", "--schema-only", "--file=-", backup.path / DUMP),
        backup.owner,
    )


async def read_definitions(settings: Settings) -> Definitions:
    """Return the definitions of a database.

    Args:
        settings: The database, and a user who may read all tables.

    Raises:
        DatabaseError: pg_dump failed, or is not on PATH.
    """
    with libpq_environment(settings) as env:
        return Definitions(
            await run_program("pg_dump", "--create", "--schema-only", "--lock-wait-timeout=60s", env=env)
        )


def left_behind(definitions: Definitions) -> list[str]:
    """Name what a set contains and a restore does not bring back as it was, a line each."""
    _, others = _of_database(definitions)
    return [
        *(f"a restore makes {definitions.owner} the owner of: {one}" for one in definitions.foreign_owners()),
        *(f"a restore does not bring back: {one}" for one in (*definitions.foreign_defaults(), *others)),
    ]


async def restore_copy(
    settings: Settings, name: str, backup: BackupSet, manifest: Manifest, owner: Settings | None = None
) -> None:
    """Restore a set into a new database of its owner.

    Args:
        settings: The server, and the user who restores.
        name: Name of the new database.
        backup: The set; its files have been checked.
        manifest: Its manifest.
        owner: The login of the owner, who then fills the database: a restore runs functions of the set, which
            could take the other roles of the user who restores. That user acts as the owner if None.

    Raises:
        DatabaseError: something cannot be restored; the text names it.
        sqlalchemy.exc.DBAPIError: the database cannot be created.
    """
    async with connect(
        in_database(settings, "postgres"), "occupancy-db restore", autocommit=True
    ) as connection:
        await _create_database(connection, name, manifest)
    restored = in_database(owner or settings, name)
    await _restore_dump(restored, backup)
    statements, _ = _of_database(await dumped_definitions(backup))
    async with connect_driver(restored, "occupancy-db restore", {"role": manifest.owner}) as connection:
        for statement in statements:
            try:
                await connection.execute(_NAMED.sub(lambda found: f"{found[1]} {quote(name)} ", statement))
            except asyncpg.PostgresError as error:
                raise DatabaseError(
                    ExitCode.DAMAGED,
                    f"this cannot be restored: {statement.strip()} {error}",
                    "A restore is not a superuser: reset that setting (ALTER DATABASE … RESET …), then take "
                    "another backup.",
                ) from error


async def compare(settings: Settings, backup: BackupSet, saved: Contents) -> Contents:
    """Read the content and the definitions of a restored database, and compare them with the set.

    Args:
        settings: The restored database, and a user who may read everything.
        backup: The set.
        saved: Content according to the manifest.

    Returns:
        The content of the restored database.

    Raises:
        DatabaseError: the content is different; the text names the differences.
    """
    found = await contents.read(settings)
    lines = saved.differences(found)
    lines += (await dumped_definitions(backup)).differences(await read_definitions(settings))
    if lines:
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise DatabaseError(
            ExitCode.DIFFERENT,
            f"{backup.id} does not restore what was saved: {'; '.join(lines[:5])}{more}",
            "Use another set, and keep this one for an investigation.",
        )
    return found


async def grant(settings: Settings, owner: str = OWNER) -> None:
    """Set the privileges of the product's users in a restored database.

    Args:
        settings: The restored database, and the user who restores.
        owner: The owner of the database; another one than the product's owns a database besides it.

    Raises:
        DatabaseError: psql failed.
    """
    script = _PRIVILEGES if owner == OWNER else _OTHER_PRIVILEGES
    with libpq_environment(settings) as env:
        await run_program(
            "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f", script,
            env={**env, "PGOPTIONS": f"-c role={owner}"},
        )  # fmt: skip


async def _create_database(connection: AsyncConnection, name: str, manifest: Manifest) -> None:
    """Create an empty database of the owner with the encoding and the locale of the saved one."""
    saved = manifest.contents
    same = {"encoding": saved.encoding, "collate": saved.collate, "ctype": saved.ctype}
    template = await connection.scalar(_TEMPLATE, {"name": TEMPLATE, **same}) or "template0"
    await connection.exec_driver_sql(
        f"CREATE DATABASE {quote(name)} OWNER {quote(manifest.owner)} TEMPLATE {template} "
        f"ENCODING '{saved.encoding}' LC_COLLATE '{saved.collate}' LC_CTYPE '{saved.ctype}'"
    )


async def _restored_entries(dump: Path, owner: str) -> str:
    """List what a restore restores: everything but default privileges of other users than the owner.

    Any user may set these for the objects that it creates, and a restore may not.
    """
    lines = (await run_program("pg_restore", "--list", dump)).splitlines()
    found = ((line, _DEFAULT_PRIVILEGES.match(line)) for line in lines)
    return "\n".join(line for line, entry in found if entry is None or entry[1] == owner)


async def _restore_dump(settings: Settings, backup: BackupSet) -> None:
    async with connect(settings, "occupancy-db restore") as connection:
        memory = await connection.scalar(_INDEX_MEMORY, {"jobs": _JOBS})
    dump = backup.path / DUMP
    with libpq_environment(settings) as env, tempfile.NamedTemporaryFile("w", encoding="utf-8") as chosen:
        chosen.write(await _restored_entries(dump, backup.owner))
        chosen.flush()
        await run_program(
            "pg_restore", "--exit-on-error", "--no-owner", f"--role={backup.owner}", f"--jobs={_JOBS}",
            f"--use-list={chosen.name}", f"--dbname={settings.database}", dump,
            env=env | {"PGOPTIONS": f"-c maintenance_work_mem={memory}kB"},
        )  # fmt: skip


def _of_database(definitions: Definitions) -> tuple[list[str], list[str]]:
    """The statements about the database itself: those that a restore runs as the owner, and others.

    Any user may have settings of its own in a database. They are not brought back: a restore would need the
    privileges of that user.
    """
    ours, others = [], []
    for one in definitions.entries:
        kind, _, name = one.key
        if not kind.startswith("DATABASE") and not name.startswith("DATABASE "):
            continue
        for statement in re.split(
            r"^(?=ALTER |GRANT |REVOKE |UPDATE |COMMENT )", one.text, flags=re.MULTILINE
        ):
            if " OWNER TO " in statement.partition("\n")[0] or statement.startswith("CREATE DATABASE"):
                continue
            mine = ("ALTER DATABASE", "GRANT ", "REVOKE ", f"ALTER ROLE {definitions.owner} ")
            if statement.startswith(mine):
                ours.append(statement)
            elif statement.strip():
                others.append(" ".join(statement.split()))
    return ours, others
