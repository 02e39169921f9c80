"""``occupancy-db import``."""

import asyncio
import time
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.cli.progress import progress
from occupancy_db.cli.table import Column, Table
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.history import importer
from occupancy_db.history.judge import DEFAULT_ROOMS
from occupancy_db.history.rejects import Rejects
from occupancy_db.history.rows import Reader
from occupancy_db.history.sources.base import Format, Options
from occupancy_db.history.sources.entities import add_rooms_hint, read_entities
from occupancy_db.history.sources.servers import is_address
from occupancy_db.history.times import TimeFormat, moment_of
from occupancy_db.rooms import Rooms, load_rooms
from occupancy_db.sensors import Sensors, load_sensors
from occupancy_db.settings import Settings

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="CSV with a header, NDJSON, InfluxDB's annotated CSV, Parquet, JSON of Home Assistant's "
        "interfaces, or its recorder: the SQLite file, postgresql://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE.",
    ),
]
FileFormat = Annotated[
    Format | None, typer.Option("--format", help="The format of all files; default: detected for each file.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="The name of a column in the files, if it differs; repeatable."),
]
Constants = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="OURS=VALUE", help="The value of a column that the files do not have; repeatable."
    ),
]
Entities = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A CSV file of entity_id,room,zone, which counts more than the table of sensors.",
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The time zone of timestamps without an offset, as Europe/Berlin; default: they are refused.",
    ),
]
Times = Annotated[
    TimeFormat | None,
    typer.Option(
        "--times",
        help="How timestamps are written: ISO 8601, seconds, milli- or microseconds since 1970, or "
        "31.12.2026 18:00; default: detected for each file, the last one never.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(metavar="CHARACTER", help="What separates the columns of CSV; default: see the header."),
]
DecimalComma = Annotated[bool, typer.Option("--decimal-comma", help="A confidence may be written as 0,93.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The file with the password of a recorder on a server."),
]
RejectsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The file for rejected rows; default: FILE.rejects.csv in the current directory."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only read and check the files, and print what each entity would get."),
]

ReplaceHistory = Annotated[
    list[str] | None,
    typer.Option(
        "--replace-history",
        metavar="MONTH",
        help="A month, as 2026-03 (UTC), whose removed readings the files have: they replace what is kept of "
        "these in the hourly statistics; repeatable. With --dry-run the import is tried and taken back.",
    ),
]

_SHOWN = 20
"""Entities without a room that are named for people."""


