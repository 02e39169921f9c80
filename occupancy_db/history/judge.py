"""Whether a row of a file is a good reading, and what it is made of in binary COPY."""

from datetime import datetime
from struct import Struct
from typing import Any, Final, NamedTuple

from occupancy_db.history.times import Clock, SkippedTimeError, micros, moment_of
from occupancy_db.models.enums import RoomType
from occupancy_db.months import absurd
from occupancy_db.rooms import Rooms
from occupancy_db.schema.room_names import name_problem
from occupancy_db.sensors import Sensors
from occupancy_db.validation import ENTITY_LENGTH, GAPS, ZONE_LENGTH, room_problem, text_problem

COPY_COLUMNS: Final = ("room", "zone", "state", "source_entity", "confidence", "timestamp")
"""The columns of a row, in order."""

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

STATES: Final = {
    **dict.fromkeys(["true", "t", "1", "on", "yes", "1.0"], True),
    **dict.fromkeys(["false", "f", "0", "off", "no", "0.0"], False),
}
STATELESS: Final = GAPS | {""}
"""What Home Assistant records when a sensor says nothing."""

DEFAULT_ROOMS: Final = Rooms(dict.fromkeys(room.value for room in RoomType))
"""The rooms of a database to which none was added."""

REMEMBERED: Final = 100_000
"""Up to so many different values of a kind are remembered, of all months together: some 30 MB."""

FOREVER: Final = 1 << 62
"""Later than each timestamp, in microseconds."""

_int16 = Struct(">h").pack
_int32 = Struct(">i").pack
_float8 = Struct(">d").pack


class Reject(Exception):  # noqa: N818  # an outcome of reading, not an error
    """A row that cannot be taken, and why."""


class NoState(Exception):  # noqa: N818  # as above
    """A row that says nothing, and how it says so.

    Attributes:
        gap: Room, zone and entity of a gap, which ends a state; None if the row is none.
    """

    def __init__(self, says: str, gap: tuple[str, str, str] | None = None) -> None:
        super().__init__(says)
        self.gap = gap


class NoPlace(Exception):  # noqa: N818  # as above
    """A row of an entity that is in no room at that time."""


class Start(NamedTuple):
    """What rows of the same room, zone, state and entity begin with.

    Attributes:
        columns: The bytes of COPY up to the confidence.
        since: From when on they hold, in microseconds.
        until: Until when.
        room: The room, which the row need not name.
        zone: The zone.
    """

    columns: bytes
    since: int
    until: int
    room: str
    zone: str


class Judge:
    """Tells good rows from bad ones.

    Attributes:
        unknown_rooms: The rooms of rejected rows that the database does not have.
    """

    def __init__(self, rooms: Rooms, sensors: Sensors, now: datetime, *, decimal_comma: bool = False) -> None:
        self.unknown_rooms: set[str] = set()
        self._starts: dict[Any, Start] = {}
        self._rooms = rooms
        self._sensors = sensors
        self._now = now
        self._decimal_comma = decimal_comma

    def start(self, key: tuple[Any, Any, Any, Any], moment: int) -> Start:
        """What rows begin with that have a room, zone, state and entity at a time in microseconds.

        Raises:
            Reject: the row is not good.
            NoState: it says nothing.
            NoPlace: it names its entity alone, which has no place at that time.
        """
        try:
            known = self._starts.get(key)
        except TypeError:  # not hashable, and so not good
            known = None
        if known is None or not known.since <= moment < known.until:
            known = self._start(*key, moment)
            if len(self._starts) >= REMEMBERED:
                self._starts.clear()
            self._starts[key] = known
        return known

    def _start(self, room: Any, zone: Any, state: Any, entity: Any, moment: int) -> Start:
        since, until = -FOREVER, FOREVER
        if problem := text_problem("source_entity", entity, ENTITY_LENGTH):
            raise Reject(problem)
        if not room and not zone:
            stay = self._sensors.stay(entity, moment_of(moment))
            if stay.place is None:
                raise NoPlace(entity)
            room, zone = stay.place
            since = -FOREVER if stay.since is None else micros(stay.since)
            until = FOREVER if stay.until is None else micros(stay.until)
        if state is None or (isinstance(state, str) and state.lower() in STATELESS):
            place = self._ended(room, zone, state, moment)
            raise NoState(state or "none", place and (*place, entity))
        self._check_room(room, moment)
        if problem := text_problem("zone", zone, ZONE_LENGTH):
            raise Reject(problem)
        retired = self._rooms.retired_at[room]
        if retired is not None:
            until = min(until, micros(retired))
        values = (room.encode(), zone.encode(), bytes([_state(state)]), entity.encode())
        columns = b"".join(_int32(len(value)) + value for value in values)
        return Start(_int16(len(COPY_COLUMNS)) + columns, since, until, room, zone)

    def _ended(self, room: Any, zone: Any, state: str | None, moment: int) -> tuple[str, str] | None:
        """Where a state ends, if the row says so and names a good place."""
        if state is None or state.lower() not in GAPS:
            return None
        problem = (
            room_problem(room, self._rooms)
            or self._rooms.retirement_problem(room, moment_of(moment))
            or text_problem("zone", zone, ZONE_LENGTH)
        )
        return None if problem else (room, zone)

    def _check_room(self, room: Any, moment: int) -> None:
        problem = room_problem(room, self._rooms)
        if problem is None:
            problem = self._rooms.retirement_problem(room, moment_of(moment))
        elif isinstance(room, str) and name_problem(room) is None and len(self.unknown_rooms) < REMEMBERED:
            self.unknown_rooms.add(room)
        if problem:
            raise Reject(problem)

    def score(self, value: Any) -> bytes:
        """The confidence, and how long the timestamp is that follows.

        Raises:
            Reject: it is not good.
        """
        score: float | None = 1.0
        if value is not None and value != "":
            text = value.replace(",", ".") if self._decimal_comma and isinstance(value, str) else value
            try:
                score = None if isinstance(value, bool) else float(text)
            except (TypeError, ValueError, OverflowError):
                score = None
        if score is None:
            raise Reject(f"confidence is not a number: {value!r}")
        if not 0 <= score <= 1:
            raise Reject(f"confidence is not between 0 and 1: {value!r}")
        return _int32(8) + _float8(score) + _int32(8)

    def moment(self, value: Any, clock: Clock) -> int:
        """The timestamp in microseconds.

        Args:
            value: As it stands in the file.
            clock: Reads those of the file.

        Raises:
            AmbiguousTimeError: the clocks showed it twice.
            Reject: it is not good.
        """
        if value is None or value == "":
            raise Reject("no timestamp")
        try:
            moment = clock.parse(value)
            problem = absurd(moment_of(moment), self._now)
        except SkippedTimeError:
            raise Reject(f"the clocks never showed {value}") from None
        except TypeError:
            kind = "has no time zone" if isinstance(value, str) else "is not ISO 8601"
            raise Reject(f"timestamp {kind}: {value!r}") from None
        except OverflowError:
            raise Reject(f"timestamp is out of range: {value!r}") from None
        except ValueError as error:
            if hasattr(error, "clock"):
                raise
            form = f"of the format {clock.form}" if clock.form else "ISO 8601"
            raise Reject(
                f"timestamp is not {'ISO 8601' if clock.form == 'iso' else form}: {value!r}"
            ) from None
        if problem:
            raise Reject(problem)
        return moment


def _state(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = STATES.get(value.lower() if isinstance(value, str) else str(value))
    if known is None:
        raise Reject(f"state is neither true nor false: {value!r}")
    return known
