"""``occupancy-db sensors``."""

import asyncio
import csv
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import asyncpg
import typer

from occupancy_db.cli import moments
from occupancy_db.cli.output import Json, out
from occupancy_db.cli.table import Column, Table
from occupancy_db.driver import SESSION_SETTINGS, connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema import sensors
from occupancy_db.schema.sensors import ALWAYS, Change, Sensor
from occupancy_db.settings import Settings

app = typer.Typer(
    help="List, add, move and retire sensors.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

T = TypeVar("T")

Entity = Annotated[str, typer.Argument(metavar="ENTITY-ID", help="The entity id, as binary_sensor.desk.")]

REQUIRED = {"entity_id", "room", "zone"}
OPTIONAL = {"since", "label", "hold", "max_silence"}
"""The columns of a file."""


@app.command("list")
def list_sensors(json: Json = False) -> None:
    """List the sensors with room, zone, label and hold."""
    settings = Settings()
    found = _run(settings, sensors.list_sensors)
    table = Table(
        [
            Column("Entity", rank=0),
            Column("Since", rank=1),
            Column("Room", rank=0),
            Column("Zone", rank=0),
            Column("Label", rank=2),
            Column("Hold", rank=3),
            Column("Longest silence", rank=3),
        ]
    )
    for sensor in found:
        table.add(
            sensor.entity,
            _since(sensor.since),
            sensor.room or "(retired)",
            sensor.zone,
            sensor.label,
            _shown(sensor.hold),
            _shown(sensor.max_silence),
        )
    data = [_data(sensor) for sensor in found]
    out.result({"database": settings.database, "sensors": data}, table)


@app.command("add")
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV with the columns entity_id, room, zone and, if wanted, since, label, hold, "
            "max_silence; - for standard input.",
        ),
    ],
    json: Json = False,
) -> None:
    """Add the sensors of a file that the database does not have.

    All of them or none are added, and the others are not changed. A sensor that has moved has a line for each
    place, the first one with an empty since.
    """
    settings = Settings()

    async def work(connection: Any) -> sensors.Added:
        rows = [await _sensor(connection, *line) for line in _lines(file)]
        return await sensors.add(connection, rows)

    done = _run(settings, work)
    lines = [f"{name} added" for name in done.added]
    out.result(
        {"database": settings.database, **asdict(done)},
        *lines,
        f"{len(done.added)} sensors added, {len(done.present)} exist already",
    )