def import_readings(
    files: Files,
    form: FileFormat = None,
    column: Columns = None,
    constant: Constants = None,
    entities: Entities = None,
    timezone: Timezone = None,
    times: Times = None,
    delimiter: Delimiter = None,
    decimal_comma: DecimalComma = False,
    password_file: PasswordFile = None,
    rejects: RejectsFile = None,
    replace_history: ReplaceHistory = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Import sensor readings from files.

    All valid rows of all files are imported in one transaction. Readings that exist already are skipped, so
    that the same files can be imported again. Rows that name no room and zone go where the table of sensors
    has their entity at that time; rows of other entities are counted. Rejected rows are written to a file,
    which can be imported once it is corrected, and the exit code is 1.
    """
    options = Options(
        form,
        _pairs("--column", column, "zone=area"),
        _pairs("--set", constant, "room=office"),
        _zone(timezone) if timezone else None,
        times,
        _character(delimiter),
        decimal_comma,
        password(password_file),
    )
    replaced = [_month(text) for text in replace_history or []]
    sources = [source if is_address(source) else Path(source) for source in files]
    settings = None if dry_run and not replaced else Settings()
    options.rooms, options.sensors, warnings = known(settings)
    if entities:
        told = read_entities(entities, options.rooms)
        options.sensors = replace(told, places={**options.sensors.places, **told.places})
    began = time.monotonic()
    with Rejects(rejects or _rejects_of(files[0])) as bad, progress("bytes") as bar:
        reader = Reader(sources, options, bad, datetime.now(UTC), by_entity=dry_run)

        def announce(what: str) -> None:
            bar(what, reader.position, reader.size)

        report = (
            asyncio.run(importer.run(settings, reader, announce, replaced, dry_run=dry_run))
            if settings
            else check(reader, announce)
        )
    report.warnings[:0] = warnings
    for month in replaced:
        if f"{month:%Y-%m}" not in report.replaced:
            report.warnings.append(f"the files have no readings of {month:%Y-%m}: its statistics stay")
    _print(report, reader, dry_run=dry_run, seconds=time.monotonic() - began)
    if bad.count:
        raise typer.Exit(ExitCode.FAILED)


def password(path: Path | None) -> str | None:
    """The password in a file.

    Raises:
        DatabaseError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        # "from None": a decoding error contains bytes of the secret.
        what = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DatabaseError(
            ExitCode.CONFIGURATION, f"cannot read {path}: {what}", "Check --password-file."
        ) from None


def _rejects_of(source: str) -> Path:
    name = urlsplit(source).path if is_address(source) else source
    return Path(f"{Path(name).name or 'recorder'}.rejects.csv")


def known(settings: Settings | None) -> tuple[Rooms, Sensors, list[str]]:
    """The rooms and sensors of the database; a dry run without one assumes a new database, and says so.

    Args:
        settings: The database; None for a dry run.

    Returns:
        Also warnings.

    Raises:
        DatabaseError: no connection.
    """

    async def load(settings: Settings) -> tuple[Rooms, Sensors]:
        async with connect_driver(settings, "occupancy-db import") as connection:
            return await load_rooms(connection), await load_sensors(connection)

    if settings:
        return *asyncio.run(load(settings)), []
    try:
        return *asyncio.run(load(Settings())), []
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        warning = f"the rooms of a new database and no sensors are assumed: {known.what}"
        return DEFAULT_ROOMS, Sensors({}), [warning]


def _print(report: importer.Report, reader: Reader, *, dry_run: bool, seconds: float) -> None:
    bad, speed = reader.rejects, report.read / max(seconds, 0.001)
    data = {
        **asdict(report),
        "dry_run": dry_run,
        "recognised": reader.said,
        "rejects": str(bad.path) if bad.count else None,
        "unknown_rooms": sorted(reader.unknown_rooms),
        "seconds": round(seconds, 3),
        "rows_per_second": round(speed),
    }
    tried = not dry_run or bool(report.replaced)
    counts = f"{report.imported:,} {'good' if dry_run else 'imported'}"
    if tried:
        counts += (
            f", {report.duplicates:,} exist already, "
            f"{report.in_history:,} in hours whose readings were removed"
        )
    found, lines = _found(reader) if dry_run else ([], [])
    if dry_run:
        data["found"] = found
    unknown = sorted(reader.unknown_rooms)
    out.result(
        data,
        *(f"{name}: {said}" for name, said in reader.said.items()),
        f"{report.read:,} rows read in {seconds:.1f} s ({speed:,.0f}/s): {counts}, "
        f"{report.no_state:,} without a state, {report.unplaced:,} without a room, "
        f"{report.rejected:,} rejected",
        *(f"  {month}  {rows:,}" for month, rows in report.months.items()),
        *(
            f"  {month}: the statistics of {old['hours']:,} hours of zones, from {old['readings']:,} removed "
            f"readings, {'would be' if dry_run else 'are'} replaced"
            for month, old in report.replaced.items()
        ),
        *lines,
        *_left_out(report, stored=not dry_run),
        *(f"rejected: {words}" for words in bad.first),
        *([f"all rejected rows: {bad.path}"] if bad.count else []),
        *([with_program(add_rooms_hint(unknown))] if unknown else []),
        *(f"warning: {words}" for words in report.warnings),
    )


def _left_out(report: importer.Report, *, stored: bool) -> list[str]:
    """What was neither a reading nor rejected, by name."""
    lines = []
    if report.stateless:
        states = ", ".join(f"{rows:,} {state}" for state, rows in report.stateless.items())
        lines.append(f"without a state: {states}" + (f"; {report.gaps:,} are new gaps" if stored else ""))
    if report.entities:
        named = [f"{entity} ({rows:,})" for entity, rows in list(report.entities.items())[:_SHOWN]]
        more = len(report.entities) - len(named)
        lines.append(f"entities without a room: {', '.join(named)}" + (f" and {more:,} more" if more else ""))
        lines.append(
            with_program("Add them with 'occupancy-db sensors set', or name them in --entities FILE.")
        )
    return lines


def _found(reader: Reader) -> tuple[list[dict[str, Any]], list[Table]]:
    """What each entity would get."""
    table = Table(
        [
            Column("Entity", rank=0),
            Column("Room", rank=0),
            Column("Zone", rank=0),
            Column("Readings", rank=0),
            Column("First", rank=1),
            Column("Last", rank=1),
        ]
    )
    data = []
    for (entity, room, zone), seen in sorted((reader.seen or {}).items()):
        first, last = moment_of(seen.first), moment_of(seen.last)
        data.append(
            {"entity": entity, "room": room, "zone": zone, "rows": seen.rows, "first": first, "last": last}
        )
        table.add(
            entity, room, zone, f"{seen.rows:,}", f"{first:%Y-%m-%d %H:%M:%S}", f"{last:%Y-%m-%d %H:%M:%S}"
        )
    return data, [table] if data else []


def check(reader: Reader, announce: importer.Announce) -> importer.Report:
    """Read all files and import nothing."""
    more = True
    while more:
        more = reader.advance()
        while month := (reader.ready() if more else reader.fullest()):
            for _ in reader.take(month):
                pass
            announce(f"{month:%Y-%m}")
    report = importer.Report(
        imported=reader.months.total(),
        months={f"{month:%Y-%m}": rows for month, rows in sorted(reader.months.items())},
    )
    report.account(reader)
    return report


def _pairs(option: str, pairs: list[str] | None, example: str) -> dict[str, str]:
    if bad := [pair for pair in pairs or [] if not all(pair.partition("="))]:
        raise DatabaseError(
            ExitCode.USAGE, f"{option} {bad[0]} is not ours=theirs", f"Write it as in {option} {example}."
        )
    return dict(pair.partition("=")[::2] for pair in pairs or [])


def _month(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise DatabaseError(
            ExitCode.USAGE, f"{text} is not a month", "Write it as in --replace-history 2026-03."
        ) from None


def _character(text: str | None) -> str | None:
    text = {r"\t": "\t", "tab": "\t"}.get(text or "", text)
    if text is not None and len(text) != 1:
        raise DatabaseError(
            ExitCode.USAGE, f"--delimiter {text} is not one character", "Write it as in --delimiter ';'."
        )
    return text


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DatabaseError(
            ExitCode.USAGE, f"unknown time zone: {name}", "Write it as in --timezone Europe/Berlin."
        ) from None
