"""Live ingest: batches of readings from the application, copied to the partitions of their months."""

import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from occupancy_db.connection import driver_of, get_engine
from occupancy_db.months import AHEAD, EARLIEST, absurd, following, month_of
from occupancy_db.rooms import Rooms, load_rooms
from occupancy_db.storage import COLUMNS, OvertakenError, Row, store, store_in_savepoint

ZONE_LENGTH: Final = 50
ENTITY_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """One state of one zone.

    Attributes:
        timestamp: When it was measured, with a time zone.
        room: A room of the database, as text or as a member of an enumeration with such values.
        zone: 1 to 50 characters.
        state: Whether the zone is occupied.
        source_entity: Home Assistant entity id, 1 to 100 characters.
        confidence: 0 to 1.
    """

    timestamp: datetime
    room: str
    zone: str
    state: bool
    source_entity: str
    confidence: float = 1.0


class ReadingLike(Protocol):
    """An object with the attributes of a ``Reading``; ``confidence`` may be missing or None."""

    @property
    def timestamp(self) -> datetime:
        """As in ``Reading``."""

    @property
    def room(self) -> str:
        """As in ``Reading``."""

    @property
    def zone(self) -> str:
        """As in ``Reading``."""

    @property
    def state(self) -> bool:
        """As in ``Reading``."""

    @property
    def source_entity(self) -> str:
        """As in ``Reading``."""


class InvalidReadings(ValueError):  # noqa: N818  # part of the public interface
    """Invalid readings in a batch; nothing of the batch was written.

    Attributes:
        problems: The index of each invalid reading in the batch, and the reason.
    """

    SHOWN = 5

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        """Build the message from the first problems and the number of the others."""
        shown = "; ".join(f"reading {index}: {reason}" for index, reason in problems[: self.SHOWN])
        more = f"; and {len(problems) - self.SHOWN} more" if len(problems) > self.SHOWN else ""
        super().__init__(f"{len(problems)} invalid: {shown}{more}")
        self.problems = problems


_FIELDS: Final = frozenset(field.name for field in fields(Reading))
_REQUIRED: Final = _FIELDS - {"confidence"}

_KNOWN_LIMIT: Final = 10_000
_ABSENT: Final = object()


@dataclass(slots=True)
class Known:
    """What is known of one database.

    Attributes:
        rooms: Its rooms.
        sources: Valid (room, zone, source_entity) of rooms that are not retired. A home has a few dozen,
            which repeat.
    """

    rooms: Rooms
    sources: dict[tuple[str, str, str], None] = field(default_factory=dict)


_known: WeakKeyDictionary[Engine, Known] = WeakKeyDictionary()


async def ingest(
    readings: Iterable[Reading | ReadingLike | Mapping[str, Any]], *, session: AsyncSession | None = None
) -> int:
    """Write the readings that are not stored yet: all of them or none.

    A reading is stored once, however often it is sent: after a timeout, a cancellation or a restart the
    caller sends the same readings again. Two readings are the same if all of their values except the
    confidence are equal.

    Without a session, the function uses a connection from the pool of the running event loop, and a
    transaction of its own. With one, the readings become part of the caller's transaction, which should end
    soon: another transaction that writes at the same times waits for it. The function reads the rooms of the
    database once, and again before it refuses a reading.

    Args:
        readings: ``Reading`` objects, other objects with the same attributes, or mappings with these names
            as keys. Values may be scalars of numpy and pandas.
        session: A session in a transaction of isolation level READ COMMITTED, the default. A failure leaves
            its transaction as it was before the call.

    Returns:
        The number of readings written; those that were stored already do not count.

    Raises:
        InvalidReadings: some readings are invalid; nothing was written.
        DatabaseError: a month has no partition, or the session's transaction is unsuitable.
        sqlalchemy.exc.DBAPIError: no connection.
        asyncpg.PostgresError: the server refused the rows, or a lock was not obtained in time.
        asyncpg.InterfaceError, asyncpg.InternalClientError: the connection was lost. The readings may be
            written: send them again.
    """
    batch = readings if isinstance(readings, list | tuple) else list(readings)
    if not batch:
        return 0
    now = datetime.now(UTC)
    place = await session.connection() if session else await get_engine()
    months: dict[date, list[Row]] | None = None
    if (known := _known.get(_engine(place))) is not None:
        with suppress(InvalidReadings):  # a room may have been added since the rooms were read
            months = by_month(batch, now, known)
    if months is None:
        months = by_month(batch, now, await _learn(place))
    try:
        return await _store(place, months)
    except (asyncpg.CheckViolationError, asyncpg.InvalidTextRepresentationError):
        # A room may have been retired or renamed since the rooms were read.
        by_month(batch, now, await _learn(place))
        raise


def _engine(place: AsyncConnection | AsyncEngine) -> Engine:
    return (place.engine if isinstance(place, AsyncConnection) else place).sync_engine


async def _learn(place: AsyncConnection | AsyncEngine) -> Known:
    """Read the rooms of the database, and keep them for the batches that follow."""
    if isinstance(place, AsyncEngine):
        async with place.connect() as connection:
            return await _learn(connection)
    async with driver_of(place) as driver:
        rooms = await load_rooms(driver)
    _known[_engine(place)] = known = Known(rooms)
    return known


async def _store(place: AsyncConnection | AsyncEngine, months: dict[date, list[Row]]) -> int:
    """Store readings in a transaction of the engine, or in a savepoint of the connection's transaction."""
    while True:  # each attempt finds more readings stored by others
        try:
            if isinstance(place, AsyncEngine):
                return await store(place, months)
            return await store_in_savepoint(place, months)
        except OvertakenError:
            continue


