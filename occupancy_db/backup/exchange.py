"""The exchange of databases by renaming them, while clients are disconnected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup.configuration import in_database
from occupancy_db.backup.copying import quote
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.history.clock import known_state
from occupancy_db.settings import Settings

Rename = tuple[str, str]
"""The old and the new name of a database."""

LOCK_WAIT = 900.0
"""Seconds to wait for a backup that is running: it ends by itself."""

_PAUSE = 0.02
"""Seconds between two attempts to end the sessions in a database that is being renamed."""

_DATABASES = text("""
    SELECT datname, shobj_description(oid, 'pg_database') AS comment
    FROM pg_database WHERE datname = ANY (:names)
""")
# The restoring user does not see the type of other users' sessions. Sessions without a user, like those of
# autovacuum, end by themselves.
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


class DatabaseNames:
    """The names of the databases that a restore uses.

    Attributes:
        live: The database that clients use.
        restoring: The database that a set is restored into.
        replaced: The database that was live before the last restore.
        product: The product's own database, whose records tell whether the clock is right.
        own: Whether the database is the product's own: it has its schema and users.
    """

    def __init__(self, live: str, product: str | None = None) -> None:
        """Args: live: the database that clients use; product: the product's own, if that is another one."""
        self.product = product or live
        self.live = live
        self.own = self.product == live
        self.restoring = f"{live}_restoring"
        self.replaced = f"{live}_replaced"


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Connect to the database ``postgres`` in autocommit mode.

    Args:
        settings: The server, and a user who may create and rename databases.
    """
    async with connect(
        in_database(settings, "postgres"),
        "occupancy-db restore",
        server_settings={"lock_timeout": "5s", "timezone": "UTC"},
        autocommit=True,
    ) as connection:
        yield connection


async def find_databases(connection: AsyncConnection, names: DatabaseNames) -> dict[str, str | None]:
    """Return those of the databases that exist, with their comments."""
    rows = await connection.execute(_DATABASES, {"names": [names.live, names.restoring, names.replaced]})
    return {row.datname: row.comment for row in rows}


async def drop_database(connection: AsyncConnection, name: str) -> None:
    """Drop a database if it exists, and end the sessions in it."""
    await connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")


async def require_no_superuser(connection: AsyncConnection, name: str) -> None:
    """Raise an error while a superuser is connected to a database: only a superuser may end that session.

    Raises:
        DatabaseError: a superuser is connected; the text names the session.
    """
    rows = (await connection.execute(_SUPERUSERS, {"name": name})).all()
    if rows:
        who = "; ".join(f'pid {row.pid}, "{row.application_name}"' for row in rows)
        raise DatabaseError(
            ExitCode.LOCKED,
            f"a superuser is connected to {name}, and only a superuser may end its session: {who}",
            "End that session, then try again. Nothing was changed.",
        )


async def exchange(settings: Settings, names: DatabaseNames, renames: list[Rename], by: str) -> None:
    """Rename databases in one transaction.

    The first rename locks the database, and clients that connect then wait for the end of the transaction.
    Clients that are connected already are disconnected meanwhile; PostgreSQL waits up to five seconds for
    that.

    Args:
        settings: The live database, as a user who may rename databases.
        names: The names of the databases.
        renames: Old and new names, in order.
        by: What is recorded in the comment of the replaced database.

    Raises:
        DatabaseError: sessions did not end in time, or a superuser is connected; then nothing was renamed.
    """
    async with administration(settings) as connection:
        await require_no_superuser(connection, names.live)
    clock = await known_state(in_database(settings, names.product))
    # A clock that is behind must not make the replaced database look old.
    now = max(
        datetime.now(UTC),
        clock.checked_at if clock and clock.checked_at else datetime.min.replace(tzinfo=UTC),
    )
    ended = asyncio.Event()
    names_now = {old for old, _ in renames}
    ending = asyncio.create_task(_end_sessions(settings, names_now, ended))
    try:
        async with connect(
            in_database(settings, "postgres"), "occupancy-db restore", server_settings={"lock_timeout": "5s"}
        ) as connection:
            for old, new in renames:
                await connection.exec_driver_sql(f"ALTER DATABASE {quote(old)} RENAME TO {quote(new)}")
            if names.replaced in {new for _, new in renames}:
                await connection.exec_driver_sql(
                    f"COMMENT ON DATABASE {quote(names.replaced)} IS "
                    f"'replaced at {now.astimezone(UTC).isoformat(timespec='seconds')} by {by}'"
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
        ended.set()
        # An error here means that sessions could not be ended: then the renames have failed, too.
        await asyncio.gather(ending, return_exceptions=True)


def replaced_at(comment: str | None) -> datetime | None:
    """Return the time that exchange() has recorded in a comment; None if it has not."""
    try:
        return datetime.fromisoformat((comment or "").split()[2])
    except (IndexError, ValueError):
        return None


async def _end_sessions(settings: Settings, databases: set[str], ended: asyncio.Event) -> None:
    async with administration(settings) as connection:
        while not ended.is_set():
            for name in databases:
                await connection.execute(_END_SESSIONS, {"name": name})
            await asyncio.sleep(_PAUSE)
