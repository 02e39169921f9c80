"""The timestamps of files as microseconds since PostgreSQL's epoch, and the hour that comes twice."""

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From which PostgreSQL counts."""

_UNIX: Final = 946_684_800  # seconds from the epoch of Unix to PostgreSQL's
_DAY: Final = 86_400_000_000

Parse = Callable[[Any], int]
"""Takes a value of a file; raises ValueError, TypeError or OverflowError."""

_DAY_FIRST: Final = re.compile(r"(\d{1,2})[./-](\d{1,2})[./-](\d{4})(.*)", re.DOTALL)


class TimeFormat(StrEnum):
    """How a file writes its timestamps."""

    ISO = "iso"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    DAY_FIRST = "day-first"


class AmbiguousTimeError(ValueError):
    """A local time that the clocks showed twice.

    Attributes:
        clock: What they showed.
    """

    def __init__(self, clock: datetime) -> None:
        super().__init__(f"the clocks showed {clock:%Y-%m-%d %H:%M:%S} twice")
        self.clock = clock


class SkippedTimeError(ValueError):
    """A local time that the clocks never showed."""


def micros(moment: datetime) -> int:
    """A timestamp in microseconds since PostgreSQL's epoch.

    Args:
        moment: With a time zone.

    Raises:
        TypeError: it has none.
    """
    since = moment - EPOCH
    return since.days * _DAY + since.seconds * 1_000_000 + since.microseconds


def moment_of(count: int) -> datetime:
    """The timestamp of so many microseconds since PostgreSQL's epoch, in UTC.

    Raises:
        OverflowError: a calendar does not go that far.
    """
    return EPOCH + timedelta(microseconds=count)


def recognise(value: Any) -> TimeFormat:
    """How a timestamp is written; days first are never assumed."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return TimeFormat.ISO
    # Nine digits are a day of 1973 in seconds; a date without hyphens has eight.
    if not 1e8 <= number < 1e17:
        return TimeFormat.ISO
    if number < 1e11:
        return TimeFormat.SECONDS
    return TimeFormat.MILLISECONDS if number < 1e14 else TimeFormat.MICROSECONDS


_fromisoformat = datetime.fromisoformat


def _iso(value: Any) -> int:
    since = _fromisoformat(value) - EPOCH
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


def _seconds(value: Any) -> int:
    # The whole seconds apart: Home Assistant rounds the same number to the same microsecond.
    whole, part = divmod(float(value), 1)
    return (int(whole) - _UNIX) * 1_000_000 + round(part * 1e6)


def _milliseconds(value: Any) -> int:
    return round((float(value) - _UNIX * 1000) * 1e3)


def _microseconds(value: Any) -> int:
    return int(value) - _UNIX * 1_000_000


def _day_first(value: str) -> str:
    """A timestamp with the day first as ISO 8601."""
    found = _DAY_FIRST.fullmatch(value.strip())
    if not found:
        raise ValueError(value)
    day, month, year, rest = found.groups()
    return f"{year}-{int(month):02}-{int(day):02}T{rest.lstrip(' ,T') or '00:00'}"


class Clock:
    """Reads timestamps, and notices how they are ordered if they are local ones.

    Attributes:
        form: How they are written; None to look at each.
    """

    def __init__(self, form: TimeFormat | None, timezone: ZoneInfo | None) -> None:
        self.form = form
        self._timezone = timezone
        self._last: datetime | None = None
        self._last_twice = False
        self._rises = self._falls = 0
        self._rises_elsewhere = self._falls_elsewhere = 0  # than within an hour that the clocks show twice
        self.parse: Parse = self._parser()

    def _parser(self) -> Parse:
        if self.form is TimeFormat.SECONDS:
            return _seconds
        if self.form is TimeFormat.MILLISECONDS:
            return _milliseconds
        if self.form is TimeFormat.MICROSECONDS:
            return _microseconds
        if self.form is TimeFormat.DAY_FIRST:
            return lambda value: self._moment(datetime.fromisoformat(_day_first(value)))
        iso: Parse = _iso
        if self._timezone:

            def iso(value: Any) -> int:
                return self._moment(datetime.fromisoformat(value))

        if self.form is TimeFormat.ISO:
            return iso
        number = {
            TimeFormat.SECONDS: _seconds,
            TimeFormat.MILLISECONDS: _milliseconds,
            TimeFormat.MICROSECONDS: _microseconds,
        }
        return lambda value: number.get(recognise(value), iso)(value)

    def _moment(self, moment: datetime) -> int:
        if moment.tzinfo or self._timezone is None:
            return micros(moment)
        local = moment.replace(tzinfo=self._timezone)
        before, after = local.utcoffset(), local.replace(fold=1).utcoffset()
        assert before is not None
        assert after is not None
        twice = before > after
        if self._last is not None and moment != self._last:
            elsewhere = not (twice and self._last_twice)
            if moment > self._last:
                self._rises += 1
                self._rises_elsewhere += elsewhere
            else:
                self._falls += 1
                self._falls_elsewhere += elsewhere
        self._last, self._last_twice = moment, twice
        if twice:
            raise AmbiguousTimeError(moment)
        if before < after:
            raise SkippedTimeError(moment)
        return micros(moment.replace(tzinfo=UTC) - before)

    def told_apart(self, rows: list[tuple[datetime, Hashable]]) -> list[int | None]:
        """Which moments the clocks meant that showed a time twice: their order in the file tells.

        The first pass ends where time falls. That is looked for in the order of the whole file if that is
        sorted by time, else among the rows of each entity. Where nothing falls, either pass is possible.

        Args:
            rows: What the clocks showed, and the entity, in the order of the file.

        Returns:
            For each row its moment, or None if that cannot be told.
        """
        result: list[int | None] = [None] * len(rows)
        backwards = (self._falls_elsewhere, self._falls) > (self._rises_elsewhere, self._rises)
        disorder = self._rises_elsewhere if backwards else self._falls_elsewhere
        for day in {clock.date() for clock, _ in rows}:
            numbers = [number for number, (clock, _) in enumerate(rows) if clock.date() == day]
            if backwards:
                numbers.reverse()
            folds = self._folds(numbers, rows, whole=True) if not disorder else {}
            if not folds:
                for entity in {rows[number][1] for number in numbers}:
                    own = [number for number in numbers if rows[number][1] == entity]
                    folds.update(self._folds(own, rows, whole=False))
            for number, fold in folds.items():
                local = rows[number][0].replace(tzinfo=self._timezone, fold=fold)
                result[number] = micros(local.astimezone(UTC))
        return result

    @staticmethod
    def _folds(numbers: list[int], rows: list[tuple[datetime, Hashable]], *, whole: bool) -> dict[int, int]:
        falls = [place for place, (a, b) in enumerate(pairwise(numbers), 1) if rows[b][0] < rows[a][0]]
        if len(falls) != 1:
            return {}
        first, second = numbers[: falls[0]], numbers[falls[0] :]
        if whole and not _entities(first, rows) & _entities(second, rows):
            return {}  # one entity after the other, rather than one hour
        return {**dict.fromkeys(first, 0), **dict.fromkeys(second, 1)}


def _entities(numbers: Iterable[int], rows: list[tuple[datetime, Hashable]]) -> set[Hashable]:
    return {rows[number][1] for number in numbers}
