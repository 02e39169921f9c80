"""``occupancy-db export``."""

import asyncio
import sys
from typing import Annotated

import typer

from occupancy_db.cli import selection as selected
from occupancy_db.cli.output import Json, out
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import export as exporting
from occupancy_db.settings import Settings

FileFormat = Annotated[
    exporting.ExportFormat, typer.Option("--format", help="What the files of the archive are.")
]


def export(
    room: selected.Room = None,
    zone: selected.Zone = None,
    entity: selected.Entity = None,
    since: selected.From = None,
    until: selected.To = None,
    form: FileFormat = exporting.ExportFormat.CSV,
    json: Json = False,
) -> None:
    """Write all data of a room, a zone or a sensor as a ZIP archive.

    The archive goes to standard output. It has a file for each table, with the rows that 'erase' with the
    same options removes. The file of the readings can be imported.
    """
    selection = selected.selection(room, zone, entity, since, until)
    if sys.stdout.isatty():
        raise DatabaseError(
            ExitCode.USAGE, "a terminal cannot show an archive", "Write it to a file, as in … > office.zip."
        )
    rows = asyncio.run(exporting.export(Settings(), selection, sys.stdout.buffer, form))
    if not out.json:
        print(*(f"{number:,} rows of {table}" for table, number in rows.items()), sep="\n", file=sys.stderr)
