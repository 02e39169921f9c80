"""``occupancy-db partitions``."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out, size
from occupancy_db.cli.table import Column, Table
from occupancy_db.driver import LOCK_WAIT
from occupancy_db.history import inspection
from occupancy_db.history.inspection import Month, Step
from occupancy_db.history.policy import RetentionSettings
from occupancy_db.months import MONTHS_AHEAD, MONTHS_BACK
from occupancy_db.settings import Settings

app = typer.Typer(
    help="Maintain the monthly partitions and the hourly sums.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

MonthsAhead = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=inspection.FURTHEST,
        metavar="NUMBER",
        help=f"Months after the current one to have; default: RETENTION_MONTHS_AHEAD, or {MONTHS_AHEAD}.",
    ),
]
MonthsBack = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=120,
        metavar="NUMBER",
        help=f"The same before the current one; default: RETENTION_MONTHS_BACK, or {MONTHS_BACK}.",
    ),
]


@app.command("status")
def status(months_ahead: MonthsAhead = None, months_back: MonthsBack = None, json: Json = False) -> None:
    """List the partitions, and what maintenance would change."""
    settings = Settings()
    found = asyncio.run(inspection.status(settings, *_wanted(months_ahead, months_back)))
    table = Table(
        [
            Column("Partition", rank=0),
            Column("Rows (estimate)", rank=2, right=True),
            Column("Size", rank=2, right=True),
            Column("State"),
        ]
    )
    for month in found.months:
        table.add(month.name, f"{month.rows:,}", size(month.bytes), _state(month))
    hours = found.hours
    out.result(
        {"database": settings.database, **asdict(found)},
        table,
        f"hours before {hours.closed_before} are closed: {hours.sums:,} sums, "
        f"{hours.marked:,} hours to sum up again, {hours.history:,} sums of removed readings"
        if hours.closed_before
        else "no hour has been closed yet",
        *_plan(found.plan, found.strays, "maintenance would"),
    )


@app.command("maintain")
def maintain(
    months_ahead: MonthsAhead = None,
    months_back: MonthsBack = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the SQL that would run.")] = False,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Create partitions, and sum up past hours.

    The command creates the partitions of the coming months, and of past months for readings that arrive
    later, completes interrupted removals, and updates the hourly sums. It does not create past months again
    whose readings were removed.
    """
    settings = Settings()
    ahead, back = _wanted(months_ahead, months_back)
    if dry_run:
        found = asyncio.run(inspection.status(settings, ahead, back))
        out.result(
            {
                "database": settings.database,
                "dry_run": True,
                "plan": [asdict(step) for step in found.plan],
                "strays": found.strays,
            },
            *_plan(found.plan, found.strays, "would"),
            *[f"{statement.strip()};" for step in found.plan for statement in step.statements],
        )
        return
    from occupancy_db.history import upkeep

    done = asyncio.run(upkeep.maintain(settings, ahead, lock_wait, months_back=back))
    lines = [
        f"{verb} {', '.join(tables)}"
        for verb, tables in (
            ("finished", done.finished),
            ("completed", done.completed),
            ("created", done.created),
            ("dropped", done.dropped),
        )
        if tables
    ]
    out.result(
        {"database": settings.database, "dry_run": False, **asdict(done)},
        *lines,
        *_strays(done.strays),
        *[f"waited for {session}" for session in done.waited_for],
        f"{done.hours:,} hours summed up",
    )


def _wanted(months_ahead: int | None, months_back: int | None) -> tuple[int, int]:
    """The numbers of months ahead and back that should exist: as told, or as the policy says."""
    policy = RetentionSettings()
    return (
        policy.retention_months_ahead if months_ahead is None else months_ahead,
        policy.retention_months_back if months_back is None else months_back,
    )


def _state(month: Month) -> str:
    if month.detaching or month.retired:
        return "being removed"
    if not month.attached:
        return "not a partition"
    return "" if month.watched else "incomplete"


def _plan(steps: list[Step], strays: list[str], verb: str) -> list[str]:
    lines = [f"{verb} {step.kind} {step.table}" for step in steps]
    return [*(lines or ["no partition is missing"]), *_strays(strays)]


def _strays(names: list[str]) -> list[str]:
    return [f"{name} is named like a partition but is not one: it is left alone" for name in names]
