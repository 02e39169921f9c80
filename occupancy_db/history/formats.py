"""Files of readings as rows of binary COPY: CSV and NDJSON, plain or gzip, ours or Home Assistant's.

Binary, so that no character of a file can be taken for COPY's own, and the server need not parse times again.
"""

import csv
import gzip
import io
import json
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Any, Final, Protocol, Self
from zoneinfo import ZoneInfo

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.models.enums import RoomType
from occupancy_db.months import AHEAD, EARLIEST, absurd, following, month_of
from occupancy_db.rooms import Rooms
from occupancy_db.schema.room_names import name_problem
from occupancy_db.validation import ENTITY_LENGTH, ZONE_LENGTH, room_problem, text_problem

COPY_COLUMNS: Final = ("room", "zone", "state", "source_entity", "confidence", "timestamp")
"""The columns of a row, in order."""

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

STEP: Final = 2000
"""Rows that are parsed at once: a few milliseconds, in which nothing else happens."""

ENOUGH: Final = 100_000
"""Rows of a month that are worth a COPY while rows of other months come in: some 7 MB."""

AT_MOST: Final = 1_500_000
"""Rows that wait until their month is complete, so that it is stored by zone: some 100 MB."""

OURS: Final = ("timestamp", "room", "zone", "state", "source_entity", "confidence")
HOME_ASSISTANT: Final = ("last_changed", "entity_id", "state")

STATES: Final = {
    **dict.fromkeys(["true", "t", "1", "on", "yes"], True),
    **dict.fromkeys(["false", "f", "0", "off", "no"], False),
}
STATELESS: Final = frozenset({"unavailable", "unknown", ""})
"""What Home Assistant records when a sensor says nothing."""

DEFAULT_ROOMS: Final = Rooms(dict.fromkeys(room.value for room in RoomType))
"""The rooms of a database to which none was added."""

_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_int16 = Struct(">h").pack
_int32 = Struct(">i").pack
_int64 = Struct(">q").pack
_float8 = Struct(">d").pack

# What has been found good is remembered, up to so many different values of all months together: some 30 MB.
_REMEMBERED: Final = 100_000


class Format(StrEnum):
    """How rows are written in a file."""

    CSV = "csv"
    NDJSON = "ndjson"


@dataclass
class Options:
    """What the files do not say themselves.

    Attributes:
        format: Of all files; None to look at each.
        columns: Their names for our columns, where they differ.
        entities: Room and zone of each entity, for the history of Home Assistant; None if files are not that.
        timezone: Of timestamps without an offset; None to refuse those.
        rooms: The rooms of the database.
    """

    format: Format | None = None
    columns: dict[str, str] = field(default_factory=dict)
    entities: dict[str, tuple[str, str]] | None = None
    timezone: ZoneInfo | None = None
    rooms: Rooms = DEFAULT_ROOMS


class Rejects:
    """The rows that were not taken, in a CSV file that is made with the first of them.

    Attributes:
        path: Of the file.
        count: How many rows.
        first: The first few, for a person: file, line and reason.
    """

    SHOWN = 3

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[str] = []
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, file: Path, line: int, reason: str, row: str) -> None:
        """Write one down.

        Args:
            file: Where it was.
            line: Where it begins, counted from 1.
            reason: What is wrong with it.
            row: As it stands there.
        """
        if self._writer is None:
            # What was not UTF-8 comes out as it came in.
            target = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
            self._writer = csv.writer(self._stack.enter_context(target))
            self._writer.writerow(["file", "line", "reason", "row"])
        self._writer.writerow([file, line, reason, row])
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(f"{file}, line {line}: {reason}")


