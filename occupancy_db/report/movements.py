"""Transitions between rooms."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from occupancy_db.report.home import Home
from occupancy_db.report.parts import Cell, Column, Row, Section, Table, Text, duration, skipped

_STEPS = 10
_TRANSITIONS = """
    SELECT from_room, to_room, count(*) AS number,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY transition_duration_seconds) AS seconds
    FROM room_transitions WHERE timestamp >= $1 AND timestamp <= $2
    GROUP BY from_room, to_room
"""


class Transition(NamedTuple):
    """The transitions from one room to another.

    Attributes:
        origin: The room that was left; None for the first detection of a person.
        target: The room that was entered.
        number: How many there were.
        seconds: Their median duration; None if it is not known.
    """

    origin: str | None
    target: str
    number: int
    seconds: float | None


async def find(connection: Any, home: Home) -> list[Transition]:
    """The transitions of the days that are shown.

    Args:
        connection: An ``asyncpg.Connection``.
        home: The home, and the days.
    """
    return [Transition(*row) for row in await connection.fetch(_TRANSITIONS, home.since, home.now)]


def section(home: Home, found: Sequence[Transition]) -> Section:
    """The section on transitions."""
    if not found:
        return Section(
            "transitions", "Transitions", [skipped(f"There are no transitions since {home.first_day}.")]
        )
    origins = sorted({one.origin for one in found}, key=lambda room: (room is None, home.room(room or "")))
    targets = sorted({one.target for one in found}, key=home.room)
    numbers = {(one.origin, one.target): one for one in found}
    most = max(one.number for one in found)
    rows: list[Row] = [
        [
            home.room(origin) if origin else "first detection",
            *(_cell(numbers.get((origin, target)), most) for target in targets),
        ]
        for origin in origins
    ]
    return Section(
        "transitions",
        "Transitions",
        [
            Text(
                f"How often somebody went from one room to another since {home.first_day}, and the median "
                "duration."
            ),
            Table(
                "Transitions between rooms",
                [Column("From, to"), *(Column(home.room(target)) for target in targets)],
                rows,
                "matrix",
            ),
        ],
    )


def _cell(one: Transition | None, most: int) -> Cell:
    if one is None:
        return Cell("–")
    took = f" ({duration(one.seconds)})" if one.seconds is not None else ""
    return Cell(f"{one.number:,}{took}", f"heat-{round(_STEPS * one.number / most)}")
