"""``occupancy-db cleanup``."""

import asyncio
from typing import Annotated

import typer
from sqlalchemy import text

from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.migrate import SESSION
from occupancy_db.settings import Settings

# Both ask the database what is old, so that the announcement and the deed cannot differ.
COUNT = text("SELECT count(*) FROM sensor_readings WHERE timestamp < (SELECT retention_cutoff(:months))")
REMOVE = text("SELECT cleanup_old_sensor_readings(:months)")


def cleanup(
    months: Annotated[int, typer.Option(min=1, max=1200, help="How many months of readings to keep.")] = 6,
    dry_run: Annotated[bool, typer.Option(help="Only count what would go; the default.")] = True,
    json: Json = False,
) -> None:
    """Remove old sensor readings."""
    asyncio.run(_cleanup(Settings(), months, dry_run))


async def _cleanup(settings: Settings, months: int, dry_run: bool) -> None:
    async with (
        connect(settings, "occupancy-db cleanup", server_settings=SESSION) as connection,
        connection.begin(),
    ):
        cutoff = await connection.scalar(text("SELECT retention_cutoff(:months)"), {"months": months})
        rows = await connection.scalar(COUNT if dry_run else REMOVE, {"months": months})
    data = {
        "database": settings.database,
        "months": months,
        "cutoff": cutoff.isoformat() if cutoff else None,
        "dry_run": dry_run,
        "rows": rows,
    }
    verb = "would be removed" if dry_run else "removed"
    advice = ["run again with --no-dry-run to remove them"] if dry_run and rows else []
    out.result(data, f"{rows:,} sensor readings before {cutoff:%Y-%m-%d %H:%M} UTC {verb}", *advice)
