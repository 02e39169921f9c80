"""The sensors of a database: the room and zone of each entity, by time."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

# A database of an earlier release has no such table.
_HAS_TABLE: Final = "SELECT to_regclass('sensors') IS NOT NULL"
_PLACES: Final = """
    SELECT entity, since, room, zone FROM sensors
    WHERE $1::text[] IS NULL OR entity = ANY ($1)
    ORDER BY entity, since
"""

Place = tuple[str, str]
"""Room and zone."""


@dataclass(frozen=True)
class Stay:
    """The time that a sensor spends in a place, or in none.

    Attributes:
        since: Its begin; None for the time before the first place.
        until: Its end, or None.
        place: Room and zone, or None.
    """

    since: datetime | None
    until: datetime | None
    place: Place | None


@dataclass(frozen=True)
class Sensors:
    """Where some entities are and were.

    Attributes:
        places: From when on each entity is in which place, the earliest first; None where it is retired.
    """

    places: Mapping[str, tuple[tuple[datetime, Place | None], ...]]

    def place(self, entity: str, timestamp: datetime) -> Place | str:
        """The place of a reading, or the reason why it has none.

        Args:
            entity: The ``source_entity`` of the reading.
            timestamp: When it was measured, with a time zone.
        """
        stay = self.stay(entity, timestamp)
        if stay.place is not None:
            return stay.place
        if entity not in self.places:
            reason = f"{entity!r} is not a sensor of the database"
        elif stay.since is None:
            reason = f"sensor {entity!r} has no place before {_shown(self.places[entity][0][0])}"
        else:
            reason = f"sensor {entity!r} was retired on {_shown(stay.since)}"
        return f"room and zone are not given, and {reason}"

    def stay(self, entity: str, timestamp: datetime) -> Stay:
        """Where an entity is at a time, and for how long.

        Args:
            entity: The ``source_entity`` of a reading.
            timestamp: When it was measured, with a time zone.
        """
        places = self.places.get(entity, ())
        after = bisect_right(places, timestamp, key=lambda item: item[0])
        since, place = places[after - 1] if after else (None, None)
        return Stay(since, places[after][0] if after < len(places) else None, place)


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00"


async def load_sensors(connection: Any, entities: Iterable[str] | None = None) -> Sensors:
    """Read where entities are and were; those that are not sensors of the database are left out.

    Args:
        connection: An ``asyncpg.Connection`` of any user of the database.
        entities: Their names; None for all sensors of the database.

    Raises:
        asyncpg.PostgresError: the server refused the query.
    """
    found: dict[str, list[tuple[datetime, Place | None]]] = {}
    if await connection.fetchval(_HAS_TABLE):
        for entity, since, room, zone in await connection.fetch(
            _PLACES, None if entities is None else list(entities)
        ):
            found.setdefault(entity, []).append((since, None if room is None else (room, zone)))
    return Sensors({entity: tuple(places) for entity, places in found.items()})
