"""``occupancy-db current``."""

import asyncio
from typing import Any

import typer

from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.driver import connect_driver
from occupancy_db.exit_codes import ExitCode
from occupancy_db.schema import position
from occupancy_db.settings import Settings


def current(json: Json = False) -> None:
    """Show the revision of the database.

    The exit code is 15 if this release does not know the revision.
    """
    if not asyncio.run(_current(Settings())):
        raise typer.Exit(ExitCode.UNSUITABLE)


async def _current(settings: Settings) -> bool:
    """Print the revision; returns whether this release works with it."""
    found = await _find(settings)
    state = "head"
    if not found.known:
        state = f"this release, whose head is {found.head}, does not know it: use the newer release"
    elif found.ahead:
        state = f"ahead of this release, whose head is {found.head}"
    elif found.revision != found.head:
        state = with_program(f"head is {found.head}: run 'occupancy-db migrate'")
    out.result(
        {
            "database": settings.database,
            "revision": found.revision,
            "head": found.head,
            "up_to_date": bool(found.ahead) or found.revision == found.head,
        },
        f"{found.revision or 'no migration applied'} ({state})",
    )
    return bool(found.known)


async def _find(settings: Settings) -> Any:
    try:
        async with connect_driver(settings, "occupancy-db current") as connection:
            return await position.find(connection)
    except position.UnclearError:
        from occupancy_db.backup.configuration import BackupSettings
        from occupancy_db.connection import connect
        from occupancy_db.release.precheck import check_database

        async with connect(settings, "occupancy-db current") as alembic_connection:
            return await check_database(alembic_connection, settings, BackupSettings())
