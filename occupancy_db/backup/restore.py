"""Restores: aside first, compared and tried there, then exchanged with the live one in one transaction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import contents, create
from occupancy_db.backup.configuration import BackupSettings, as_user, in_database
from occupancy_db.backup.copying import compare, create_database, fill, quote
from occupancy_db.backup.programs import login, run
from occupancy_db.backup.run import Run, Say
from occupancy_db.backup.sets import DUMP, BackupSet, Manifest, State, Store
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.history import upkeep
from occupancy_db.schema import privileges, runner
from occupancy_db.schema.privileges import BACKUP_USER, OWNER, PATIENCE, USERS
from occupancy_db.settings import Settings

KEEP_REPLACED = timedelta(days=1)
"""For how long the database that was replaced can be had back."""

MONTHS_AHEAD = 3
_LOCK_WAIT = 900.0
"""Seconds to wait for a backup that is at work: it ends by itself."""

_PRIVILEGES = Path(privileges.__file__).with_name("privileges.sql")

_DATABASES = text("""
    SELECT datname, shobj_description(oid, 'pg_database') AS comment
    FROM pg_database WHERE datname = ANY (:names)
""")
_MISSING_ROLES = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
""")
# Of others' sessions this user does not see what kind they are; those without a user (autovacuum) give way.
_SUPERUSERS = text("""
    SELECT pid, usename, application_name
    FROM pg_stat_activity JOIN pg_roles ON rolname = usename
    WHERE datname = :name AND rolsuper
""")
_END_SESSIONS = text("""
    SELECT count(pg_terminate_backend(pid))
    FROM pg_stat_activity JOIN pg_roles ON rolname = usename
    WHERE datname = :name AND NOT rolsuper
""")


class Databases:
    """The names that a restore goes by."""

    def __init__(self, live: str) -> None:
        """Args: live: the database that clients use."""
        self.live = live
        self.restoring = f"{live}_restoring"
        self.replaced = f"{live}_replaced"


async def restore(
    settings: Settings, backup: BackupSettings, name: str, say: Say, *, safety_backup: bool = True
) -> dict[str, Any]:
    """Put a set in the place of the live database, which is kept for a day.

    Until the exchange nothing is done to the live database. The exchange is one transaction: all or nothing.

    Args:
        settings: The live database, as a user who may make and rename databases of the owner.
        backup: Where the sets and the other users' passwords are.
        name: A set's id, or ``latest``.
        say: Takes a line for a person.
        safety_backup: Whether a set is made of the live database first.

    Returns:
        ``set``, ``revision``, ``rows``, ``safety_backup`` (an id or None), ``replaced`` (a database or
        None), ``phases`` (seconds).

    Raises:
        DatabaseError: it did not work; it says what was wrong and what is the state of the live database.
    """
    names = Databases(settings.database)
    store = Store(backup.dir)
    work = Run(store, names.live, say)
    async with store.lock(_LOCK_WAIT):
        with work.phase("choose") as notes:
            one = store.find(names.live, name)
            notes.append(one.id)
            manifest = _usable(one)
            async with _administration(settings) as connection:
                there = await _preflight(connection, names, manifest)
            for user in USERS:
                as_user(settings, user, backup)
            create.require_space(backup, manifest.database_bytes, manifest.files[DUMP].bytes)
        with work.phase("restore"):
            await _restore_aside(settings, names, one, manifest)
        aside = in_database(settings, names.restoring)
        with work.phase("compare") as notes:
            found = await compare(aside, one.id, manifest.contents)
            notes.append(f"{found.rows:,} rows")
        with work.phase("prepare") as notes:
            owner = as_user(aside, OWNER, backup)
            updated = await runner.upgrade(owner)
            notes += [f"applied {revision}" for revision in updated.applied]
            await upkeep.maintain(owner, MONTHS_AHEAD)
            await _grant(aside)
            async with connect(
                owner, "occupancy-db restore", server_settings=contents.SESSION, autocommit=True
            ) as connection:
                await connection.exec_driver_sql("ANALYZE")
        with work.phase("try"):
            for user in USERS:
                await privileges.prove(as_user(aside, user, backup))
        safety = None
        if names.live in there and safety_backup:
            safety = await _save_live(settings, backup, work, one)
        with work.phase("exchange"):
            if names.replaced in there:
                async with _administration(settings) as connection:
                    # Not before it is known that the exchange is not refused.
                    await _require_no_superuser(connection, names.live)
                    await _drop(connection, names.replaced)
            moves = [(names.live, names.replaced)] if names.live in there else []
            moves.append((names.restoring, names.live))
            await _exchange(settings, names, moves, one.id)
        with work.phase("look again"):
            await _look_again(settings, backup, names, moves, updated.after)
    return {
        "set": one.id,
        "revision": updated.after,
        "rows": found.rows,
        "safety_backup": safety.id if safety else None,
        "replaced": names.replaced if names.live in there else None,
        "phases": work.phases,
    }


