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
from sqlalchemy.ext.asyncio import AsyncEngine

from occupancy_db.connection import get_engine
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.months import AHEAD, EARLIEST, TABLE, absurd, following, month_of, partition_name
from occupancy_db.rooms import Rooms, load_rooms

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


# In the order of Row.
COLUMNS: Final = ("timestamp", "room", "zone", "state", "source_entity", "confidence")
Row = tuple[datetime, str, str, bool, str, float]

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

# A partition that is being detached still accepts rows under its name, and they would be lost. This query
# holds a lock on the parent table until the transaction ends; a detach waits for it.
_PARTITIONS = f"""
    SELECT relname
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = '{TABLE}'::regclass AND NOT inhdetachpending
      AND NOT EXISTS (SELECT FROM ONLY {TABLE})
"""  # noqa: S608  # a constant


async def ingest(readings: Iterable[Reading | ReadingLike | Mapping[str, Any]]) -> int:
    """Write readings in one transaction: all of them or none.

    The function uses the pool of the running event loop, and copies the readings of each month directly to
    its partition: COPY to the partitioned table inserts row by row because of its triggers. It reads the
    rooms of the database once, and again before it refuses a reading.

    Args:
        readings: ``Reading`` objects, other objects with the same attributes, or mappings with these names
            as keys. Values may be scalars of numpy and pandas.

    Returns:
        The number of readings written.

    Raises:
        InvalidReadings: some readings are invalid; nothing was written.
        DatabaseError: a month has no partition.
        sqlalchemy.exc.DBAPIError: no connection.
        asyncpg.PostgresError: the server refused the rows, or a lock was not obtained in time.
    """
    batch = readings if isinstance(readings, list | tuple) else list(readings)
    if not batch:
        return 0
    engine, now = await get_engine(), datetime.now(UTC)
    months: dict[date, list[Row]] | None = None
    if (known := _known.get(engine.sync_engine)) is not None:
        with suppress(InvalidReadings):  # a room may have been added since the rooms were read
            months = by_month(batch, now, known)
    if months is None:
        months = by_month(batch, now, await _learn(engine))
    try:
        await _copy(engine, months)
    except (asyncpg.CheckViolationError, asyncpg.InvalidTextRepresentationError):
        # A room may have been retired or renamed since the rooms were read.
        by_month(batch, now, await _learn(engine))
        raise
    return len(batch)


async def _learn(engine: AsyncEngine) -> Known:
    """Read the rooms of the database, and keep them for the batches that follow."""
    async with engine.connect() as connection:
        rooms = await load_rooms((await connection.get_raw_connection()).driver_connection)
    _known[engine.sync_engine] = known = Known(rooms)
    return known


async def _copy(engine: AsyncEngine, months: dict[date, list[Row]]) -> None:
    async with engine.connect() as connection:
        # COPY is a function of asyncpg, which must then begin the transaction too.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.transaction():
            present = {row["relname"] for row in await driver.fetch(_PARTITIONS)}
            missing = [month for month in sorted(months) if partition_name(month) not in present]
            if missing:
                raise _no_partition(missing, present)
            for month in sorted(months):
                await driver.copy_records_to_table(
                    partition_name(month), records=months[month], columns=COLUMNS
                )


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
    return problem or (timestamp, room, zone, state, entity, float(confidence))


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


def _no_partition(missing: list[date], present: set[str]) -> DatabaseError:
    months = ", ".join(f"{month:%Y-%m}" for month in missing)
    names = sorted(name.removeprefix(f"{TABLE}_").replace("_", "-") for name in present)
    kept = f"partitions exist from {names[0]} to {names[-1]}" if names else "no partition exists"
    return DatabaseError(
        ExitCode.FAILED,
        f"no partition for readings of {months}: {kept}; nothing was written",
        "Use 'occupancy-db import' for readings of removed months, and 'occupancy-db partitions maintain' to "
        "create the partitions of coming months.",
    )
