"""``occupancy-db import``."""

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.cli.progress import progress
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.history import importer
from occupancy_db.history.formats import (
    DEFAULT_ROOMS,
    Format,
    Options,
    Reader,
    Rejects,
    add_rooms_hint,
    read_entities,
)
from occupancy_db.rooms import Rooms, load_rooms
from occupancy_db.settings import Settings

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="CSV with a header, or NDJSON; plain or gzip.")
]
FileFormat = Annotated[
    Format | None, typer.Option("--format", help="The format of all files; default: detected for each file.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="The name of a column in the files, if it differs; repeatable."),
]
Entities = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For a history of Home Assistant: a CSV file of entity_id,room,zone."),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The time zone of timestamps without an offset, as Europe/Berlin; default: they are refused.",
    ),
]
RejectsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The file for rejected rows; default: FILE.rejects.csv in the current directory."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only read and check the files.")]


def import_readings(
    files: Files,
    form: FileFormat = None,
    column: Columns = None,
    entities: Entities = None,
    timezone: Timezone = None,
    rejects: RejectsFile = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Import sensor readings from CSV or NDJSON files.

    All valid rows of all files are imported in one transaction. Readings that exist already are skipped, so
    that the same files can be imported again. Rejected rows are written to a file, and the exit code is 1.
    """
    columns, zone = _columns(column or []), _zone(timezone) if timezone else None
    settings = None if dry_run else Settings()
    rooms, warnings = _rooms_of(settings)
    options = Options(form, columns, read_entities(entities, rooms) if entities else None, zone, rooms)
    began = time.monotonic()
    with Rejects(rejects or Path(f"{files[0].name}.rejects.csv")) as bad, progress("bytes") as bar:
        reader = Reader(files, options, bad, datetime.now(UTC))

        def announce(what: str) -> None:
            bar(what, reader.position, reader.size)

        report = (
            asyncio.run(importer.run(settings, reader, announce)) if settings else check(reader, announce)
        )
    report.warnings[:0] = warnings
    _print(report, reader.unknown_rooms, bad, dry_run=dry_run, seconds=time.monotonic() - began)
    if bad.count:
        raise typer.Exit(ExitCode.FAILED)


def _rooms_of(settings: Settings | None) -> tuple[Rooms, list[str]]:
    """Read the rooms of the database; a dry run without one assumes those of a new database, and says so."""

    async def load(settings: Settings) -> Rooms:
        async with connect_driver(settings, "occupancy-db import") as connection:
            return await load_rooms(connection)

    if settings:
        return asyncio.run(load(settings)), []
    try:
        return asyncio.run(load(Settings())), []
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        return DEFAULT_ROOMS, [f"the rooms of a new database are assumed: {known.what}"]


def _print(
    report: importer.Report, unknown_rooms: set[str], bad: Rejects, *, dry_run: bool, seconds: float
) -> None:
    speed = report.read / max(seconds, 0.001)
    data = {
        **asdict(report),
        "dry_run": dry_run,
        "rejects": str(bad.path) if bad.count else None,
        "unknown_rooms": sorted(unknown_rooms),
        "seconds": round(seconds, 3),
        "rows_per_second": round(speed),
    }
    counts = f"{report.imported:,} {'good' if dry_run else 'imported'}"
    if not dry_run:
        counts += (
            f", {report.duplicates:,} exist already, "
            f"{report.in_history:,} in hours whose readings were removed"
        )
    out.result(
        data,
        f"{report.read:,} rows read in {seconds:.1f} s ({speed:,.0f}/s): {counts}, "
        f"{report.no_state:,} without a state, {report.rejected:,} rejected",
        *(f"  {month}  {rows:,}" for month, rows in report.months.items()),
        *(f"rejected: {words}" for words in bad.first),
        *([f"all rejected rows: {bad.path}"] if bad.count else []),
        *([with_program(add_rooms_hint(sorted(unknown_rooms)))] if unknown_rooms else []),
        *(f"warning: {words}" for words in report.warnings),
    )


def check(reader: Reader, announce: importer.Announce) -> importer.Report:
    """Read all files and import nothing."""
    more = True
    while more:
        more = reader.advance()
        while month := (reader.ready() if more else reader.fullest()):
            for _ in reader.take(month):
                pass
            announce(f"{month:%Y-%m}")
    return importer.Report(
        read=reader.read,
        imported=reader.months.total(),
        no_state=reader.no_state,
        rejected=reader.rejects.count,
        months={f"{month:%Y-%m}": rows for month, rows in sorted(reader.months.items())},
    )


def _columns(pairs: list[str]) -> dict[str, str]:
    columns = dict(pair.partition("=")[::2] for pair in pairs)
    if bad := [pair for pair in pairs if not all(pair.partition("="))]:
        raise DatabaseError(
            ExitCode.USAGE, f"--column {bad[0]} is not ours=theirs", "Write it as in --column zone=area."
        )
    return columns


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DatabaseError(
            ExitCode.USAGE, f"unknown time zone: {name}", "Write it as in --timezone Europe/Berlin."
        ) from None