async def rollback(settings: Settings, backup: BackupSettings, say: Say) -> dict[str, Any]:
    """Exchange the live database and the one that the last restore replaced; a second time undoes the first.

    Raises:
        DatabaseError: there is none, or the exchange did not work: then nothing has changed.
    """
    names = Databases(settings.database)
    store = Store(backup.dir)
    work = Run(store, names.live, say)
    async with store.lock(_LOCK_WAIT):
        async with _administration(settings) as connection:
            there = await _databases(connection, names)
            if names.replaced not in there:
                raise DatabaseError(
                    ExitCode.DATABASE_MISSING,
                    f"there is no database {names.replaced} to go back to",
                    f"It is kept for {KEEP_REPLACED.days} day after a restore. "
                    "Restore a backup set: see 'occupancy-db backup list'.",
                )
            await _drop(connection, names.restoring)
        with work.phase("exchange"):
            moves = [(names.replaced, names.live)]
            if names.live in there:
                moves = [(names.live, names.restoring), *moves, (names.restoring, names.replaced)]
            await _exchange(settings, names, moves, "a rollback")
    return {"live": there[names.replaced], "replaced": names.replaced if names.live in there else None}


async def cleanup(settings: Settings, backup: BackupSettings) -> list[str]:
    """Drop what restores left: the replaced database after a day, and one that was never finished.

    Returns:
        The databases that were dropped.

    Raises:
        DatabaseError: a restore or backup is at work.
    """
    names = Databases(settings.database)
    dropped = []
    async with Store(backup.dir).lock(), _administration(settings) as connection:
        there = await _databases(connection, names)
        if names.restoring in there:
            dropped.append(names.restoring)
        replaced_at = _replaced_at(there.get(names.replaced))
        if replaced_at and datetime.now(UTC) - replaced_at > KEEP_REPLACED:
            dropped.append(names.replaced)
        for name in dropped:
            await _drop(connection, name)
    return dropped


def _usable(one: BackupSet) -> Manifest:
    manifest = one.intact()
    if one.state is not State.VERIFIED:
        raise DatabaseError(
            ExitCode.DAMAGED,
            f"{one.id} has not been verified",
            f"Run 'occupancy-db backup verify {one.id}' first, or use another set.",
        )
    revision = manifest.contents.revision
    try:
        known = revision is not None and runner.script_directory().get_revision(revision) is not None
    except CommandError:
        known = False
    if not known:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{one.id} has the revision {revision}, which this release does not know",
            "Use the release that it was made with, or a newer one.",
        )
    return manifest


async def _preflight(
    connection: AsyncConnection, names: Databases, manifest: Manifest
) -> dict[str, str | None]:
    version = await connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if version // 10_000 != manifest.server_version_num // 10_000:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            f"{manifest.id} is of PostgreSQL {manifest.server_version}, the server of {version // 10_000}",
            "Use a server of the same version.",
        )
    users = [*USERS, connection.engine.url.username]
    if missing := (await connection.scalars(_MISSING_ROLES, {"names": users})).all():
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"users of the product are missing: {', '.join(missing)}",
            "Run 'make up', which makes them. Nothing was changed.",
        )
    await _require_no_superuser(connection, names.live)
    return await _databases(connection, names)


async def _restore_aside(settings: Settings, names: Databases, one: BackupSet, manifest: Manifest) -> None:
    async with _administration(settings) as connection:
        await _drop(connection, names.restoring)
        await create_database(connection, names.restoring, manifest.contents, OWNER)
    await fill(in_database(settings, names.restoring), one, "--no-owner", f"--role={OWNER}")


async def _grant(settings: Settings) -> None:
    with login(settings) as env:
        await run(
            "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f", _PRIVILEGES,
            env={**env, "PGOPTIONS": f"-c role={OWNER}"},
        )  # fmt: skip


async def _save_live(settings: Settings, backup: BackupSettings, work: Run, one: BackupSet) -> BackupSet:
    live = as_user(settings, BACKUP_USER, backup)
    try:
        made = await create.make(
            live, backup, work, pin=f"made before the restore of {one.id}", before_restore_of=one.id
        )
        await create.prove(made, backup, work)
    except DatabaseError as error:
        raise DatabaseError(
            error.code,
            f"no safety backup of the live database could be made, which was not touched: {error.what}",
            f"{error.hint} If it is beyond saving, restore with --without-safety-backup; "
            f"it is kept for {KEEP_REPLACED.days} day all the same.",
        ) from error
    return made