def by_month(
    readings: Sequence[Reading | ReadingLike | Mapping[str, Any]], now: datetime, known: Known
) -> dict[date, list[Row]]:
    """Validate readings and group them by UTC month.

    Args:
        readings: As for ``ingest``.
        now: The present, with a time zone.
        known: The rooms of the database; valid sources are added.

    Raises:
        InvalidReadings: some readings are invalid.
    """
    months: dict[date, list[Row]] = {}
    problems: list[tuple[int, str]] = []
    rows: list[Row] = []
    since = until = EARLIEST  # bounds of the month of `rows`, within the accepted timestamps
    sources = known.sources
    for index, reading in enumerate(readings):
        # The checks of a valid reading are inlined: they are a third of the CPU time of ingest.
        if isinstance(reading, Reading):
            timestamp, state, confidence = reading.timestamp, reading.state, reading.confidence
            room, zone, entity = reading.room, reading.zone, reading.source_entity
            try:
                if (
                    since <= timestamp < until
                    and type(timestamp) is datetime
                    and (state is True or state is False)
                    and type(confidence) is float
                    and 0.0 <= confidence <= 1.0
                    and (room, zone, entity) in sources
                ):
                    rows.append((timestamp, room, zone, state, entity, confidence))
                    continue
            except (TypeError, ValueError):  # not comparable or not hashable: _row() finds the reason
                pass
        row = _row(reading, now, known.rooms)
        if isinstance(row, str):
            problems.append((index, row))
            continue
        if known.rooms.retired_at[row[1]] is None:
            if len(sources) >= _KNOWN_LIMIT:
                sources.clear()
            sources[row[1], row[2], row[4]] = None
        month = month_of(row[0])
        rows = months.setdefault(month, [])
        rows.append(row)
        since = max(EARLIEST, _midnight(month))
        until = min(_midnight(following(month)), now + AHEAD)
    if problems:
        raise InvalidReadings(problems)
    return months


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _row(reading: Any, now: datetime, rooms: Rooms) -> Row | str:
    """The row of a reading, or the reason why the reading is invalid."""
    values = _values(reading)
    if isinstance(values, str):
        return values
    timestamp, room, zone, state, entity, confidence = map(_plain, values)
    if isinstance(room, Enum):
        room = room.value
    problem = (
        _timestamp_problem(timestamp, now)
        or room_problem(room, rooms)
        or rooms.retirement_problem(room, timestamp)
        or text_problem("zone", zone, ZONE_LENGTH)
        or text_problem("source_entity", entity, ENTITY_LENGTH)
        or (None if isinstance(state, bool) else f"state is not a bool: {_shown(state)}")
        or _confidence_problem(confidence)
    )
    if problem:
        return problem
    if type(timestamp) is not datetime:  # pandas' Timestamp has nanoseconds, which the server does not store
        timestamp = timestamp.astimezone(UTC)
        timestamp = datetime.combine(timestamp.date(), timestamp.time(), UTC)
    return timestamp, room, zone, state, entity, float(confidence)


def _values(reading: Any) -> list[Any] | str:
    """The fields of a reading in the order of Row, or the reason why it has not all of them."""
    if isinstance(reading, Mapping):
        keys = set(reading)
        if unknown := sorted(map(repr, keys - _FIELDS)):
            return f"unknown key {', '.join(unknown)}"
        if missing := sorted(_REQUIRED - keys):
            return f"missing key {', '.join(missing)}"
        return [reading.get(name, 1.0) for name in COLUMNS]
    values = {name: getattr(reading, name, _ABSENT) for name in COLUMNS}
    missing = sorted(name for name in _REQUIRED if values[name] is _ABSENT)
    if len(missing) == len(_REQUIRED):
        return f"neither a Reading nor a mapping nor an object like a Reading: {type(reading).__name__}"
    if missing:
        return f"missing attribute {', '.join(missing)}"
    if values["confidence"] is _ABSENT or (values["confidence"] is None and not isinstance(reading, Reading)):
        values["confidence"] = 1.0  # an object of a model, for example, whose default is the server's
    return list(values.values())


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python's own; any other value as it is."""
    numpy = sys.modules.get("numpy")  # whoever has such a scalar has imported numpy
    if numpy is None or not isinstance(value, numpy.generic) or isinstance(value, numpy.datetime64):
        return value
    return value.item()


def _timestamp_problem(value: Any, now: datetime) -> str | None:
    if not isinstance(value, datetime):
        return f"timestamp is not a datetime: {_shown(value)}"
    if value != value:  # pandas' NaT is a datetime and differs from itself
        return "timestamp is NaT: the reading has no time"
    if value.utcoffset() is None:
        return f"timestamp has no time zone: {value.isoformat()}"
    return absurd(value, now)


def _confidence_problem(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"confidence is not a number: {_shown(value)}"
    return None if 0 <= value <= 1 else f"confidence is not between 0 and 1: {_shown(value)}"


def room_problem(value: Any, rooms: Container[str]) -> str | None:
    """The reason why a value is not a room, or None if it is one.

    Args:
        value: Any object.
        rooms: The rooms of the database (``occupancy_db.rooms.load_rooms``).
    """
    if isinstance(value, str) and value in rooms:
        return None
    return f"unknown room {_shown(value)}"


def text_problem(name: str, value: Any, longest: int) -> str | None:
    """The reason why a text column cannot hold a value, or None if it can.

    Args:
        name: The name of the column for the message.
        value: Any object.
        longest: The maximum length in characters.
    """
    if not isinstance(value, str):
        return f"{name} is not text: {_shown(value)}"
    if not value:
        return f"{name} is empty"
    if len(value) > longest:
        return f"{name} is longer than {longest} characters: {_shown(value)}"
    if "\0" in value:
        return f"{name} contains a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name} is not valid Unicode"
    return None


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:60]}…"