class _Rows(Protocol):
    """What csv.reader is, too: goes on with the next row after it has raised an error."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...


class _BadLineError(Exception):
    """A line that is no row."""


class _Reject(Exception):  # noqa: N818  # an outcome of reading, not an error
    """A row that cannot be taken, and why."""


class _NoState(Exception):  # noqa: N818  # as above
    """A row that says nothing."""


class _Month:
    """The rows of a month that have not been taken, by zone.

    Attributes:
        month: Its first day.
        since: From when on timestamps are believable and belong to it.
        until: Until when.
        zones: For each zone the parts of its rows, in the order of the files.
        known: What rows of the same text columns are made of: the parts that say so, and where they go.
        tails: The same for lines of CSV without their timestamp.
        waiting: How many rows there are.
    """

    def __init__(self, month: date, now: datetime) -> None:
        self.month = month
        since, until = (
            datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (month, following(month))
        )
        self.since, self.until = max(since, EARLIEST), min(until, now + AHEAD)
        self.zones: dict[str, list[bytes]] = {}
        self.known: dict[Any, tuple[bytes, list[bytes]]] = {}
        self.tails: dict[str, tuple[bytes, list[bytes]]] = {}
        self.waiting = 0


class Reader:
    """Reads files one after the other, and keeps what it has parsed by month and zone until it is taken.

    Attributes:
        read: Rows seen, good or bad.
        no_state: Rows without a state.
        months: Good rows of each month.
        unknown_rooms: The rooms of rejected rows that the database does not have.
        waiting: Good rows that have not been taken.
    """

    def __init__(self, files: list[Path], options: Options, rejects: Rejects, now: datetime) -> None:
        """Look at the head of each file.

        Args:
            files: At least one.
            options: What they do not say themselves.
            rejects: Takes the rows that are not.
            now: The present, with a time zone: nothing is from after it.

        Raises:
            DatabaseError: a file is missing or is not what it should be.
        """
        self.read = 0
        self.no_state = 0
        self.months: Counter[date] = Counter()
        self.unknown_rooms: set[str] = set()
        self.waiting = 0
        self.rejects = rejects
        self._options = options
        self._now = now
        self._taken = False
        self._remembered = 0
        self._months: dict[date, _Month] = {}
        self._here = self._month(month_of(EARLIEST))
        self._position: Callable[[], int] = int
        self._done = 0
        for path in files:
            with _opened(path) as file:
                _rows(file, options)
        self.size = sum(path.stat().st_size for path in files)
        self._steps = self._parse(files)

    @property
    def position(self) -> int:
        """How many of the ``size`` bytes have been read."""
        return self._done + self._position()

    def advance(self) -> bool:
        """Parse some rows; False if there are no more.

        Raises:
            DatabaseError: a file cannot be read on.
        """
        return next(self._steps, False)

    def fullest(self) -> date | None:
        """The month that most of the waiting rows belong to, None if no row waits."""
        month = max(self._months.values(), key=lambda month: month.waiting)
        return month.month if month.waiting else None

    def ready(self) -> date | None:
        """A month that is worth taking now: rows are of another already, or too many are waiting."""
        month = max(
            (month for month in self._months.values() if month is not self._here),
            key=lambda month: month.waiting,
            default=self._here,
        )
        if month is not self._here and month.waiting >= ENOUGH:
            return month.month
        # The first one need not be complete: so long nobody but the parser is at work.
        return self.fullest() if self.waiting >= (AT_MOST if self._taken else ENOUGH) else None

    def take(self, month: date) -> Iterator[bytes]:
        """The waiting rows of a month, zone by zone, in blocks; they wait no longer."""
        rows = self._months[month]
        self._taken = True
        self.waiting -= rows.waiting
        rows.waiting = 0
        # Its like may not come again, and other months need the room.
        self._remembered -= len(rows.known) + len(rows.tails)
        rows.known.clear()
        rows.tails.clear()
        # The lists stay what they are: rows that are parsed meanwhile go into them, for the next time.
        taken = [rows.zones[zone][:] for zone in sorted(rows.zones, key=str.encode)]
        for parts in rows.zones.values():
            parts.clear()
        for parts in taken:
            for first in range(0, len(parts), 2 * STEP):
                yield b"".join(parts[first : first + 2 * STEP])

    def _month(self, month: date) -> _Month:
        if month not in self._months:
            self._months[month] = _Month(month, self._now)
        return self._months[month]

    def _parse(self, files: list[Path]) -> Iterator[bool]:
        for path in files:
            with _opened(path) as file:
                self._position = file.position
                try:
                    yield from self._parse_file(file)
                except (OSError, EOFError, zlib.error) as error:
                    raise DatabaseError(
                        ExitCode.FAILED, f"cannot read on in {path}: {error}", "Nothing was imported."
                    ) from error
                self._position = int
            self._done += path.stat().st_size
            yield True

    def _parse_file(self, file: "_File") -> Iterator[bool]:
        rows, shape = _rows(file, self._options)
        judge = _Judge(self._options, self._now, self.unknown_rooms)
        if isinstance(rows, _CsvRows) and shape.time in (0, shape.width - 1):
            parse = self._parse_lines(file, rows, judge, shape)
        else:
            parse = self._parse_rows(file, rows, judge, shape)
        yield from parse

    def _parse_lines(
        self, file: "_File", rows: "_CsvRows", judge: "_Judge", shape: "_Shape"
    ) -> Iterator[bool]:
        """Lines of CSV whose timestamp is the first or the last column: the rest has been seen before.

        100 million times: what such a line goes through is written out here, with everything that it needs
        in local variables.
        """
        parse, first = judge.parse, shape.time == 0
        here = self._here
        since, until, tails = here.since, here.until, here.tails
        left, added = STEP, 0
        for line in rows.lines:
            if left <= 0:
                self._count(added)
                added, left = 0, STEP
                yield True
            left -= 1
            try:
                if first:
                    when, _, tail = line.partition(",")
                else:
                    tail, _, when = line.rpartition(",")
                    when = when.rstrip("\r\n")
                start, parts = tails[tail]
                moment = parse(when)
                if since <= moment < until:
                    parts += (start, _int64((moment - _POSTGRES_EPOCH) // _MICROSECOND))
                    added += 1
                    continue
            except (KeyError, TypeError, ValueError):
                pass
            self._count(added)
            added = 0
            found = self._place(file, rows, judge, shape, rows.row(line))
            if found and '"' not in line and self._remembered < _REMEMBERED:
                self._here.tails[tail] = found
                self._remembered += 1
            here = self._here
            since, until, tails = here.since, here.until, here.tails
        self._count(added)

    def _parse_rows(self, file: "_File", rows: _Rows, judge: "_Judge", shape: "_Shape") -> Iterator[bool]:
        left = STEP
        while True:
            if left <= 0:
                left = STEP
                yield True
            left -= 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, _BadLineError) as error:
                row = error
            self._place(file, rows, judge, shape, row)

    def _place(
        self, file: "_File", rows: _Rows, judge: "_Judge", shape: "_Shape", row: Any
    ) -> tuple[bytes, list[bytes]] | None:
        """Put a row where it belongs, or say why not; what it was made of, if that may be remembered."""
        if not row:  # an empty line
            return None
        try:
            if isinstance(row, Exception):
                raise _Reject(str(row))
            if len(row) != shape.width:
                raise _Reject(f"{len(row)} fields instead of {shape.width}")
            score = judge.score(None if shape.score is None else row[shape.score])
            key = shape.key(row)
            here = self._here
            lasting = True
            try:
                start, parts = here.known[key]
                moment = judge.parse(row[shape.time])
                known = here.since <= moment < here.until
            except (KeyError, TypeError, ValueError):
                known = False
            if not known:
                start, zone, retired = judge.start(*key)
                moment = judge.moment(row[shape.time], retired)
                here = self._here = self._month(month_of(moment))
                parts = here.zones.setdefault(zone, [])
                # Of a room that was retired in this month, each timestamp is compared.
                lasting = retired is None or judge.accepts_until(retired, here.until)
                if lasting and key not in here.known and self._remembered < _REMEMBERED:
                    here.known[key] = start, parts
                    self._remembered += 1
        except _NoState:
            self.read += 1
            self.no_state += 1
            return None
        except _Reject as problem:
            self.read += 1
            self._reject(file, rows, row, str(problem))
            return None
        start += score
        parts += (start, _int64((moment - _POSTGRES_EPOCH) // _MICROSECOND))
        self._count(1)
        return (start, parts) if lasting else None

    def _count(self, added: int) -> None:
        if added:
            self.read += added
            self.waiting += added
            self._here.waiting += added
            self.months[self._here.month] += added

    def _reject(self, file: "_File", rows: _Rows, row: Any, reason: str) -> None:
        line, words = rows.line_num, ""
        if isinstance(rows, _JsonRows):
            words = rows.line.strip()
        elif not isinstance(row, Exception):
            line -= sum(len(_LINE_ENDS.findall(value)) for value in row)  # where it begins, not where it ends
            words = _csv_line(row)
        self.rejects.add(file.path, line, reason, words)


_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def _csv_line(row: list[str]) -> str:
    target = io.StringIO()
    csv.writer(target).writerow(row)
    return target.getvalue().removesuffix("\r\n")


@dataclass(frozen=True)
class _Shape:
    """Where in a row things are."""

    key: Callable[[Any], Any]
    time: int
    score: int | None
    width: int


class _Judge:
    """Whether a row is good, and what it is made of."""

    def __init__(self, options: Options, now: datetime, unknown_rooms: set[str]) -> None:
        self.parse = _parser(options.timezone)
        self._scores: dict[Any, bytes] = {}
        self._entities = options.entities
        self._rooms = options.rooms
        self._unknown_rooms = unknown_rooms
        self._now = now

    def start(self, *key: Any) -> tuple[bytes, str, str | None]:
        """A row of COPY up to the confidence, its zone, and its room if that is retired.

        Raises:
            _Reject: it is not good.
            _NoState: it says nothing.
        """
        if self._entities is None:
            room, zone, state, entity = key
        else:
            entity, state = key
            if not isinstance(entity, str) or entity not in self._entities:
                raise _Reject(f"no room for entity {entity!r}")
            if state is None or (isinstance(state, str) and state.lower() in STATELESS):
                raise _NoState
            room, zone = self._entities[entity]
        if problem := room_problem(room, self._rooms):
            if (
                isinstance(room, str)
                and name_problem(room) is None
                and len(self._unknown_rooms) < _REMEMBERED
            ):
                self._unknown_rooms.add(room)
            raise _Reject(problem)
        problem = text_problem("zone", zone, ZONE_LENGTH) or text_problem(
            "source_entity", entity, ENTITY_LENGTH
        )
        if problem:
            raise _Reject(problem)
        values = (room.encode(), zone.encode(), bytes([_state(state)]), entity.encode())
        columns = b"".join(_int32(len(value)) + value for value in values)
        return _int16(len(COPY_COLUMNS)) + columns, zone, room if self._rooms.retired_at[room] else None

    def accepts_until(self, room: str, end: datetime) -> bool:
        """Whether a retired room takes all readings before a time."""
        return self._rooms.retirement_problem(room, end - _MICROSECOND) is None

    def score(self, value: Any) -> bytes:
        """The confidence, and how long the timestamp is that follows.

        Raises:
            _Reject: it is not good.
        """
        packed = self._scores.get(value) if isinstance(value, str) else None
        if packed is not None:
            return packed
        score: float | None = 1.0
        if value is not None and value != "":
            try:
                score = None if isinstance(value, bool) else float(value)
            except (TypeError, ValueError, OverflowError):
                score = None
        if score is None:
            raise _Reject(f"confidence is not a number: {value!r}")
        if not 0 <= score <= 1:
            raise _Reject(f"confidence is not between 0 and 1: {value!r}")
        packed = _int32(8) + _float8(score) + _int32(8)
        if isinstance(value, str) and len(self._scores) < _REMEMBERED:
            self._scores[value] = packed
        return packed

    def moment(self, value: Any, retired: str | None) -> datetime:
        """The timestamp.

        Args:
            value: As it stands in the file.
            retired: The room if that is retired.

        Raises:
            _Reject: it is not good.
        """
        if value is None or value == "":
            raise _Reject("no timestamp")
        try:
            moment = self.parse(value)
            if moment.utcoffset() is None:
                raise _Reject(f"timestamp has no time zone: {value}")
            problem = absurd(moment, self._now) or (
                self._rooms.retirement_problem(retired, moment) if retired else None
            )
        except (TypeError, ValueError, OverflowError):
            raise _Reject(f"timestamp is not ISO 8601: {value!r}") from None
        if problem:
            raise _Reject(problem)
        return moment


def _state(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = STATES.get(value.lower() if isinstance(value, str) else str(value))
    if known is None:
        raise _Reject(f"state is neither true nor false: {value!r}")
    return known


def _parser(timezone: ZoneInfo | None) -> Callable[[Any], datetime]:
    if timezone is None:
        return datetime.fromisoformat

    def parse(value: Any) -> datetime:
        moment = datetime.fromisoformat(value)
        # As UTC: two moments of one zone would be compared by their clocks, and the hour that comes twice
        # in autumn would be one.
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone)).astimezone(UTC)

    return parse


class _File:
    """An open file: its text, and how far it has been read."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        stored: Any = stack.enter_context(path.open("rb", buffering=1 << 16))
        self.position = stored.tell
        source: Any = stored
        if stored.peek(2)[:2] == b"\x1f\x8b":
            source = stack.enter_context(gzip.GzipFile(fileobj=stored))
        self.head: bytes = source.peek(4096)
        self.text = stack.enter_context(
            # A row that is not UTF-8 shall be rejected, not stop the others.
            io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
        )


