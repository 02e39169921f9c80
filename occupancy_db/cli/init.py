"""``occupancy-db init``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report, run
from occupancy_db.cli.options import refuse_in_production
from occupancy_db.cli.output import Json
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.settings import Settings


def init(
    drop: Annotated[
        bool, typer.Option("--drop", help="First drop everything that the migrations created, data included.")
    ] = False,
    json: Json = False,
) -> None:
    """Create the database if it is missing, and migrate it to this release.

    --drop is refused in production.
    """
    settings = Settings()
    if drop:
        refuse_in_production(settings, "init --drop destroys all data")
    asyncio.run(_create_if_missing(settings))
    if drop:
        from occupancy_db.schema.runner import recreate

        report(settings, asyncio.run(recreate(settings)))
    else:
        run(settings)


async def _create_if_missing(settings: Settings) -> None:
    try:
        async with connect_driver(settings, "occupancy-db init"):
            return
    except DatabaseError as error:
        if error.code is not ExitCode.DATABASE_MISSING:
            raise
    await _create(settings)


async def _create(settings: Settings) -> None:
    import asyncpg
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    from occupancy_db.connection import connect

    async with connect(settings, "occupancy-db init", database="postgres", autocommit=True) as connection:
        name = connection.dialect.identifier_preparer.quote(settings.database)
        try:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        except DBAPIError as error:
            if caused_by(error, asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                return  # another process has just created it
            if caused_by(error, asyncpg.InsufficientPrivilegeError):
                user = connection.dialect.identifier_preparer.quote(settings.postgres_user)
                raise DatabaseError(
                    ExitCode.DATABASE_MISSING,
                    f"database {name} does not exist and {user} may not create it",
                    f"Run as a superuser: CREATE DATABASE {name} OWNER {user}",
                ) from None
            raise
