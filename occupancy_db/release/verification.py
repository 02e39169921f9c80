"""Verification that a schema is that of its revision, and that the product's users have their privileges."""

from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents
from occupancy_db.backup.configuration import BackupSettings, as_user
from occupancy_db.backup.rehearsal import throwaway_cluster
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.release.precheck import INVALID_INDEXES, DatabaseState
from occupancy_db.schema import definitions, privileges, runner
from occupancy_db.schema.definitions import Schema
from occupancy_db.schema.privileges import USERS
from occupancy_db.settings import Settings


async def reference_schemas(backup: BackupSettings, state: DatabaseState) -> tuple[Schema, Schema]:
    """Run the migrations in a throwaway cluster.

    Args:
        backup: Where throwaway clusters are made.
        state: The database's revision.

    Returns:
        The definitions at the database's revision, and at the newest revision.

    Raises:
        DatabaseError: a migration failed.
    """
    async with throwaway_cluster(backup.rehearsal_dir, "postgres") as settings:
        async with connect(settings, "occupancy-db migrate", autocommit=True) as connection:
            for user in USERS:  # a migration may name them
                await connection.exec_driver_sql(f"CREATE ROLE {user}")
        try:
            await runner.upgrade(settings, state.revision or "base")
            before = await read_schema(settings)
            await runner.upgrade(settings)
            return before, await read_schema(settings)
        except Exception as error:
            known = explained(error)
            what = f"tried in an empty database of their own, the migrations fail: {known.what}"
            raise DatabaseError(known.code, what, "The live database was not touched.") from error


async def read_schema(settings: Settings) -> Schema:
    """Read all definitions of a database."""
    async with connect(
        settings, "occupancy-db migrate", server_settings=contents.SNAPSHOT_SETTINGS
    ) as connection:
        return await definitions.read(connection)


async def verify(
    guard: AsyncConnection,
    settings: Settings,
    backup: BackupSettings,
    state: DatabaseState,
    expected: Schema | None,
) -> list[str]:
    """Verify that the schema is what this release expects.

    Args:
        guard: A connection to the database.
        settings: The same database, as its owner.
        backup: Where the users' passwords are.
        state: The database before the migrations.
        expected: The definitions that it should have; None if they are not known.

    Returns:
        Notes for the operator.

    Raises:
        DatabaseError: the schema or the privileges of a user are different.
    """
    found = await runner.current_revision(guard)
    if found != state.head:
        raise DatabaseError(ExitCode.DIFFERENT, f"the revision is {found} instead of {state.head}", "")
    if invalid := (await guard.scalars(INVALID_INDEXES)).all():
        raise DatabaseError(ExitCode.FAILED, f"INVALID indexes: {', '.join(invalid)}", "Drop them.")
    notes = []
    if expected:
        missing, _ = expected.drift(await read_schema(settings))
        if missing:
            raise drift_error(f"the schema is not that of revision {state.head}", missing)
        notes.append("definitions as expected")
    # A new database gets its users and their privileges after the migrations.
    if state.revision is not None:
        notes.append(f"privileges verified: {', '.join(await try_privileges(settings, backup)) or 'no user'}")
    return notes


async def try_privileges(
    settings: Settings, backup: BackupSettings, before: DatabaseState | None = None
) -> list[str]:
    """Verify the privileges of those users whose passwords are here.

    Args:
        settings: The database.
        backup: Where the passwords are.
        before: The database's state before the migrations; None after them.

    Returns:
        The names of the users.

    Raises:
        DatabaseError: a user's privileges are wrong, or it cannot log in.
    """
    tried = [user for user in USERS if user == settings.postgres_user or (backup.secrets_dir / user).exists()]
    for user in tried:
        try:
            await privileges.verify_privileges(
                as_user(settings, user, backup), older=before is not None and bool(before.pending)
            )
        except Exception as error:
            known = explained(error)
            raise DatabaseError(known.code, f"verified as {user}: {known.what}", known.hint) from error
    return tried


def drift_error(what: str, missing: list[str]) -> DatabaseError:
    """Return the error that names the definitions which are missing; at most five of them."""
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return DatabaseError(
        ExitCode.DIFFERENT,
        f"{what}; missing: {'; '.join(' '.join(one.split()) for one in missing[:5])}{more}",
        "The schema was changed by hand: correct it first.",
    )


def explained(error: Exception) -> DatabaseError:
    """Return the error for the operator; an unknown exception was raised by the Python code of a revision."""
    what = f"{type(error).__name__}: {error}"
    return explain(error) or DatabaseError(ExitCode.FAILED, what, "This is an error in the revision.")
