"""``occupancy-db cleanup``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out, size
from occupancy_db.driver import LOCK_WAIT
from occupancy_db.history import clock, inspection
from occupancy_db.history.policy import RetentionSettings
from occupancy_db.months import MARGIN
from occupancy_db.settings import Settings

_SHOWN_MONTHS = 6
"""What a dry run shows where no policy is known."""

Months = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1200,
        metavar="NUMBER",
        help="Months of sensor readings to keep; default: RETENTION_MONTHS, or 6 without --no-dry-run.",
    ),
]
TransitionsMonths = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1200,
        metavar="NUMBER",
        help="The same of room transitions; default: RETENTION_TRANSITIONS_MONTHS, or all.",
    ),
]
PredictionsMonths = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1200,
        metavar="NUMBER",
        help="The same of predictions; default: RETENTION_PREDICTIONS_MONTHS, or all.",
    ),
]


def cleanup(
    months: Months = None,
    transitions_months: TransitionsMonths = None,
    predictions_months: PredictionsMonths = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be removed.")] = True,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Remove old sensor readings, and keep their hourly statistics.

    Whole months are dropped, which returns their space to the operating system at once. Writers are not
    blocked. The months are counted from the time two days ago, so that a clock that is a little ahead removes
    nothing early. Nothing is removed while the clock contradicts what is recorded.
    """
    settings, policy = Settings(), RetentionSettings()
    months = months or policy.retention_months or (_SHOWN_MONTHS if dry_run else None)
    if months is None:
        raise typer.BadParameter(
            "is needed with --no-dry-run: RETENTION_MONTHS is not set either", param_hint="'--months'"
        )
    keep = {
        "sensor_readings": months,
        "room_transitions": transitions_months or policy.retention_transitions_months,
        "predictions": predictions_months or policy.retention_predictions_months,
    }
    wanted = {table: number for table, number in keep.items() if number}
    contradiction = None
    if dry_run:
        result = asyncio.run(inspection.preview(settings, wanted))
        contradiction = asyncio.run(clock.status(settings)).contradiction
    else:
        from occupancy_db.history import retention

        result = asyncio.run(retention.cleanup(settings, wanted, dry_run=False, lock_wait=lock_wait))
    lines = [_describe(table, found, dry_run=dry_run) for table, found in result.items()]
    lines += [f"waited for {session}" for found in result.values() for session in found.waited_for]
    if contradiction:
        lines.append(f"nothing would be removed until the clock is confirmed: {contradiction}")
    elif dry_run and any(found.rows for found in result.values()):
        lines.append("run again with --no-dry-run to remove them")
    readings = result["sensor_readings"]
    out.result(
        {
            "database": settings.database,
            "dry_run": dry_run,
            "contradiction": contradiction,
            "months": months,
            "cutoff": readings.cutoff.isoformat(),
            "rows": readings.rows,
            "tables": {table: found.as_dict() for table, found in result.items()},
        },
        *lines,
    )


def _describe(table: str, found: inspection.TableCleanup, *, dry_run: bool) -> str:
    months_dropped = len(found.dropped or [])
    plural = "s" if months_dropped > 1 else ""
    dropped = f", with {months_dropped} whole month{plural}" if months_dropped else ""
    return (
        f"{found.rows:,} {table.replace('_', ' ')} before {found.cutoff:%Y-%m-%d %H:%M} UTC "
        f"({found.months} months and {MARGIN.days} days ago) "
        f"{'would be removed' if dry_run else 'removed'}{dropped}: "
        f"{size(found.bytes_before)} → {size(found.bytes_after)}"
    )
