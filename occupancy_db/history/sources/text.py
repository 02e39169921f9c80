"""CSV, plain or gzip: ours, Home Assistant's history, and LTSS."""

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import (
    OURS,
    Fault,
    Options,
    Row,
    Source,
    arrange,
    choose,
    unusable,
)
from occupancy_db.history.times import TimeFormat, recognise

_MOST_LINES: Final = 100
"""Lines that a row may have: a quotation mark that is never closed costs no more."""

_ENTITY: Final = OURS.index("source_entity")
_DELIMITERS: Final = ",;\t|"
_BROKEN = (OSError, EOFError, zlib.error)


class File:
    """An open file: its text, and how far it has been read.

    Attributes:
        path: Of the file.
        head: Its first bytes, without compression.
        text: Its text; what is not UTF-8 comes out as it came in.
        size: In bytes.

    Raises:
        DatabaseError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        try:
            stored: Any = self._stack.enter_context(path.open("rb", buffering=1 << 16))
            self.position = stored.tell
            self.size = path.stat().st_size
            source: Any = stored
            if stored.peek(2)[:2] == b"\x1f\x8b":
                source = self._stack.enter_context(gzip.GzipFile(fileobj=stored))
            self.head: bytes = source.peek(4096)
        except _BROKEN as error:
            self.close()
            raise unusable(
                path, getattr(error, "strerror", None) or str(error), "Check the path and the file."
            ) from error
        self.text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self.binary = source

    def close(self) -> None:
        """Close it."""
        self._stack.close()


def check_is_text(file: File, what: str) -> None:
    """Refuse what no text begins with.

    Raises:
        DatabaseError: the file is not UTF-8 text.
    """
    if b"\0" in file.head.partition(b"\n")[0]:
        raise unusable(file.path, "it is not UTF-8 text", f"It must be {what}.")


class CsvLines(Source):
    """A file of CSV, of which a row may be several lines.

    Attributes:
        header: The line that names the columns.
        delimiter: What separates them.
        width: How many there are.
    """

    header = ""
    delimiter = ","
    width = 0
    time = 0

    def __init__(self, file: File) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.position = file.position  # type: ignore[method-assign]
        self.size = file.size
        self._text: Iterator[str] = file.text
        self._at = 1, ""  # the number of the line, and what is there of the row

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _split(self, line: str) -> list[str]:
        """The fields of a line without line ends in fields."""
        if '"' in line:
            return next(csv.reader([line], delimiter=self.delimiter), [])
        return line.rstrip("\r\n").split(self.delimiter)

    def _rows(self, line: str, number: int) -> Iterator[Row | Fault]:
        """The row that begins with a line, and those that a quotation mark in it took for its own."""
        again, time = deque([line]), self.time
        while again:
            fields, taken = self._take(again)
            self._at = number, "".join(taken)
            if isinstance(fields, Fault):
                yield fields
            else:
                rest = (*fields[:time], *fields[time + 1 :])
                yield "".join(fields[time : time + 1]), rest, *self._at, fields
            number += len(taken)
        self._at = number - 1, ""

    def _take(self, again: deque[str]) -> tuple[list[str] | Fault, list[str]]:
        """The fields of the next row, and the lines that it is made of.

        A fault costs its own line: where a quotation mark has swallowed rows, these are read again.

        Args:
            again: The lines that come before those of the file.
        """
        taken = [again.popleft()]
        if '"' not in taken[0]:
            return self._split(taken[0]), taken

        def feed() -> Iterator[str]:
            yield taken[0]
            while len(taken) < _MOST_LINES and (
                following := again.popleft() if again else next(self._text, "")
            ):
                taken.append(following)
                yield following

        try:
            row = next(csv.reader(feed(), delimiter=self.delimiter, strict=True))
            if len(taken) == 1 or (len(row) == self.width and not self._swallows(taken[1:-1])):
                return row, taken
            fault = "a quotation mark is closed in another row"
        except csv.Error as error:
            fault = str(error)
        again.extendleft(reversed(taken[1:]))
        return Fault(fault), taken[:1]

    def _swallows(self, lines: list[str]) -> bool:
        """Whether lines within a row are rows themselves."""
        return any(
            len(next(csv.reader([line], delimiter=self.delimiter), [])) == self.width for line in lines
        )

    def origin(self, row: Row | Fault) -> Origin:  # noqa: ARG002
        """See ``Source``."""
        number, line = self._at
        return Origin(self.name, number, self.header, line.rstrip("\r\n"))


class CsvSource(CsvLines):
    """Rows of CSV with a header.

    Raises:
        DatabaseError: the columns are not there.
    """

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(file)
        self.header = self._header()
        self.delimiter = options.delimiter or _delimiter(self.header)
        names = columns_of(file.path, self.header, self.delimiter)
        self.width = len(names)
        wanted = choose(names, options)
        self.said = _said(names, wanted)
        if self.delimiter != ",":
            self.said += f" with {'tabs' if self.delimiter == chr(9) else self.delimiter}"
        places = find_columns(file.path, names, wanted)
        self.extras: list[Any] = []
        for column, value in {"room": None, "zone": None, "confidence": None, **options.constants}.items():
            if column not in places:
                places[column] = self.width + len(self.extras)
                self.extras.append(value)
        arrange(self, places)
        self.when, self.rest = 0, itemgetter(1)  # of the tuples that ``rows`` gives
        self.times = options.times or self._times()

    def _header(self) -> str:
        try:
            return next(self._text, "").rstrip("\r\n")
        except _BROKEN as error:
            raise unusable(
                self.name, f"its header cannot be read ({error})", "Check the first line."
            ) from error

    def _times(self) -> TimeFormat | None:
        """How timestamps are written, if the head of the file has a row."""
        lines = self._file.head.split(b"\n")[1:2]
        row = self._split(lines[0].decode(errors="replace")) if lines else []
        return recognise(row[self.time]) if len(row) > self.time else None

    def rows(self) -> Iterator[Row | Fault]:
        """Rows as timestamp, rest, number of the line, its text, and fields if it had to be split.

        Splitting costs more than all else, and is needed once for each rest that a home repeats: what of the
        line is before or after the timestamp.
        """
        delimiter, first, last = self.delimiter, self.time == 0, self.time == self.width - 1
        number = 1
        for line in self._text:
            number += 1
            if '"' in line or not (first or last):
                yield from self._rows(line, number)
                number = self._at[0]
            elif first:
                when, _, rest = line.partition(delimiter)
                yield when, rest, number, line
            else:
                rest, _, when = line.rpartition(delimiter)
                yield when.rstrip("\r\n"), rest, number, line

    def whole(self, row: Row) -> Row | Fault | None:
        """See ``Source``."""
        _, _, number, line, *split = row
        self._at = number, line
        fields = split[0] if split else self._split(line)
        if len(fields) == self.width:
            return [*fields, *self.extras]
        return None if line.isspace() else Fault(f"{len(fields)} fields instead of {self.width}")


class Columns:
    """Where rows of CSV have our columns, for files whose rows differ.

    Attributes:
        width: How many columns there are.
        names: What they are called.

    Raises:
        DatabaseError: the columns are not there.
    """

    def __init__(self, path: Path | str, header: str, delimiter: str, options: Options) -> None:
        self.names = columns_of(path, header, delimiter)
        self.width = len(self.names)
        wanted = choose(self.names, options)
        self._places = find_columns(path, self.names, wanted)
        self._constants = options.constants
        # InfluxDB has the two parts of an entity's name in two columns.
        parted = wanted.get("source_entity") == "entity_id" and "domain" in self.names
        self._domain = self.names.index("domain") if parted else None

    def row(self, fields: list[str]) -> Row:
        """Our columns of a row, in order."""
        row = [
            fields[self._places[column]] if column in self._places else self._constants.get(column)
            for column in OURS
        ]
        if self._domain is not None and "." not in str(row[_ENTITY]):
            row[_ENTITY] = f"{fields[self._domain]}.{row[_ENTITY]}"
        return row


def _said(names: list[str], wanted: dict[str, str]) -> str:
    """What the columns of a file tell that it is."""
    if wanted.get("source_entity") == "entity_id":
        if wanted.get("timestamp") == "last_changed":
            return "Home Assistant's history, CSV"
        if wanted.get("timestamp") == "time" and "attributes" in names:
            return "LTSS, CSV"
    return "CSV"


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count) if header else ","


def columns_of(path: Path | str, header: str, delimiter: str) -> list[str]:
    """The names of a header.

    Raises:
        DatabaseError: it is no CSV.
    """
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise unusable(path, f"its header cannot be read ({error})", "Check the first line.") from error


def find_columns(path: Path | str, names: list[str], wanted: dict[str, str]) -> dict[str, int]:
    """Where the wanted columns are.

    Raises:
        DatabaseError: one is missing, or there twice.
    """
    missing = [name for name in wanted.values() if name not in names]
    if missing:
        raise unusable(
            path,
            f"it has no column {', '.join(missing)}, but {', '.join(names) or 'nothing'}",
            "Tell its names with --column ours=theirs, or a value with --set ours=value.",
        )
    twice = [name for name in wanted.values() if names.count(name) > 1]
    if twice:
        raise unusable(path, f"it has more than one column {', '.join(twice)}", "Rename the others.")
    return {column: names.index(name) for column, name in wanted.items()}
