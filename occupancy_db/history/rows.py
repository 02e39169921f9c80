"""Rows of all sources as rows of binary COPY, by month and zone.

Binary, so that no character of a file can be taken for COPY's own, and the server need not parse times again.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from struct import Struct
from typing import Any, Final

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.judge import REMEMBERED, Judge, NoPlace, NoState, Reject
from occupancy_db.history.rejects import Origin, Rejects
from occupancy_db.history.sources.base import Fault, Options, Row, Source
from occupancy_db.history.sources.recognise import open_source
from occupancy_db.history.times import AmbiguousTimeError, Clock, micros, moment_of
from occupancy_db.months import AHEAD, EARLIEST, following, month_of
from occupancy_db.storage import Gap

STEP: Final = 2000
"""Rows that are parsed at once: a few milliseconds, in which nothing else happens."""

ENOUGH: Final = 100_000
"""Rows of a month that are worth a COPY while rows of other months come in: some 7 MB."""

AT_MOST: Final = 1_500_000
"""Rows that wait until their month is complete, so that it is stored by zone: some 100 MB."""

_int64 = Struct(">q").pack


@dataclass
class Seen:
    """The good rows of an entity in a place.

    Attributes:
        rows: How many.
        first: The timestamp of the earliest, in microseconds.
        last: The same of the latest.
    """

    rows: int
    first: int
    last: int


class _Month:
    """The rows of a month that have not been taken, by zone.

    Attributes:
        month: Its first day.
        since: From when on timestamps are believable and belong to it, in microseconds.
        until: Until when.
        zones: For each zone the parts of its rows, in the order of the files.
        waiting: How many rows there are.
    """

    def __init__(self, month: date, now: datetime) -> None:
        self.month = month
        since, until = (
            datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (month, following(month))
        )
        self.since, self.until = micros(max(since, EARLIEST)), micros(min(until, now + AHEAD))
        self.zones: dict[str, list[bytes]] = {}
        self.waiting = 0


class Reader:
    """Reads sources one after the other, and keeps what it has parsed by month and zone until it is taken.

    Attributes:
        read: Rows seen, good or bad.
        stateless: Rows without a state, by what they say instead.
        unplaced: Rows that name an entity alone which has no place at that time, by entity.
        months: Good rows of each month.
        seen: If wanted, the good rows of each entity, room and zone.
        said: What each source was recognised as.
        rejects: The rows that were not taken.
        waiting: Good rows that have not been taken.
        gaps: Gaps that have not been taken.
    """

    def __init__(
        self,
        sources: Sequence[Path | str],
        options: Options,
        rejects: Rejects,
        now: datetime,
        *,
        by_entity: bool = False,
    ) -> None:
        """Look at the head of each source.

        Args:
            sources: At least one.
            options: What they do not say themselves.
            rejects: Takes the rows that are not.
            now: The present, with a time zone: nothing is from after it.
            by_entity: Whether ``seen`` is wanted.

        Raises:
            DatabaseError: a source is missing or is not what it should be.
        """
        self.read = 0
        self.stateless: Counter[str] = Counter()
        self.unplaced: Counter[str] = Counter()
        self.months: Counter[date] = Counter()
        self.seen: dict[tuple[str, str, str], Seen] | None = {} if by_entity else None
        self.said: dict[str, str] = {}
        self.waiting = 0
        self.gaps: list[Gap] = []
        self.rejects = rejects
        self._options = options
        self._now = now
        self._judge = Judge(options.rooms, options.sensors, now, decimal_comma=options.decimal_comma)
        self._taken = False
        # What rows are whose rest is the same: from when until when, what they begin with, their zone, and
        # what is noted of them.
        self._known: dict[Any, tuple[int, int, bytes, str, Seen | None]] = {}
        self._months: dict[date, _Month] = {}
        self._here = self._month(month_of(EARLIEST))
        self._position: Callable[[], int] = int
        self._done = self.size = 0
        for path in sources:
            with open_source(path, options) as source:
                self.said[source.name] = source.said
                self.size += source.size
        self._steps = self._parse(sources)

    @property
    def unknown_rooms(self) -> set[str]:
        """The rooms of rejected rows that the database does not have."""
        return self._judge.unknown_rooms

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
        # The lists stay what they are: rows that are parsed meanwhile go into them, for the next time.
        taken = [rows.zones[zone][:] for zone in sorted(rows.zones, key=str.encode)]
        for parts in rows.zones.values():
            parts.clear()
        for parts in taken:
            for first in range(0, len(parts), 2 * STEP):
                yield b"".join(parts[first : first + 2 * STEP])

    def take_gaps(self) -> list[Gap]:
        """The gaps that wait; they wait no longer."""
        gaps, self.gaps = self.gaps, []
        return gaps

    def _month(self, month: date) -> _Month:
        if month not in self._months:
            self._months[month] = _Month(month, self._now)
        return self._months[month]

    def _parse(self, sources: Sequence[Path | str]) -> Iterator[bool]:
        for path in sources:
            with open_source(path, self._options) as source:
                self._position = source.position
                try:
                    yield from self._read(source)
                except (OSError, EOFError, zlib.error) as error:
                    raise DatabaseError(
                        ExitCode.FAILED, f"cannot read on in {path}: {error}", "Nothing was imported."
                    ) from error
                self._position = int
            self._done += source.size
            yield True

    def _read(self, source: Source) -> Iterator[bool]:
        """The rows of one source.

        100 million times: what a row like others goes through is written out here, with everything that it
        needs in local variables.
        """
        clock = Clock(source.times, self._options.timezone)
        parse, rest, when, known = clock.parse, source.rest, source.when, self._known
        first, last, zones = self._here.since, self._here.until, self._here.zones
        twice: list[tuple[Any, Origin, datetime]] = []
        added = 0
        row: Any
        for number, row in enumerate(source.rows(), 1):
            if not number % STEP:
                self._count(added)
                added = 0
                yield True
            try:
                since, until, start, zone, seen = known[rest(row)]
                moment = parse(row[when])
                if since <= moment < until and first <= moment < last:
                    parts = zones[zone]
                    parts += (start, _int64(moment))
                    added += 1
                    if seen:
                        _note(seen, moment)
                    continue
            except (KeyError, TypeError, ValueError, OverflowError):
                pass
            self._count(added)
            added = 0
            fault = isinstance(row, Fault)
            if (whole := row if fault else source.whole(row)) is None:
                continue
            try:
                self._place(source, clock, whole, None if fault else rest(row))
            except AmbiguousTimeError as error:
                twice.append((whole, source.origin(row), error.clock))
            first, last, zones = self._here.since, self._here.until, self._here.zones
        self._count(added)
        self._settle(source, clock, twice)
        self.unplaced.update(source.unplaced)
        self.read += source.unplaced.total()

    def _settle(self, source: Source, clock: Clock, rows: list[tuple[Any, Origin, datetime]]) -> None:
        """Place the rows of hours that came twice: now that the file has been read, its order is known."""
        moments = clock.told_apart([(shown, source.key(row)[3]) for row, _, shown in rows])
        for (row, origin, shown), moment in zip(rows, moments, strict=True):
            if moment is None:
                self.read += 1
                words = f"the clocks showed {shown:%Y-%m-%d %H:%M:%S} twice"
                self.rejects.add(origin, f"{words}, and the order does not tell them apart")
            else:
                self._place(source, clock, row, settled=(moment, origin))

    def _place(
        self,
        source: Source,
        clock: Clock,
        row: Row | Fault,
        rest: Any = None,
        settled: tuple[int, Origin] | None = None,
    ) -> None:
        """Put a row where it belongs, or say why not.

        Args:
            source: Where it is from.
            clock: Reads its timestamp.
            row: The whole row.
            rest: What it is remembered by, for the rows that are like it.
            settled: Its timestamp, and where exactly it was, if the timestamp is known.

        Raises:
            AmbiguousTimeError: the timestamp is not known, and can be one of two.
        """
        try:
            if isinstance(row, Fault):
                raise Reject(row.reason)
            score = self._judge.score(row[source.score])
            moment = settled[0] if settled else self._judge.moment(row[source.time], clock)
            parts, start = self._parts(rest, source.key(row), score, moment)
        except NoState as state:
            self.read += 1
            self.stateless[str(state)] += 1
            if state.gap:
                self.gaps.append((moment_of(moment), *state.gap))
        except NoPlace as entity:
            self.read += 1
            self.unplaced[str(entity)] += 1
        except Reject as problem:
            self.read += 1
            self.rejects.add(settled[1] if settled else source.origin(row), str(problem))
        else:
            parts += (start, _int64(moment))
            self._count(1)

    def _parts(
        self, rest: Any, key: tuple[Any, Any, Any, Any], score: bytes, moment: int
    ) -> tuple[list[bytes], bytes]:
        """Where a row goes, and what it begins with."""
        columns, since, until, room, zone = self._judge.start(key, moment)
        here = self._here
        if not here.since <= moment < here.until:
            here = self._here = self._month(month_of(moment_of(moment)))
        parts, start = here.zones.setdefault(zone, []), columns + score
        seen = None
        if self.seen is not None:
            seen = self.seen.setdefault((key[3], room, zone), Seen(0, moment, moment))
            _note(seen, moment)
        if rest is not None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[rest] = since, until, start, zone, seen
        return parts, start

    def _count(self, added: int) -> None:
        if added:
            self.read += added
            self.waiting += added
            self._here.waiting += added
            self.months[self._here.month] += added


def _note(seen: Seen, moment: int) -> None:
    seen.rows += 1
    seen.first = min(seen.first, moment)
    seen.last = max(seen.last, moment)
