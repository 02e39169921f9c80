"""Validation of readings, and what the database is known to accept."""

import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Final, Protocol

from occupancy_db.months import AHEAD, EARLIEST, absurd, following, month_of
from occupancy_db.rooms import Rooms
from occupancy_db.sensors import Sensors
from occupancy_db.storage import COLUMNS, Batch, Row

ZONE_LENGTH: Final = 50
ENTITY_LENGTH: Final = 100

GAPS: Final = frozenset({"unavailable", "unknown"})
"""The states with which Home Assistant says that a sensor knows nothing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One state of one zone.

    Attributes:
        timestamp: When it was measured, with a time zone.
        room: A room of the database, as text or as a member of an enumeration with such values. None
            together with the zone: the room in which the sensor was at that time.
        zone: 1 to 50 characters, or None as the room.
        state: Whether the zone is occupied; ``"unavailable"`` or ``"unknown"`` if the sensor does not know.
        source_entity: Home Assistant entity id, 1 to 100 characters.
        confidence: 0 to 1.
    """

    timestamp: datetime
    room: str | None
    zone: str | None
    state: bool | str
    source_entity: str
    confidence: float = 1.0


class ReadingLike(Protocol):
    """An object with the attributes of a ``Reading``; ``confidence`` may be missing or None.

    ``room`` and ``zone`` may be missing both.
    """

    @property
    def timestamp(self) -> datetime:
        """As in ``Reading``."""

    @property
    def room(self) -> str | None:
        """As in ``Reading``."""

    @property
    def zone(self) -> str | None:
        """As in ``Reading``."""

    @property
    def state(self) -> bool | str:
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
_PLACE: Final = frozenset({"room", "zone"})
_DEFAULTS: Final = {"room": None, "zone": None, "confidence": 1.0}

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


class SensorsNeededError(Exception):
    """A reading names its entity alone."""


def grouped(
    readings: Sequence[Reading | ReadingLike | Mapping[str, Any]],
    now: datetime,
    known: Known,
    sensors: Sensors | None = None,
) -> Batch:
    """Validate readings, group them by UTC month, and tell gaps from readings.

    Args:
        readings: As for ``ingest``.
        now: The present, with a time zone.
        known: The rooms of the database; valid sources are added.
        sensors: The places of the entities that are named alone.

    Raises:
        InvalidReadings: some readings are invalid.
        SensorsNeededError: a reading names its entity alone, and ``sensors`` is not given.
    """
    found = Batch()
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
                    rows.append((timestamp, room, zone, state, entity, confidence))  # type: ignore[arg-type]
                    continue
            except (TypeError, ValueError):  # not comparable or not hashable: _row() finds the reason
                pass
        row = _row(reading, now, known.rooms, sensors)
        if isinstance(row, str):
            problems.append((index, row))
            continue
        if known.rooms.retired_at[row[1]] is None:
            if len(sources) >= _KNOWN_LIMIT:
                sources.clear()
            sources[row[1], row[2], row[4]] = None
        if row[3] not in (True, False):  # a gap
            found.gaps.append((*row[:3], row[4]))
            continue
        month = month_of(row[0])
        rows = found.months.setdefault(month, [])
        rows.append(row)
        since = max(EARLIEST, _midnight(month))
        until = min(_midnight(following(month)), now + AHEAD)
    if problems:
        raise InvalidReadings(problems)
    return found


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def entities_alone(readings: Sequence[Any]) -> set[str]:
    """The entities of the readings that name no room and zone.

    Args:
        readings: As for ``ingest``.
    """
    found = [values for values in map(_values, readings) if isinstance(values, list)]
    return {
        entity for _, room, zone, _, entity, _ in found if room is zone is None and isinstance(entity, str)
    }


def _row(reading: Any, now: datetime, rooms: Rooms, sensors: Sensors | None) -> Row | str:
    """The row of a reading, or the reason why the reading is invalid."""
    values = _values(reading)
    if isinstance(values, str):
        return values
    timestamp, room, zone, state, entity, confidence = map(_plain, values)
    if isinstance(room, Enum):
        room = room.value
    if problem := _timestamp_problem(timestamp, now):
        return problem
    if room is None and zone is None and isinstance(entity, str):
        if sensors is None:
            raise SensorsNeededError
        found = sensors.place(entity, timestamp)
        if isinstance(found, str):
            return found
        room, zone = found
    problem = (
        room_problem(room, rooms)
        or rooms.retirement_problem(room, timestamp)
        or text_problem("zone", zone, ZONE_LENGTH)
        or text_problem("source_entity", entity, ENTITY_LENGTH)
        or _state_problem(state)
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
        if missing := _missing(keys):
            return f"missing key {', '.join(missing)}"
        return [reading.get(name, _DEFAULTS.get(name)) for name in COLUMNS]
    values = {name: getattr(reading, name, _ABSENT) for name in COLUMNS}
    missing = _missing({name for name, value in values.items() if value is not _ABSENT})
    if set(missing) >= _REQUIRED - _PLACE:
        return f"neither a Reading nor a mapping nor an object like a Reading: {type(reading).__name__}"
    if missing:
        return f"missing attribute {', '.join(missing)}"
    if values["confidence"] is _ABSENT or (values["confidence"] is None and not isinstance(reading, Reading)):
        values["confidence"] = 1.0  # an object of a model, for example, whose default is the server's
    return [_DEFAULTS[name] if value is _ABSENT else value for name, value in values.items()]


def _missing(present: set[str]) -> list[str]:
    """What a reading lacks; it may lack room and zone together."""
    return sorted(_REQUIRED - present - (frozenset() if present & _PLACE else _PLACE))


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


def _state_problem(value: Any) -> str | None:
    if isinstance(value, bool) or (isinstance(value, str) and value in GAPS):
        return None
    return f"state is not a bool: {_shown(value)}"


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