class _opened:  # noqa: N801  # a function in all but form
    """Opens a file of readings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()

    def __enter__(self) -> _File:
        try:
            file = _File(self._path, self._stack)
        except (OSError, EOFError, zlib.error) as error:
            self._stack.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise _unusable(self._path, reason, "Check the path and the file.") from error
        if b"\0" in file.head.partition(b"\n")[0]:
            self._stack.close()
            raise _unusable(self._path, "it is not UTF-8 text", "It must be CSV or NDJSON, plain or gzip.")
        return file

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _CsvRows:
    """Rows of CSV, and the lines that they are made of.

    Attributes:
        lines: Those that no row has been made of.
        line_num: How many have been read.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self.line_num = 0
        self.lines = self._counted(lines)
        self._again: list[str] = []
        self._reader = csv.reader(self._fed(), strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        return next(self._reader)

    def row(self, line: str) -> Any:
        """The row that begins with a line; further lines are read if it goes on in them.

        Returns:
            The row, or the error that there is instead of one.
        """
        self._again.append(line)
        try:
            return next(self._reader, [])
        except csv.Error as error:
            self._again.clear()
            return error

    def _counted(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self.line_num += 1
            yield line

    def _fed(self) -> Iterator[str]:
        while True:
            if self._again:
                yield self._again.pop()
            elif (line := next(self.lines, None)) is not None:
                yield line
            else:
                return


class _JsonRows:
    """One object a line, as the values of the wanted columns."""

    def __init__(self, lines: Iterator[str], columns: dict[str, str]) -> None:
        self.line_num = 0
        self.line = ""
        self._lines = lines
        self._columns = list(columns.values())
        self._score = columns.get("confidence")

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        while True:
            self.line = next(self._lines)
            self.line_num += 1
            if not self.line.isspace():
                break
        try:
            row = json.loads(self.line)
        except (ValueError, RecursionError) as error:
            raise _BadLineError(f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise _BadLineError("not a JSON object")
        if isinstance(row.get(self._score), bool):  # which would be found among the numbers, as 0 or 1
            raise _BadLineError(f"confidence is not a number: {row[self._score]}")
        return [row.get(column) for column in self._columns]


def _rows(file: _File, options: Options) -> tuple[_Rows, _Shape]:
    """The rows of a file, and where in them things are.

    Raises:
        DatabaseError: the columns are not there.
    """
    ours = OURS if options.entities is None else HOME_ASSISTANT
    unknown = sorted(set(options.columns) - set(ours))
    if unknown:
        raise _unusable(
            file.path, f"no column of ours is called {', '.join(unknown)}", f"Ours: {', '.join(ours)}."
        )
    theirs = {column: options.columns.get(column, column) for column in ours}
    first = file.head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" and options.format is not Format.CSV:
        raise _unusable(file.path, "it is one JSON array", "Write an object a line: jq -c '.[]'.")
    form = options.format or (Format.NDJSON if first == b"{" else Format.CSV)
    if form is Format.NDJSON:
        return _JsonRows(file.text, theirs), _shape(list(theirs), dict.fromkeys(theirs))
    rows = _CsvRows(file.text)
    try:
        header = [name.strip() for name in next(rows, [])]
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        raise _unusable(file.path, f"its header cannot be read ({error})", "Check the first line.") from error
    if options.entities is None and {"entity_id", "state", "last_changed"} <= set(header):
        raise _unusable(
            file.path,
            "it is a history of Home Assistant, which knows no rooms",
            "Give them with --entities FILE, a CSV of entity_id,room,zone.",
        )
    wanted = {
        column: name
        for column, name in theirs.items()
        if column != "confidence" or column in options.columns or name in header
    }
    missing = [name for name in wanted.values() if name not in header]
    if missing:
        raise _unusable(
            file.path,
            f"it has no column {', '.join(missing)}, but {', '.join(header) or 'nothing'}",
            "Tell its names with --column ours=theirs.",
        )
    twice = [name for name in wanted.values() if header.count(name) > 1]
    if twice:
        raise _unusable(file.path, f"it has more than one column {', '.join(twice)}", "Rename the others.")
    return rows, _shape(header, dict(wanted))


def _shape(header: list[str], names: dict[str, str | None]) -> _Shape:
    where = {column: header.index(name or column) for column, name in names.items()}
    if "entity_id" in where:
        return _Shape(
            itemgetter(where["entity_id"], where["state"]), where["last_changed"], None, len(header)
        )
    key = itemgetter(*(where[column] for column in ("room", "zone", "state", "source_entity")))
    return _Shape(key, where["timestamp"], where.get("confidence"), len(header))


def read_entities(path: Path, rooms: Rooms = DEFAULT_ROOMS) -> dict[str, tuple[str, str]]:
    """Which room and zone each entity of Home Assistant stands for.

    Args:
        path: A CSV file with the columns entity_id, room, zone.
        rooms: The rooms of the database.

    Raises:
        DatabaseError: it cannot be used.
    """
    hint = "It must be a CSV of entity_id,room,zone."
    entities: dict[str, tuple[str, str]] = {}
    try:
        with _opened(path) as file:
            rows = csv.DictReader(file.text, strict=True)
            if not {"entity_id", "room", "zone"} <= set(rows.fieldnames or ()):
                raise _unusable(path, "its header is another", hint)
            for row in rows:
                entity, room, zone = row["entity_id"], row["room"], row["zone"]
                problem = text_problem("entity_id", entity, ENTITY_LENGTH)
                if problem is None and (problem := room_problem(room, rooms)) and name_problem(room) is None:
                    raise _unusable(path, f"line {rows.line_num}: {problem}", add_rooms_hint([room]))
                problem = (
                    problem
                    or text_problem("zone", zone, ZONE_LENGTH)
                    or (f"{entity} is there twice" if entity in entities else None)
                )
                if problem:
                    raise _unusable(path, f"line {rows.line_num}: {problem}", hint)
                entities[entity] = (room, zone)
    except csv.Error as error:
        raise _unusable(path, str(error), hint) from error
    return entities


def add_rooms_hint(rooms: Iterable[str]) -> str:
    """How to add rooms to the database.

    Args:
        rooms: Their names.
    """
    return f"Add rooms with 'occupancy-db rooms add {shlex.join(rooms)}'."


def _unusable(path: Path, what: str, hint: str) -> DatabaseError:
    return DatabaseError(ExitCode.FAILED, f"cannot import {path}: {what}", hint)