@app.command("set")
def set_sensor(
    entity: Entity,
    room: Annotated[str | None, typer.Option(metavar="NAME", help="A room of the database.")] = None,
    zone: Annotated[str | None, typer.Option(metavar="NAME", help="1 to 50 characters.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="From when on, in ISO 8601, in UTC without an offset. Default: a new sensor was always "
            "there, an existing one moves now.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="Text for people; '' removes it.")] = None,
    hold: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="The longest time for which a state holds without another reading, as '30 min'; 0 for "
            "24 hours.",
        ),
    ] = None,
    max_silence: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="The longest time without a reading that is nothing unusual, as '2 days'; 0 to learn it "
            "from the readings.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Add a sensor, move it, or set its label, its hold or its longest silence.

    Readings that are stored already keep their room and zone.
    """
    moment = moments.parse("--since", since) if since is not None else None
    settings = Settings()

    async def work(connection: Any) -> Sensor | None:
        limits = [
            None if limit is None else await _interval(connection, limit) for limit in (hold, max_silence)
        ]
        return await sensors.change(connection, entity, Change(room, zone, label, *limits), moment)

    done = _run(settings, work)
    line = f"{entity} is set like that already"
    if done:
        line = f"{entity} is in {done.room}, {done.zone} since {_since(done.since)}"
    out.result({"database": settings.database, "sensor": _data(done) if done else None}, line)


@app.command("retire")
def retire(
    entity: Entity,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="From when on the sensor has no place, in ISO 8601, in UTC without an offset; default: now.",
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Bring a retired sensor back.")] = False,
    json: Json = False,
) -> None:
    """Retire a sensor, or bring it back.

    New readings that name the entity alone are refused. Those that name room and zone are accepted.
    """
    moment = moments.parse("--at", at) if at is not None else None
    if undo and moment:
        raise DatabaseError(ExitCode.USAGE, "--undo takes no --at", "Nothing was changed.")
    settings = Settings()
    retired_at = None
    if undo:
        was = _run(settings, lambda connection: sensors.bring_back(connection, entity))
        line = f"{entity} has its place again" if was else f"{entity} was not retired"
    else:
        retired_at = _run(settings, lambda connection: sensors.retire(connection, entity, moment))
        line = f"{entity} retired on {moments.shown(retired_at)}"
    out.result({"database": settings.database, "entity": entity, "retired_at": retired_at}, line)


@app.command("discover")
def discover(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="An export or a recorder of Home Assistant, as of import."),
    ],
    registries: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Where core.entity_registry, core.device_registry and core.area_registry are; default: "
            ".storage beside the file.",
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with the password of a recorder on a server."),
    ] = None,
    json: Json = False,
) -> None:
    """Propose sensors for the entities of Home Assistant, as a file for 'sensors add'.

    Lists the motion, occupancy and presence sensors that the database does not have. Rooms and zones are made
    from the names of areas, devices and entities, and are there to be corrected; a room that no name tells is
    empty. Nothing is changed.
    """
    from occupancy_db.cli.discover import discover

    discover(source, registries, password_file)


@app.command("remove")
def remove(entity: Entity, json: Json = False) -> None:
    """Remove a sensor that was added by mistake, with all of its places; readings stay."""
    settings = Settings()
    _run(settings, lambda connection: sensors.remove(connection, entity))
    out.result({"database": settings.database, "removed": entity}, f"{entity} removed")


def _run(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        async with connect_driver(settings, "occupancy-db sensors", SESSION_SETTINGS) as connection:
            return await work(connection)

    return asyncio.run(run())


def _opened(path: Path) -> TextIO:
    if str(path) == "-":
        return TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _lines(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a file, each with the words that name it in messages."""
    try:
        with _opened(path) as file:
            rows = csv.DictReader(file, strict=True)
            names = set(rows.fieldnames or ())
            if not names >= REQUIRED or names - REQUIRED - OPTIONAL:
                raise _unusable(
                    f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'of an empty file'}"
                )
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():
                    raise _unusable(f"{where} has more or fewer columns than the header")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unusable(f"{path}: {error}") from error


async def _sensor(connection: Any, where: str, row: dict[str, str]) -> Sensor:
    try:
        return Sensor(
            row["entity_id"],
            moments.parse("since", row["since"]) if row.get("since") else ALWAYS,
            row["room"],
            row["zone"],
            row.get("label") or None,
            *[
                await _interval(connection, row[name]) if row.get(name) else None
                for name in ("hold", "max_silence")
            ],
        )
    except DatabaseError as error:
        raise _unusable(f"{where}: {error.what}") from error


async def _interval(connection: Any, text: str) -> timedelta:
    """An interval as PostgreSQL reads it."""
    try:
        found: timedelta = await connection.fetchval("SELECT $1::text::interval", text)
    except asyncpg.DataError as error:
        raise DatabaseError(
            ExitCode.USAGE, f"{text!r} is not an interval", "Write it as in '30 min'."
        ) from error
    return found


def _unusable(what: str) -> DatabaseError:
    columns = (
        "A file has the columns entity_id, room and zone, and may have since, label, hold and max_silence."
    )
    return DatabaseError(ExitCode.FAILED, what, f"{columns} Nothing was changed.")


def _data(sensor: Sensor) -> dict[str, Any]:
    always = sensor.since <= ALWAYS
    intervals = {"hold": _shown(sensor.hold), "max_silence": _shown(sensor.max_silence)}
    return {**asdict(sensor), "since": None if always else sensor.since, **intervals}


def _since(since: datetime) -> str:
    return "always" if since <= ALWAYS else str(moments.shown(since))


def _shown(interval: timedelta | None) -> str | None:
    return None if interval is None else str(interval)
