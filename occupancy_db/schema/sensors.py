"""Changes of the sensors of a database: the rows of the table ``sensors``.

A row says where a sensor is from a time on, until its next row. Readings that are stored already keep their
room and zone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.months import EARLIEST
from occupancy_db.rooms import load_rooms
from occupancy_db.schema.room_names import label_problem
from occupancy_db.validation import ENTITY_LENGTH, ZONE_LENGTH, room_problem, text_problem

ALWAYS: Final = EARLIEST
"""Since when a sensor is in its first place, unless another time is given. Earlier readings are refused."""

_COLUMNS: Final = "entity, since, room, zone, label, hold, max_silence"
_LIST: Final = f"SELECT {_COLUMNS} FROM sensors ORDER BY entity, since"  # noqa: S608  # constants
_OF_ENTITY: Final = f"SELECT {_COLUMNS} FROM sensors WHERE entity = $1 ORDER BY since"  # noqa: S608  # constants
_WRITE: Final = f"""
    INSERT INTO sensors ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (entity, since) DO UPDATE SET
        room = excluded.room, zone = excluded.zone, label = excluded.label,
        hold = excluded.hold, max_silence = excluded.max_silence
"""  # noqa: S608  # constants
_DELETE: Final = "DELETE FROM sensors WHERE entity = $1 AND since = $2"
_OWNER: Final = """
    SELECT pg_get_userbyid(relowner) AS owner, current_user AS who,
           pg_has_role(current_user, relowner, 'USAGE') AS owned
    FROM pg_class WHERE oid = 'sensors'::regclass
