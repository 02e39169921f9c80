"""Live ingest: batches of readings from the application, copied to the partitions of their months."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, Final

from occupancy_db.connection import get_engine
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.models.enums import RoomType
from occupancy_db.months import AHEAD, EARLIEST, TABLE, absurd, following, month_of, partition_name

ROOMS: Final = frozenset(room.value for room in RoomType)
ZONE_LENGTH: Final = 50
ENTITY_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """One state of one zone.

    Attributes:
        timestamp: When it was measured, with a time zone.
        room: A ``RoomType`` or its value.
        zone: 1 to 50 characters.
        state: Whether the zone is occupied.
        source_entity: Home Assistant entity id, 1 to 100 characters.
        confidence: 0 to 1.
    """

    timestamp: datetime
    room: RoomType | str
    zone: str
    state: bool
    source_entity: str
    confidence: float = 1.0


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

# Valid (room, zone, source_entity): a home has a few dozen, which repeat.
_known: dict[tuple[str, str, str], None] = {}
_KNOWN_LIMIT: Final = 10_000

# A partition that is being detached still accepts rows under its name, and they would be lost. This query
# holds a lock on the parent table until the transaction ends; a detach waits for it.
_PARTITIONS = f"""
    SELECT relname
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = '{TABLE}'::regclass AND NOT inhdetachpending
      AND NOT EXISTS (SELECT FROM ONLY {TABLE})
"""  # noqa: S608  # a constant


async def ingest(readings: Iterable[Reading | Mapping[str, Any]]) -> int:
    """Write readings in one transaction: all of them or none.

    The function uses the pool of the running event loop, and copies the readings of each month directly to
    its partition: COPY to the partitioned table inserts row by row because of its triggers.

    Args:
        readings: ``Reading`` objects, or mappings with their fields as keys.

    Returns:
        The number of readings written.

    Raises:
        InvalidReadings: some readings are invalid; nothing was sent.
        DatabaseError: a month has no partition.
        sqlalchemy.exc.DBAPIError: no connection.
        asyncpg.PostgresError: the server refused the rows, or a lock was not obtained in time.
    """
    months = by_month(readings, datetime.now(UTC))
    if not months:
        return 0
    async with (await get_engine()).connect() as connection:
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
    return sum(map(len, months.values()))


def by_month(readings: Iterable[Reading | Mapping[str, Any]], now: datetime) -> dict[date, list[Row]]:
    """Validate readings and group them by UTC month.

    Args:
        readings: As for ``ingest``.
        now: The present, with a time zone.

    Raises:
        InvalidReadings: some readings are invalid.
    """
    months: dict[date, list[Row]] = {}
    problems: list[tuple[int, str]] = []
    rows: list[Row] = []
    since = until = EARLIEST  # bounds of the month of `rows`, within the accepted timestamps
    known = _known
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
                    and (room, zone, entity) in known
                ):
                    rows.append((timestamp, room, zone, state, entity, confidence))
                    continue
            except TypeError:  # not comparable or not hashable: _problem() below finds the reason
                pass
        problem = _problem(reading, now)
        if problem is not None:
            problems.append((index, problem))
            continue
        row = _row(reading)
        if len(known) >= _KNOWN_LIMIT:
            known.clear()
        known[row[1], row[2], row[4]] = None
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


def _row(reading: Reading | Mapping[str, Any]) -> Row:
    if not isinstance(reading, Reading):
        reading = Reading(**reading)
    confidence = float(reading.confidence)
    return reading.timestamp, reading.room, reading.zone, reading.state, reading.source_entity, confidence


def _problem(reading: Any, now: datetime) -> str | None:
    if isinstance(reading, Mapping):
        keys = set(reading)
        if unknown := sorted(map(repr, keys - _FIELDS)):
            return f"unknown key {', '.join(unknown)}"
        if missing := sorted(_REQUIRED - keys):
            return f"missing key {', '.join(missing)}"
        reading = Reading(**reading)
    if not isinstance(reading, Reading):
        return f"neither a Reading nor a mapping: {type(reading).__name__}"
    return (
        _timestamp_problem(reading.timestamp, now)
        or room_problem(reading.room)
        or text_problem("zone", reading.zone, ZONE_LENGTH)
        or text_problem("source_entity", reading.source_entity, ENTITY_LENGTH)
        or (None if isinstance(reading.state, bool) else f"state is not a bool: {_shown(reading.state)}")
        or _confidence_problem(reading.confidence)
    )


def _timestamp_problem(value: Any, now: datetime) -> str | None:
    if not isinstance(value, datetime):
        return f"timestamp is not a datetime: {_shown(value)}"
    if value.utcoffset() is None:
        return f"timestamp has no time zone: {value.isoformat()}"
    return absurd(value, now)


def _confidence_problem(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"confidence is not a number: {_shown(value)}"
    return None if 0 <= value <= 1 else f"confidence is not between 0 and 1: {_shown(value)}"


def room_problem(value: Any, rooms: Container[str] = ROOMS) -> str | None:
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
