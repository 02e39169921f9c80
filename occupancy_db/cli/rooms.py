"""``occupancy-db rooms``."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer

from occupancy_db.cli import moments
from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.cli.table import Column, Table
from occupancy_db.driver import SESSION_SETTINGS, connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema import rooms
from occupancy_db.settings import Settings

app = typer.Typer(
    help="List, add, label and retire rooms.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A room of the database.")]


@app.command("list")
def list_rooms(json: Json = False) -> None:
    """List the rooms with label, retirement, zones and last reading."""
    settings = Settings()
    found = _run(settings, rooms.list_rooms)
    table = Table(
        [
            Column("Room", rank=0),
            Column("Label"),
            Column("Retired", rank=2),
            Column("Zones", rank=3, right=True),
            Column("Last reading", rank=3),
        ]
    )
    for room in found:
        table.add(
            room.room,
            room.label,
            moments.shown(room.retired_at),
            room.zones,
            moments.shown(room.last_reading),
        )
    out.result({"database": settings.database, "rooms": [asdict(room) for room in found]}, table)


@app.command("add")
def add(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="The rooms. Existing ones are not changed.")
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Text for people. For several rooms, one in the order of the names; '' for none.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Add rooms beside running clients.

    The command needs no migration and no restart, and can be repeated: existing rooms keep their label and
    their retirement. A room cannot be removed again; it can be retired.
    """
    labels = label or [""] * len(names)
    if len(labels) != len(names):
        raise DatabaseError(
            ExitCode.USAGE,
            f"{len(names)} rooms and {len(labels)} labels are given",
            "Give --label once for each room, in the order of the names. Nothing was changed.",
        )
    wanted = {name: text or None for name, text in zip(names, labels, strict=True)}
    settings = Settings()
    done = _run(settings, lambda connection: rooms.add(connection, wanted))
    lines = [f"{name} {'added' if name in done.added else 'exists already'}" for name in wanted]
    lines += [f"{name} labelled {wanted[name]}" for name in done.labelled]
    notes = [with_program(note) for note in done.notes]
    out.result({"database": settings.database, **asdict(done), "notes": notes}, *lines, *notes)


@app.command("label")
def set_label(
    name: Name,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="Text for people.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label.")] = False,
    json: Json = False,
) -> None:
    """Set or remove the label of a room."""
    if (text is None) is not remove:
        raise DatabaseError(
            ExitCode.USAGE, "a label or --remove must be given, not both", "Nothing was changed."
        )
    settings = Settings()
    _run(settings, lambda connection: rooms.set_label(connection, name, text))
    line = f"{name} has no label" if text is None else f"{name} labelled {text}"
    out.result({"database": settings.database, "room": name, "label": text}, line)


@app.command("retire")
def retire(
    name: Name,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="From when on readings are refused, in ISO 8601, in UTC without an offset; default: now.",
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Bring a retired room back.")] = False,
    json: Json = False,
) -> None:
    """Retire a room, or bring it back.

    New readings of a retired room are refused. Its history is kept, and readings from before the retirement
    are accepted.
    """
    moment = moments.parse("--at", at) if at is not None else None
    if undo and moment:
        raise DatabaseError(ExitCode.USAGE, "--undo takes no --at", "Nothing was changed.")
    settings = Settings()
    retired_at = None
    if undo:
        was = _run(settings, lambda connection: rooms.bring_back(connection, name))
        line = f"{name} takes readings again" if was else f"{name} was not retired"
    else:
        retired_at = _run(settings, lambda connection: rooms.retire(connection, name, moment))
        line = f"{name} retired on {moments.shown(retired_at)}"
    out.result({"database": settings.database, "room": name, "retired_at": retired_at}, line)


def _run(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        async with connect_driver(settings, "occupancy-db rooms", SESSION_SETTINGS) as connection:
            return await work(connection)

    return asyncio.run(run())