"""
# One change after the other. Readers and clients that insert readings do not wait for it.
_LOCK: Final = "LOCK TABLE sensors IN SHARE ROW EXCLUSIVE MODE"


@dataclass(frozen=True)
class Sensor:
    """A row of the table.

    Attributes:
        entity: Home Assistant entity id.
        since: From when on the sensor is there; ``ALWAYS`` for all of its history.
        room: A room of the database; None from the retirement of the sensor on.
        zone: 1 to 50 characters; None as the room.
        label: Text for people.
        hold: The longest time for which a state holds without another reading; None for 24 hours.
        max_silence: The longest time without a reading that is nothing unusual; None to learn it from the
            readings.
    """

    entity: str
    since: datetime
    room: str | None
    zone: str | None
    label: str | None = None
    hold: timedelta | None = None
    max_silence: timedelta | None = None


@dataclass(frozen=True)
class Change:
    """Values to set; None leaves a value as it is, and ``""`` or ``timedelta(0)`` removes it."""

    room: str | None = None
    zone: str | None = None
    label: str | None = None
    hold: timedelta | None = None
    max_silence: timedelta | None = None

    def applied(self, sensor: Sensor) -> Sensor:
        """A row with these values."""
        return replace(
            sensor,
            room=sensor.room if self.room is None else self.room,
            zone=sensor.zone if self.zone is None else self.zone,
            label=sensor.label if self.label is None else self.label or None,
            hold=sensor.hold if self.hold is None else self.hold or None,
            max_silence=sensor.max_silence if self.max_silence is None else self.max_silence or None,
        )


@dataclass
class Added:
    """What ``add`` has done.

    Attributes:
        added: The new sensors.
        present: Sensors that the database had, and which were not changed.
    """

    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)


async def list_sensors(connection: Any) -> list[Sensor]:
    """Return the places of all sensors, ordered by entity and time.

    Args:
        connection: An ``asyncpg.Connection``.
    """
    return [Sensor(**row) for row in await connection.fetch(_LIST)]


async def add(connection: Any, sensors: Iterable[Sensor]) -> Added:
    """Add the sensors that the database does not have. Nothing else is changed.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        sensors: The places of sensors.

    Raises:
        DatabaseError: a value is not allowed, or the user is not the owner. Nothing was changed.
    """
    rows = list(sensors)
    async with connection.transaction():
        await _begin(connection)
        await _check(connection, rows)
        known = {row["entity"] for row in await connection.fetch("SELECT DISTINCT entity FROM sensors")}
        for sensor in rows:
            if sensor.entity not in known:
                await _write(connection, sensor)
    names = list(dict.fromkeys(sensor.entity for sensor in rows))
    return Added([name for name in names if name not in known], [name for name in names if name in known])


async def change(
    connection: Any, entity: str, values: Change, since: datetime | None = None
) -> Sensor | None:
    """Add a sensor, move it, or change its label or hold.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        entity: Home Assistant entity id.
        values: The values to set. A new sensor, and one that was retired, needs room and zone.
        since: From when on; by default all of its history for a new sensor, and now for one that moves. A new
            label or hold alone replaces the newest one.

    Returns:
        The row that was written; None if it was there already.

    Raises:
        DatabaseError: a value is not allowed, or the user is not the owner. Nothing was changed.
    """
    async with connection.transaction():
        await _begin(connection)
        present = await _rows(connection, entity)
        moment = since or (await _now(connection) if present else ALWAYS)
        before = [sensor for sensor in present if sensor.since <= moment]
        base = before[-1] if before else Sensor(entity, moment, None, None)
        wanted = values.applied(base)
        if None in (wanted.room, wanted.zone):
            raise _refused(f"sensor {entity!r} has no room and zone at that time: both must be given")
        if before and wanted == base:
            return None
        stays = (base.room, base.zone) == (wanted.room, wanted.zone)
        if since or not stays:
            wanted = replace(wanted, since=moment)
        await _check(connection, [wanted])
        await _write(connection, wanted)
        return wanted


async def retire(connection: Any, entity: str, at: datetime | None) -> datetime:
    """Retire a sensor: from that time on, a reading that names the entity alone is refused.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        entity: A sensor of the database.
        at: From when on, with a time zone. If None, a sensor that is retired already keeps its time, and
            another one is retired now.

    Returns:
        From when on the sensor is retired.

    Raises:
        DatabaseError: there is no such sensor, it moves later, or the user is not the owner.
    """
    async with connection.transaction():
        await _begin(connection)
        present = await _require(connection, entity)
        last = present[-1]
        if last.room is None and at is None:
            return last.since
        moment = at or await _now(connection)
        if last.room is None and len(present) > 1:  # another time for the same retirement
            await connection.execute(_DELETE, entity, last.since)
            last = present[-2]
        if last.since >= moment:
            since = last.since.astimezone(UTC)
            raise _refused(f"sensor {entity!r} is in {last.room!r} since {since:%Y-%m-%d %H:%M:%S}+00")
        await _write(connection, replace(last, since=moment, room=None, zone=None))
        return moment


async def bring_back(connection: Any, entity: str) -> bool:
    """Undo the retirement of a sensor.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        entity: A sensor of the database.

    Returns:
        Whether the sensor was retired.

    Raises:
        DatabaseError: there is no such sensor, or the user is not the owner.
    """
    async with connection.transaction():
        await _begin(connection)
        last = (await _require(connection, entity))[-1]
        if last.room is None:
            await connection.execute(_DELETE, entity, last.since)
        return last.room is None


async def remove(connection: Any, entity: str) -> None:
    """Remove a sensor with all of its places; its readings stay.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        entity: A sensor of the database.

    Raises:
        DatabaseError: there is no such sensor, or the user is not the owner.
    """
    async with connection.transaction():
        await _begin(connection)
        await _require(connection, entity)
        await connection.execute("DELETE FROM sensors WHERE entity = $1", entity)


async def _begin(connection: Any) -> None:
    row = await connection.fetchrow(_OWNER)
    if not row["owned"]:
        raise DatabaseError(
            ExitCode.PERMISSION,
            f"{row['who']} cannot change sensors: {row['owner']} owns the table sensors",
            "Run the command as the owner: with sudo on the host, or with the .env of 'make up'.",
        )
    await connection.execute(_LOCK)


async def _now(connection: Any) -> datetime:
    now: datetime = await connection.fetchval("SELECT now()")
    return now


async def _rows(connection: Any, entity: str) -> list[Sensor]:
    return [Sensor(**row) for row in await connection.fetch(_OF_ENTITY, entity)]


async def _require(connection: Any, entity: str) -> list[Sensor]:
    if present := await _rows(connection, entity):
        return present
    raise DatabaseError(
        ExitCode.FAILED, f"unknown sensor {entity!r}", "List the sensors with 'occupancy-db sensors list'."
    )


async def _write(connection: Any, sensor: Sensor) -> None:
    try:
        await connection.execute(_WRITE, *(getattr(sensor, column.name) for column in fields(Sensor)))
    except asyncpg.DataError as error:  # a time that only Python can hold, for example
        raise _refused(f"sensor {sensor.entity!r}: {error}") from error


async def _check(connection: Any, sensors: list[Sensor]) -> None:
    rooms = await load_rooms(connection)
    seen: set[tuple[str, datetime]] = set()
    for sensor in sensors:
        problem = (
            text_problem("entity", sensor.entity, ENTITY_LENGTH)
            or room_problem(sensor.room, rooms)
            or text_problem("zone", sensor.zone, ZONE_LENGTH)
            or (sensor.label and label_problem(sensor.label))
            or ("the hold is negative" if sensor.hold and sensor.hold < timedelta(0) else None)
            or (
                "the longest silence is negative"
                if sensor.max_silence and sensor.max_silence < timedelta(0)
                else None
            )
            or ("the sensor is listed twice" if (sensor.entity, sensor.since) in seen else None)
        )
        if problem:
            raise _refused(f"sensor {sensor.entity!r}: {problem}")
        seen.add((sensor.entity, sensor.since))


def _refused(problem: str) -> DatabaseError:
    return DatabaseError(ExitCode.USAGE, problem, "Nothing was changed.")
