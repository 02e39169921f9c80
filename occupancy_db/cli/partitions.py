"""``occupancy-db partitions``."""

import asyncio
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.history import upkeep
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.settings import Settings

app = typer.Typer(help="Keep the months of sensor_readings, and the hourly sums.", no_args_is_help=True)

MonthsAhead = Annotated[
    int, typer.Option(min=1, max=24, help="How many months beyond this one should be there.")
]


@app.command("status")
def status(months_ahead: MonthsAhead = 3, json: Json = False) -> None:
    """List the months, and what upkeep would do."""
    settings = Settings()
    found = asyncio.run(upkeep.status(settings, months_ahead))
    table = Table("Partition", "Rows (estimate)", "Size", "State")
    for month in found["months"]:
        table.add_row(month["name"], f"{month['rows']:,}", decimal(month["bytes"]), _state(month))
    hours = found["hours"]
    out.result(
        {"database": settings.database, **found},
        table,
        f"hours before {hours['closed_before']} are closed: {hours['sums']:,} sums, "
        f"{hours['marked']:,} hours to sum up, {hours['history']:,} sums of removed readings"
        if hours["closed_before"]
        else "no hour has been closed yet",
        *_plan(found["plan"], found["strays"], "upkeep would"),
    )


@app.command("maintain")
def maintain(
    months_ahead: MonthsAhead = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the SQL that would run.")] = False,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Create the coming months, finish what was interrupted, sum up the hours that are over."""
    settings = Settings()
    if dry_run:
        found = asyncio.run(upkeep.status(settings, months_ahead))
        out.result(
            {
                "database": settings.database,
                "dry_run": True,
                "plan": found["plan"],
                "strays": found["strays"],
            },
            *_plan(found["plan"], found["strays"], "would"),
            *[f"{statement.strip()};" for step in found["plan"] for statement in step["statements"]],
        )
        return
    done = asyncio.run(upkeep.maintain(settings, months_ahead, lock_wait))
    lines = [
        f"{verb} {', '.join(done[key])}"
        for key, verb in [("finished", "finished"), ("completed", "completed"), ("created", "created")]
        if done[key]
    ]
    out.result(
        {"database": settings.database, "dry_run": False, **done},
        *lines,
        *_strays(done["strays"]),
        f"{done['hours']:,} hours summed up",
    )


def _state(month: dict[str, Any]) -> str:
    if month["detaching"] or month["retired"]:
        return "being removed"
    if not month["attached"]:
        return "no partition"
    return "" if month["watched"] else "incomplete"


def _plan(steps: list[dict[str, Any]], strays: list[str], verb: str) -> list[str]:
    lines = [f"{verb} {step['kind']} {step['table']}" for step in steps]
    return [*(lines or ["every month is there"]), *_strays(strays)]


def _strays(names: list[str]) -> list[str]:
    return [f"{name} is called like a month and is no partition: left alone" for name in names]
