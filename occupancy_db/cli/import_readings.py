"""``occupancy-db import``."""

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.cli.progress import progress
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history import importer
from occupancy_db.history.formats import Format, Options, Reader, Rejects, read_entities
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
    Path | None, typer.Option(help="For a history of Home Assistant: a CSV file of entity_id,room,zone.")
]
Timezone = Annotated[
    str | None,
    typer.Option(
        help="The time zone of timestamps without an offset, as Europe/Berlin; default: they are refused."
    ),
]
RejectsFile = Annotated[
    Path | None,
    typer.Option(help="The file for rejected rows; default: FILE.rejects.csv in the current directory."),
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
    options = Options(
        form,
        _columns(column or []),
        read_entities(entities) if entities else None,
        _zone(timezone) if timezone else None,
    )
    settings = None if dry_run else Settings()
    began = time.monotonic()
    with Rejects(rejects or Path(f"{files[0].name}.rejects.csv")) as bad, progress("bytes") as bar:
        reader = Reader(files, options, bad, datetime.now(UTC))

        def announce(what: str) -> None:
            bar(what, reader.position, reader.size)

        report = (
            asyncio.run(importer.run(settings, reader, announce)) if settings else check(reader, announce)
        )
    _print(report, bad, dry_run=dry_run, seconds=time.monotonic() - began)
    if bad.count:
        raise typer.Exit(ExitCode.FAILED)


def _print(report: importer.Report, bad: Rejects, *, dry_run: bool, seconds: float) -> None:
    speed = report.read / max(seconds, 0.001)
    data = {
        **asdict(report),
        "dry_run": dry_run,
        "rejects": str(bad.path) if bad.count else None,
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