async def _exchange(settings: Settings, names: Databases, moves: list[tuple[str, str]], by: str) -> None:
    """Rename databases in one transaction, while the engine lets nobody connect to them.

    The first rename locks the live database: who connects now waits for the end. Who is connected already is
    sent away meanwhile, and PostgreSQL waits up to five seconds for that.
    """
    async with _administration(settings) as connection:
        await _require_no_superuser(connection, names.live)
    over = asyncio.Event()
    names_now = {old for old, _ in moves}
    ending = asyncio.create_task(_end_sessions(settings, names_now, over))
    try:
        async with connect(
            in_database(settings, "postgres"), "occupancy-db restore", server_settings={"lock_timeout": "5s"}
        ) as connection:
            for old, new in moves:
                await connection.exec_driver_sql(f"ALTER DATABASE {quote(old)} RENAME TO {quote(new)}")
            if names.replaced in {new for _, new in moves}:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                await connection.exec_driver_sql(
                    f"COMMENT ON DATABASE {quote(names.replaced)} IS 'replaced at {now} by {by}'"
                )
            await connection.exec_driver_sql(f"COMMENT ON DATABASE {quote(names.live)} IS NULL")
            await connection.commit()
    except DBAPIError as error:
        if caused_by(error, asyncpg.ObjectInUseError, asyncpg.LockNotAvailableError):
            raise DatabaseError(
                ExitCode.LOCKED,
                f"sessions in {names.live} did not end in time, and nothing was exchanged",
                "See pg_stat_activity, end them, then try again.",
            ) from error
        raise
    finally:
        over.set()
        # If sessions could not be ended, the renames have failed, and that has been said.
        await asyncio.gather(ending, return_exceptions=True)


async def _end_sessions(settings: Settings, databases: set[str], over: asyncio.Event) -> None:
    async with _administration(settings) as connection:
        while not over.is_set():
            for name in databases:
                await connection.execute(_END_SESSIONS, {"name": name})
            await asyncio.sleep(0.02)


async def _look_again(
    settings: Settings,
    backup: BackupSettings,
    names: Databases,
    moves: list[tuple[str, str]],
    revision: str | None,
) -> None:
    try:
        for user in USERS:
            async with connect(as_user(settings, user, backup), "occupancy-db restore", patience=PATIENCE):
                pass  # beside all who were sent away and come back now
        async with connect(
            as_user(settings, OWNER, backup), "occupancy-db restore", patience=PATIENCE
        ) as connection:
            found = await runner.current_revision(connection)
        if found != revision:
            raise DatabaseError(ExitCode.DIFFERENT, f"{names.live} has the revision {found}", "")
    except DatabaseError as error:
        undo = [(new, old) for old, new in reversed(moves)]
        try:
            await _exchange(settings, names, undo, "nothing")
        except Exception:  # whatever it was, the operator is told where things stand
            raise DatabaseError(
                error.code,
                f"{names.live} is the restored database, and it fails: {error.what}",
                "The one that it replaced is there: run 'occupancy-db restore-rollback "
                f"--confirm {names.live}' to go back.",
            ) from error
        raise DatabaseError(
            error.code,
            f"the restored database failed in its place, and was taken back: {error.what}",
            f"{names.live} is what it was before.",
        ) from error


@asynccontextmanager
async def _administration(settings: Settings) -> AsyncIterator[AsyncConnection]:
    async with connect(
        in_database(settings, "postgres"),
        "occupancy-db restore",
        server_settings={"lock_timeout": "5s", "timezone": "UTC"},
        autocommit=True,
    ) as connection:
        yield connection


async def _databases(connection: AsyncConnection, names: Databases) -> dict[str, str | None]:
    rows = await connection.execute(_DATABASES, {"names": [names.live, names.restoring, names.replaced]})
    return {row.datname: row.comment for row in rows}


async def _require_no_superuser(connection: AsyncConnection, name: str) -> None:
    rows = (await connection.execute(_SUPERUSERS, {"name": name})).all()
    if rows:
        who = "; ".join(f'pid {row.pid}, "{row.application_name}"' for row in rows)
        raise DatabaseError(
            ExitCode.LOCKED,
            f"a superuser is connected to {name}, whom nobody else may send away: {who}",
            "End that session, then try again. Nothing was changed.",
        )


async def _drop(connection: AsyncConnection, name: str) -> None:
    await connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


def _replaced_at(comment: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat((comment or "").split()[2])
    except (IndexError, ValueError):
        return None
