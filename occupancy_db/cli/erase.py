"""``occupancy-db erase``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.backup import erasing
from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.erasing import HoldingSet
from occupancy_db.cli import selection as selected
from occupancy_db.cli.output import Json, out
from occupancy_db.cli.restore import Confirm, confirmed
from occupancy_db.cli.table import Column, Table
from occupancy_db.history.erase import TableRows
from occupancy_db.settings import Settings


def erase(
    room: selected.Room = None,
    zone: selected.Zone = None,
    entity: selected.Entity = None,
    since: selected.From = None,
    until: selected.To = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed, and where it would remain.")
    ] = False,
    from_backups: Annotated[
        bool,
        typer.Option(
            "--from-backups",
            help="Make and verify a new backup set, then remove the sets that contain the data.",
        ),
    ] = False,
    confirm: Confirm = None,
    json: Json = False,
) -> None:
    """Remove all data of a room, a zone or a sensor.

    Readings, hourly sums, transitions, predictions and the places of sensors are removed. The erasure is
    recorded beside the backup sets: every restore of a set that was made before applies it again.
    """
    selection = selected.selection(room, zone, entity, since, until)
    if dry_run:
        settings = Settings()
        tables, holding = asyncio.run(erasing.preview(settings, BackupSettings(), selection))
        out.result(
            {
                "database": settings.database,
                "dry_run": True,
                "selection": selection.model_dump(mode="json"),
                "tables": {name: found.as_dict() if found else None for name, found in tables.items()},
                "sets_with_the_data": [one.as_dict() for one in holding],
            },
            _rows(tables),
            *_kept(tables),
            *_where_it_remains(holding),
            f"run again with --confirm {settings.database} instead of --dry-run to remove the data",
        )
        return
    settings = confirmed(confirm, f"this removes the data of {selection} from")
    done = asyncio.run(
        erasing.run(settings, BackupSettings(), selection, out.step, from_backups=from_backups)
    )
    out.result(
        {"database": settings.database, "dry_run": False, **done.as_dict()},
        *(
            f"{name}: " + ", ".join(f"{number:,} rows of {table}" for table, number in rows.items())
            for name, rows in done.rows.items()
        ),
        *(f"removed the set {one}" for one in done.removed),
        *_where_it_remains(done.holding),
    )


def _rows(tables: dict[str, TableRows | None]) -> Table:
    table = Table(
        [Column("Table", rank=0), Column("Rows", right=True), Column("First", rank=1), Column("Last", rank=1)]
    )
    for name, found in tables.items():
        if found:
            table.add(name, f"{found.rows:,}", found.first or "", found.last or "")
    return table


def _kept(tables: dict[str, TableRows | None]) -> list[str]:
    kept = [name for name, found in tables.items() if found is None]
    reasons = {
        "sensors": "sensors keep their places, because a part of the time is selected",
        "predictions": "room_transitions and predictions are kept: they name rooms, and no zone or sensor",
    }
    return [why for name, why in reasons.items() if name in kept]


def _where_it_remains(holding: list[HoldingSet]) -> list[str]:
    if not holding:
        return ["no backup set of this host contains the data"]
    lines = [
        f"{one.id} contains the data, "
        + (
            f"and is pinned: {one.pinned}"
            if one.pinned
            else f"until {one.expires_at:%Y-%m-%d} at the latest"
            if one.expires_at
            else "until it is removed by hand"
        )
        for one in holding
    ]
    return [
        *lines,
        "copies of these sets elsewhere contain the data as well, until they are replaced or removed there",
    ]
