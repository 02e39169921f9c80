"""The rooms of a database: the values of the enumerated type ``room_type``, and which of them are retired."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

# A database of an earlier release has no table of labels and retirements.
_HAS_TABLE: Final = "SELECT to_regclass('rooms') IS NOT NULL"

_ROOMS: Final = """
    SELECT listed.room::text AS room, rooms.retired_at
    FROM unnest(enum_range(NULL::room_type)) AS listed (room)
    LEFT JOIN rooms ON rooms.room = listed.room::text
    ORDER BY listed.room
"""
_ROOMS_ONLY: Final = """
    SELECT listed.room::text AS room, NULL::timestamptz AS retired_at
    FROM unnest(enum_range(NULL::room_type)) AS listed (room)
    ORDER BY listed.room
"""


@dataclass(frozen=True)
class Rooms:
    """The rooms of one database; ``room in rooms`` and ``for room in rooms`` work.

    Attributes:
        retired_at: When each room was retired, or None. The keys are all rooms in the order of the type.
    """

    retired_at: Mapping[str, datetime | None]

    def __contains__(self, value: object) -> bool:
        """Whether a value is a room of the database, retired ones included."""
        return isinstance(value, str) and value in self.retired_at

    def __iter__(self) -> Iterator[str]:
        """All rooms, in the order of the type."""
        return iter(self.retired_at)

    def retirement_problem(self, room: str, timestamp: datetime) -> str | None:
        """The reason why a room takes no reading of a timestamp, or None if it does.

        Args:
            room: Any text. A room that is not in the database has no retirement.
            timestamp: When the reading was measured, with a time zone.
        """
        retired_at = self.retired_at.get(room)
        if retired_at is None or timestamp < retired_at:
            return None
        return f"room {str(room)!r} was retired on {retired_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00"


async def load_rooms(connection: Any) -> Rooms:
    """Read the rooms of a database.

    Args:
        connection: An ``asyncpg.Connection`` of any user of the database.

    Raises:
        asyncpg.UndefinedObjectError: the database has no type ``room_type``.
        asyncpg.PostgresError: the server refused the query.
    """
    query = _ROOMS if await connection.fetchval(_HAS_TABLE) else _ROOMS_ONLY
    return Rooms({row["room"]: row["retired_at"] for row in await connection.fetch(query)})
