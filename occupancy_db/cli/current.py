"""``occupancy-db current``."""

import asyncio
from typing import Any

from occupancy_db.cli.output import Json, out
from occupancy_db.driver import connect_driver
from occupancy_db.schema import position
from occupancy_db.settings import Settings


def current(json: Json = False) -> None:
    """Show the revision of the database."""
    asyncio.run(_current(Settings()))


async def _current(settings: Settings) -> None:
    found = await _find(settings)
    state = "head"
    if found.ahead:
        state = f"ahead of this release, whose head is {found.head}"
    elif found.revision != found.head:
        state = f"head is {found.head}: run 'occupancy-db migrate'"
    out.result(
        {
            "database": settings.database,
            "revision": found.revision,
            "head": found.head,
            "up_to_date": bool(found.ahead) or found.revision == found.head,
        },
        f"{found.revision or 'no migration applied'} ({state})",
    )


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
