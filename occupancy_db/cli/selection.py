"""The options that select what belongs to a room, a zone or a sensor."""

from typing import Annotated

import typer

from occupancy_db.cli import moments
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.selection import Selection

Room = Annotated[str | None, typer.Option(metavar="NAME", help="A room of the database.")]
Zone = Annotated[str | None, typer.Option(metavar="NAME", help="A zone; with --room, of that room only.")]
Entity = Annotated[str | None, typer.Option(metavar="ID", help="A Home Assistant entity id.")]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Begin of the range of time; without an offset in UTC."),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="End of the range, which is not included.")
]


def selection(
    room: str | None, zone: str | None, entity: str | None, since: str | None, until: str | None
) -> Selection:
    """The selection of the options of a command.

    Raises:
        DatabaseError: nothing is selected, or a time is wrong.
    """
    if not (room or zone or entity):
        raise DatabaseError(
            ExitCode.USAGE, "nothing is selected", "Give --room, --zone or --entity. Nothing was changed."
        )
    begin = moments.parse("--from", since) if since is not None else None
    end = moments.parse("--to", until) if until is not None else None
    if begin and end and begin >= end:
        raise DatabaseError(
            ExitCode.USAGE, f"--to {until} is not later than --from {since}", "Nothing was changed."
        )
    return Selection(room=room or None, zone=zone or None, entity=entity or None, since=begin, until=end)
