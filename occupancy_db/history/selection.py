"""What belongs to a room, a zone or a sensor, in a range of time: the rows of each table that name it."""

from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.rooms import load_rooms
from occupancy_db.settings import Settings

ROWS = {
    "sensor_readings": "timestamp",
    "sensor_gaps": "timestamp",
    "hourly.history": "hour",
    "hourly.occupied_history": "hour",
    "hourly.carried": "timestamp",
    "room_transitions": "timestamp",
    "predictions": "prediction_made_at",
    "sensors": "since",
}
"""The tables that hold data of people, and their columns of time. The other sums are made of the readings."""

# The hours of readings that retention has removed name a place, and not the sensor that was there.
_PLACES_OF_ENTITY = """EXISTS (
    SELECT FROM (
        SELECT room, zone, since, lead(since) OVER (ORDER BY since) AS until
        FROM public.sensors WHERE entity = :entity
    ) AS place
    WHERE (place.room, place.zone) = ({table}.room, {table}.zone)
      AND place.since < {table}.hour + interval '1 hour'
      AND (place.until IS NULL OR place.until > {table}.hour)
)"""

# The time of a room is that of all of its zones, and of one of them nothing can be taken from it.
_ROOMS_OF_ZONES = """(
    {zone} OR occupied_history.zone IS NULL AND EXISTS (
        SELECT FROM hourly.occupied_history AS part
        WHERE part.hour = occupied_history.hour AND part.minute = occupied_history.minute
          AND part.room = occupied_history.room AND {part}
    )
)"""


class Selection(BaseModel):
    """A room, a zone, a sensor, or what belongs to all of those that are given; in a range of time.

    Attributes:
        room: Name of the room.
        zone: Name of the zone, in the room if there is one, and otherwise in any.
        entity: Home Assistant entity id, the ``source_entity`` of readings.
        since: Begin of the range; None for all before its end.
        until: End of the range, which is not included; None for all since its begin.

    Raises:
        ValueError: nothing is selected, or the range is empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: str | None = None
    zone: str | None = None
    entity: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not (self.room or self.zone or self.entity):
            raise ValueError("a room, a zone or an entity must be given")
        if self.since and self.until and self.since >= self.until:
            raise ValueError("the range of time is empty: its end is not later than its begin")
        return self

    @property
    def is_ranged(self) -> bool:
        """Whether a range of time is given."""
        return self.since is not None or self.until is not None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the conditions."""
        return self.model_dump(exclude_none=True)

    def condition(self, table: str) -> str | None:
        """The condition of the rows of a table, with named parameters.

        Args:
            table: A key of ROWS.

        Returns:
            None if no row of the table belongs to the selection, or none can be told apart by it.
        """
        match table:
            case "sensor_readings" | "sensor_gaps" | "hourly.carried":
                found = self._equal(room="room", zone="zone", entity="source_entity")
            case "hourly.history":
                found = self._places("history")
            case "hourly.occupied_history":
                found = self._places("occupied_history")
                if self.zone or self.entity:
                    zone, part = (" AND ".join(self._places(name)) for name in ("occupied_history", "part"))
                    found = [_ROOMS_OF_ZONES.format(zone=zone, part=part)]
            case "sensors":
                # A sensor keeps its place if only a part of its time there is selected.
                if self.is_ranged:
                    return None
                found = self._equal(room="room", zone="zone", entity="entity")
            case _:
                # They name rooms: those of a zone or a sensor cannot be told from others of the room.
                if self.zone or self.entity:
                    return None
                found = ["room = :room"] if table == "predictions" else [":room IN (from_room, to_room)"]
        return " AND ".join(found + self._range(table))

    def _places(self, table: str) -> list[str]:
        """Conditions of sums, which name a place, and not the sensor that was there."""
        found = self._equal(room=f"{table}.room", zone=f"{table}.zone")
        return [*found, _PLACES_OF_ENTITY.format(table=table)] if self.entity else found

    def _equal(self, **columns: str) -> list[str]:
        return [f"{column} = :{name}" for name, column in columns.items() if getattr(self, name)]

    def _range(self, table: str) -> list[str]:
        column = ROWS[table]
        # Of the sums of an hour nothing can be taken: an hour that the range touches belongs to it.
        end = f"{column} + interval '1 hour' >" if column == "hour" else f"{column} >="
        return [
            *([f"{end} :since"] if self.since else []),
            *([f"{column} < :until"] if self.until else []),
        ]

    def __str__(self) -> str:
        """The selection in words."""
        named = [f"{kind} {value}" for kind in ("room", "zone", "entity") if (value := getattr(self, kind))]
        times = [
            f"{word} {at:%Y-%m-%d %H:%M:%S %Z}"
            for word, at in (("from", self.since), ("to", self.until))
            if at
        ]
        return " ".join([", ".join(named), *times])


async def require_room(settings: Settings, selection: Selection) -> None:
    """Refuse a selection of a room that the database does not have.

    Args:
        settings: The database.
        selection: The selection. Zones and sensors of earlier times are not known, so any is accepted.

    Raises:
        DatabaseError: there is no such room, or no connection.
    """
    if selection.room is None:
        return
    async with connect_driver(settings, "occupancy-db") as connection:
        rooms = await load_rooms(connection)
    if selection.room not in rooms:
        raise DatabaseError(
            ExitCode.USAGE,
            f"{selection.room!r} is not a room of {settings.database}",
            "See 'occupancy-db rooms list'. Nothing was changed.",
        )
