"""Verification that a schema is that of its revision, and that the product's users have their privileges."""

from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup.configuration import BackupSettings, as_user, in_database
from occupancy_db.backup.copying import grant, read_definitions
from occupancy_db.backup.rehearsal import make_users, throwaway_cluster
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.release.precheck import INVALID_INDEXES, DatabaseState
from occupancy_db.schema import runner
from occupancy_db.schema.definitions import Definitions
from occupancy_db.schema.privileges import OWNER, USERS, verify_privileges
from occupancy_db.settings import Settings


async def reference_schemas(
    backup: BackupSettings, revision: str | None, *, privileges: bool = False, newest: bool = True
) -> tuple[Definitions, Definitions]:
    """Run the migrations in a throwaway cluster.

    Args:
        backup: Where throwaway clusters are made.
        revision: The revision of the database; None if no migration was applied.
        privileges: Whether the users get their privileges, as on a host.
        newest: Whether the newest revision is needed as well.

    Returns:
        The definitions at the database's revision, and at the newest revision.

    Raises:
        DatabaseError: a migration failed.
    """
    async with throwaway_cluster(backup.rehearsal_dir, "postgres") as settings:
        await make_users(settings)  # a migration may name them
        async with connect(settings, "occupancy-db migrate", autocommit=True) as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE reference OWNER {OWNER} TEMPLATE template0")
        superuser = in_database(settings, "reference")
        owner = superuser.model_copy(update={"postgres_user": OWNER})
        try:
            if privileges:
                await grant(superuser)
            await runner.upgrade(owner, revision or "base")
            if privileges:
                await grant(superuser)
            before = await read_definitions(superuser)
            if not newest or runner.script_directory().get_current_head() == revision:
                return before, before
            await runner.upgrade(owner)
            return before, await read_definitions(superuser)
        except Exception as error:
            known = explained(error)
            what = f"tried in an empty database of their own, the migrations fail: {known.what}"
            raise DatabaseError(known.code, what, "The live database was not touched.") from error


async def verify(
    guard: AsyncConnection,
    settings: Settings,
    backup: BackupSettings,
    state: DatabaseState,
    expected: Definitions | None,
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
        drift = expected.drift(await read_definitions(settings), privileges=False)
        if drift.missing:
            raise drift_error(f"the schema is not that of revision {state.head}", drift.missing)
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
            await verify_privileges(
                as_user(settings, user, backup), older=before is not None and bool(before.pending)
            )
        except Exception as error:
            known = explained(error)
            raise DatabaseError(known.code, f"verified as {user}: {known.what}", known.hint) from error
    return tried


def drift_error(what: str, missing: list[str]) -> DatabaseError:
    """Return the error that names the definitions which differ; at most five of them."""
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return DatabaseError(
        ExitCode.DIFFERENT,
        f"{what}: {'; '.join(' '.join(one.split()) for one in missing[:5])}{more}",
        "The schema was changed by hand: correct it first.",
    )


def explained(error: Exception) -> DatabaseError:
    """Return the error for the operator; an unknown exception was raised by the Python code of a revision."""
    what = f"{type(error).__name__}: {error}"
    return explain(error) or DatabaseError(ExitCode.FAILED, what, "This is an error in the revision.")
