"""The rooms of a database: the values of the enumerated type ``room_type``, their labels and retirements.

A value is added while clients write: ``ALTER TYPE … ADD VALUE`` takes no lock on a table. The table ``rooms``
has a row for each room that has a label or was retired.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema.room_names import fold, label_problem, name_problem

_LIST: Final = """
    SELECT known.room, rooms.label, rooms.retired_at, coalesce(seen.zones, 0) AS zones, seen.last_reading
    FROM unnest(enum_range(NULL::room_type)::text[]) WITH ORDINALITY AS known (room, place)
    LEFT JOIN rooms USING (room)
    LEFT JOIN (
        SELECT room, count(*) AS zones, max(timestamp) AS last_reading FROM latest_readings GROUP BY room
    ) AS seen USING (room)
    ORDER BY known.place
"""

_OWNER: Final = """
    SELECT pg_get_userbyid(typowner) AS owner, current_user AS who,
           pg_has_role(current_user, typowner, 'USAGE') AS owned
    FROM pg_type WHERE oid = 'room_type'::regtype
"""

# The type and the table before the change. The value is quoted by the server.
_KNOWN: Final = """
    SELECT known.room, rooms.label, rooms.retired_at
    FROM unnest(enum_range(NULL::room_type)::text[]) AS known (room)
    LEFT JOIN rooms USING (room)
"""
_ADD: Final = "SELECT format('ALTER TYPE room_type ADD VALUE IF NOT EXISTS %L', $1::text)"
_SET_LABEL: Final = """
    INSERT INTO rooms (room, label) VALUES ($1, $2) ON CONFLICT (room) DO UPDATE SET label = excluded.label
"""
_RETIRE: Final = """
    INSERT INTO rooms (room, retired_at) VALUES ($1, coalesce($2, date_trunc('second', now())))
    ON CONFLICT (room) DO UPDATE SET retired_at = excluded.retired_at
    RETURNING retired_at
"""
_FORGET: Final = "DELETE FROM rooms WHERE room = $1 AND label IS NULL AND retired_at IS NULL"


@dataclass(frozen=True)
class Room:
    """A room as ``rooms list`` shows it.

    Attributes:
        room: The name, a value of ``room_type``.
        label: Text for people; None if it has none.
        retired_at: Readings of this time and later are refused; None if the room is in use.
        zones: Number of zones that have readings.
        last_reading: Timestamp of the newest reading; None if there is none.
    """

    room: str
    label: str | None
    retired_at: datetime | None
    zones: int
    last_reading: datetime | None


@dataclass
class Added:
    """What ``add`` has done.

    Attributes:
        added: The new rooms.
        labelled: The rooms that have got a label.
        notes: What the operator should know.
    """

    added: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def list_rooms(connection: Any) -> list[Room]:
    """Return all rooms in the order of the type.

    Args:
        connection: An ``asyncpg.Connection``.
    """
    return [Room(**row) for row in await connection.fetch(_LIST)]


async def add(connection: Any, wanted: Mapping[str, str | None]) -> Added:
    """Add the rooms that are missing, and labels to rooms that have none. Nothing else is changed.

    Args:
        connection: An ``asyncpg.Connection`` of the owner, not in a transaction: a new value can be used
            after its transaction has ended.
        wanted: The label of each room by its name; None for none.

    Raises:
        DatabaseError: a name or label is not allowed, or the user is not the owner. Nothing was changed.
    """
    for name, label in wanted.items():
        _check(name_problem(name))
        _check(None if label is None else label_problem(label))
    await _require_owner(connection)
    known = {row["room"]: row for row in await connection.fetch(_KNOWN)}
    result = Added()
    for name, label in wanted.items():
        if name not in known:
            result.notes += _similar(name, [*known, *result.added])
            await connection.execute(await connection.fetchval(_ADD, name))
            result.added.append(name)
        row = known.get(name, {})
        if row.get("retired_at"):
            result.notes.append(
                f"{name} is retired; 'occupancy-db rooms retire --undo {name}' brings the room back"
            )
        if label is None or row.get("label") == label:
            continue
        if row.get("label"):
            result.notes.append(
                f"{name} keeps its label {row['label']!r}; 'occupancy-db rooms label' sets one"
            )
            continue
        await connection.execute(_SET_LABEL, name, label)
        result.labelled.append(name)
    return result


async def set_label(connection: Any, name: str, label: str | None) -> None:
    """Set or remove the label of a room.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        name: A room of the database.
        label: The label; None to remove it.

    Raises:
        DatabaseError: there is no such room, the label is not allowed, or the user is not the owner.
    """
    _check(None if label is None else label_problem(label))
    await _require_owner(connection)
    await _require_room(connection, name)
    async with connection.transaction():
        if label is not None:
            await connection.execute(_SET_LABEL, name, label)
        else:
            await connection.execute("UPDATE rooms SET label = NULL WHERE room = $1", name)
            await connection.execute(_FORGET, name)


async def retire(connection: Any, name: str, at: datetime | None) -> datetime:
    """Retire a room: readings of that time and later are refused, earlier ones are kept and accepted.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        name: A room of the database.
        at: From when on, with a time zone. If None, a room that is retired already keeps its time, and
            another one is retired now.

    Returns:
        From when on the room is retired.

    Raises:
        DatabaseError: there is no such room, or the user is not the owner.
    """
    await _require_owner(connection)
    retired_at = await _require_room(connection, name)
    if at is None and retired_at is not None:
        return retired_at
    found: datetime = await connection.fetchval(_RETIRE, name, at)
    return found


async def bring_back(connection: Any, name: str) -> bool:
    """Undo the retirement of a room.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        name: A room of the database.

    Returns:
        Whether the room was retired.

    Raises:
        DatabaseError: there is no such room, or the user is not the owner.
    """
    await _require_owner(connection)
    retired_at = await _require_room(connection, name)
    async with connection.transaction():
        await connection.execute("UPDATE rooms SET retired_at = NULL WHERE room = $1", name)
        await connection.execute(_FORGET, name)
    return retired_at is not None


async def _require_owner(connection: Any) -> None:
    row = await connection.fetchrow(_OWNER)
    if not row["owned"]:
        raise DatabaseError(
            ExitCode.PERMISSION,
            f"{row['who']} cannot change rooms: {row['owner']} owns the type room_type",
            "Run the command as the owner: with sudo on the host, or with the .env of 'make up'.",
        )


async def _require_room(connection: Any, name: str) -> datetime | None:
    """Return when a room was retired; refuse one that the database does not have."""
    known: dict[str, datetime | None] = {
        row["room"]: row["retired_at"] for row in await connection.fetch(_KNOWN)
    }
    if name not in known:
        near = _similar_names(name, known)
        raise DatabaseError(
            ExitCode.FAILED,
            f"unknown room {name!r}" + (f" (there is {', '.join(map(repr, near))})" if near else ""),
            "List the rooms with 'occupancy-db rooms list', or add one with 'occupancy-db rooms add'.",
        )
    return known[name]


def _check(problem: str | None) -> None:
    if problem:
        raise DatabaseError(ExitCode.USAGE, problem, "Nothing was changed.")


def _similar_names(name: str, others: Collection[str]) -> list[str]:
    return [other for other in others if other != name and fold(other) == fold(name)]


def _similar(name: str, others: Collection[str]) -> list[str]:
    return [f"{name} and {other} are two rooms" for other in _similar_names(name, others)]
