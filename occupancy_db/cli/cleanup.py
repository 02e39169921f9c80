"""``occupancy-db cleanup``."""

import asyncio
from typing import Annotated

import typer
from rich.filesize import decimal

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.history import retention
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.settings import Settings


def cleanup(
    months: Annotated[int, typer.Option(min=1, max=1200, help="How many months of readings to keep.")] = 6,
    transitions_months: Annotated[
        int | None,
        typer.Option(min=1, max=1200, help="Of room transitions; left alone if not given."),
    ] = None,
    predictions_months: Annotated[
        int | None,
        typer.Option(min=1, max=1200, help="Of predictions; left alone if not given."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go; the default.")] = True,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Remove old sensor readings; their hourly statistics stay.

    Whole months are dropped, which gives their space back at once; writers are not held up.
    """
    settings = Settings()
    keep = {
        "sensor_readings": months,
        "room_transitions": transitions_months,
        "predictions": predictions_months,
    }
    result = asyncio.run(
        retention.cleanup(
            settings,
            {table: number for table, number in keep.items() if number},
            dry_run=dry_run,
            lock_wait=lock_wait,
        )
    )
    verb = "would be removed" if dry_run else "removed"
    lines = []
    for table, found in result.items():
        before, after = decimal(found["bytes_before"]), decimal(found["bytes_after"])
        dropped = f", {len(found['dropped'])} whole months among them" if found.get("dropped") else ""
        lines.append(
            f"{found['rows']:,} {table.replace('_', ' ')} before {found['cutoff']:%Y-%m-%d %H:%M} UTC "
            f"{verb}{dropped}: {before} → {after}"
        )
    if dry_run and any(found["rows"] for found in result.values()):
        lines.append("run again with --no-dry-run to remove them")
    readings = result["sensor_readings"]
    out.result(
        {
            "database": settings.database,
            "dry_run": dry_run,
            "months": months,
            "cutoff": readings["cutoff"].isoformat(),
            "rows": readings["rows"],
            "tables": result,
        },
        *lines,
    )
