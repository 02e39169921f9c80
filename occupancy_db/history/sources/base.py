"""What all sources of readings have in common."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.judge import DEFAULT_ROOMS
from occupancy_db.history.rejects import Origin
from occupancy_db.history.times import TimeFormat
from occupancy_db.rooms import Rooms
from occupancy_db.sensors import Sensors

OURS: Final = ("timestamp", "room", "zone", "state", "source_entity", "confidence")
HOME_ASSISTANT: Final = {"timestamp": "last_changed", "source_entity": "entity_id"}
"""What Home Assistant's exports call our columns."""
ALIASES: Final = {
    "timestamp": ("last_changed", "time", "_time"),
    "state": ("_value",),
    "source_entity": ("entity_id", "_measurement"),
}
"""What our columns are called by Home Assistant, LTSS and InfluxDB; the first that is there counts."""


class Format(StrEnum):
    """What a source is."""

    CSV = "csv"
    NDJSON = "ndjson"
    INFLUXDB = "influxdb"
    PARQUET = "parquet"
    JSON = "json"
    RECORDER = "recorder"


@dataclass
class Options:
    """What the sources do not say themselves.

    Attributes:
        format: Of all sources; None to look at each.
        columns: Their names for our columns, where they differ.
        constants: The values of columns that they do not have.
        timezone: Of timestamps without an offset; None to refuse those.
        times: How timestamps are written; None to look at the first of each source.
        delimiter: Of CSV; None to look at each header.
        decimal_comma: Whether a confidence may have a comma.
        password: Of recorders on servers.
        rooms: The rooms of the database.
        sensors: Where entities are that are named alone.
    """

    format: Format | None = None
    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    timezone: ZoneInfo | None = None
    times: TimeFormat | None = None
    delimiter: str | None = None
    decimal_comma: bool = False
    password: str | None = field(default=None, repr=False)
    rooms: Rooms = DEFAULT_ROOMS
    sensors: Sensors = field(default_factory=lambda: Sensors({}))


@dataclass(frozen=True)
class Fault:
    """What is no row, and why."""

    reason: str


Row = Sequence[Any]
Key = Callable[[Row], tuple[Any, Any, Any, Any]]
"""Room, zone, state and entity of a whole row."""


class Source:
    """Rows of one file or database.

    Attributes:
        name: For messages.
        said: What it was recognised as.
        key: See there.
        time: Where in a whole row the timestamp is.
        score: Where the confidence is.
        rest: All that a row says beside its timestamp; rows of which this is equal differ in nothing else.
        when: Where in a row the timestamp is, before ``whole``.
        times: How timestamps are written.
        size: In bytes, or rows of a database; for the progress.
        unplaced: By entity, the rows of entities without a place that a database has counted by itself.
        unread: How many those are in all.
    """

    name: str
    said: str
    key: Key
    time: int
    score: int
    rest: Callable[[Row], Any]
    when: int
    times: TimeFormat | None
    size: int

    def __init__(self, name: str) -> None:
        self.name = name
        self.unplaced: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""

    def position(self) -> int:
        """How much of ``size`` has been read."""
        return 0

    def rows(self) -> Iterator[Row | Fault]:
        """All rows, and what is none.

        Raises:
            OSError: and EOFError, zlib.error, DatabaseError: it cannot be read on.
        """
        raise NotImplementedError

    def whole(self, row: Row) -> Row | Fault | None:
        """The columns of the last row; None if it is empty.

        A source whose rows are costly to split gives them otherwise, as one of a home is like others.
        """
        return row

    def entities(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each entity with its attributes, as far as the source tells them; instead of ``rows``."""
        found = set()
        for row in self.rows():
            whole = row if isinstance(row, Fault) else self.whole(row)
            if whole is not None and not isinstance(whole, Fault):
                found.add(self.key(whole)[3])
        return ((entity, {}) for entity in found if isinstance(entity, str))

    def origin(self, row: Row | Fault) -> Origin:
        """Where a row was, which has been the last one until now."""
        raise NotImplementedError


CANONICAL: Final = {name: place for place, name in enumerate(OURS)}
"""The columns of rows that have all of ours in order."""


def arrange(source: Source, places: dict[str, int]) -> None:
    """Say where in the rows of a source things are.

    Args:
        source: Gets ``key``, ``time``, ``score``, ``rest`` and ``when``.
        places: Where each of our columns is.
    """
    source.rest = itemgetter(*(places[column] for column in OURS if column != "timestamp"))
    source.key = itemgetter(*(places[column] for column in ("room", "zone", "state", "source_entity")))
    source.time = source.when = places["timestamp"]
    source.score = places["confidence"]


def choose(names: Sequence[str], options: Options) -> dict[str, str]:
    """Which columns of a source are ours, by our names.

    Args:
        names: Its columns.
        options: Tells other names, and constants.
    """
    aliases = {theirs: ours for ours, theirs in HOME_ASSISTANT.items()}
    told = {aliases.get(ours, ours): theirs for ours, theirs in options.columns.items()}
    chosen = {}
    for column in OURS:
        if column in options.constants:
            continue
        called = (column, *ALIASES.get(column, ()))
        name = told.get(column) or next((name for name in called if name in names), column)
        if name in names or column in told or column not in ("room", "zone", "confidence"):
            chosen[column] = name
    place = {"room", "zone"}
    if len(place & (chosen.keys() | options.constants.keys())) == 1:
        chosen.update({column: column for column in place - chosen.keys() - options.constants.keys()})
    return chosen


def check_columns(path: Path | str, options: Options) -> None:
    """Refuse names of columns that are not ours.

    Raises:
        DatabaseError: there is one.
    """
    ours = {*OURS, *HOME_ASSISTANT.values()}
    unknown = sorted((options.columns.keys() | options.constants.keys()) - ours)
    if unknown:
        raise unusable(path, f"no column of ours is called {', '.join(unknown)}", f"Ours: {', '.join(OURS)}.")


def unusable(path: Path | str, what: str, hint: str) -> DatabaseError:
    """A source that cannot be imported."""
    return DatabaseError(ExitCode.FAILED, f"cannot import {path}: {what}", hint)
