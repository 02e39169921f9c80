"""``occupancy-db current``."""

import asyncio

from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.migrate import current_revision, script_directory
from occupancy_db.settings import Settings


def current(json: Json = False) -> None:
    """Show the revision of the database."""
    asyncio.run(_current(Settings()))


async def _current(settings: Settings) -> None:
    async with connect(settings, "occupancy-db current") as connection:
        revision = await current_revision(connection)
    head = script_directory().get_current_head()
    state = "head" if revision == head else f"head is {head}: run 'occupancy-db migrate'"
    out.result(
        {"database": settings.database, "revision": revision, "head": head, "up_to_date": revision == head},
        f"{revision or 'no migration applied'} ({state})",
    )
