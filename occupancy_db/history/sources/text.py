"""CSV, plain or gzip: ours, Home Assistant's history, and the rejects of an import."""

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import Fault, Options, Row, Source, arrange, choose, unusable
from occupancy_db.history.times import recognise

_MOST_LINES: Final = 100
"""Lines that a row may have: a quotation mark that is never closed costs no more."""

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


class Lines:
    """The lines of a file, some of which can be given back.

    Attributes:
        number: How many have been taken.
    """

    def __init__(self, text: Iterator[str]) -> None:
        self.number = 0
        self._text = text
        self._again: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        while True:
            while self._again:
                self.number += 1
                yield self._again.popleft()
            for line in self._text:
                self.number += 1
                yield line
                if self._again:
                    break
            else:
                return

    def take(self) -> str | None:
        """The next line, None at the end."""
        line = self._again.popleft() if self._again else next(self._text, None)
        self.number += line is not None
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """Return the last lines that were taken."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


class CsvSource(Source):
    """Rows of CSV with a header.

    Raises:
        DatabaseError: the columns are not there.
    """

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.position = file.position  # type: ignore[method-assign]
        self.size = file.size
        self._lines = Lines(file.text)
        self._taken: list[str] = []
        self.header = self._header()
        self.delimiter = options.delimiter or _delimiter(self.header)
        names = columns_of(file.path, self.header, self.delimiter)
        self.width = len(names)
        wanted = choose(names, options)
        self.said = "CSV"
        if wanted.get("source_entity") == "entity_id" and wanted.get("timestamp") == "last_changed":
            self.said = "Home Assistant's history, CSV"
        if self.delimiter != ",":
            self.said += f" with {'tabs' if self.delimiter == chr(9) else self.delimiter}"
        places = find_columns(file.path, names, wanted)
        self.extras: list[Any] = []
        for column, value in {"room": None, "zone": None, "confidence": None, **options.constants}.items():
            if column not in places:
                places[column] = self.width + len(self.extras)
                self.extras.append(value)
        arrange(self, places)
        self.times = options.times or self._times()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _header(self) -> str:
        try:
            return (self._lines.take() or "").rstrip("\r\n")
        except _BROKEN as error:
            raise unusable(
                self.name, f"its header cannot be read ({error})", "Check the first line."
            ) from error

    def _times(self) -> Any:
        """How timestamps are written, from the first row."""
        try:
            line = self._lines.take()
        except _BROKEN:
            return None  # reading on tells
        if line is None:
            return None
        self._lines.give_back([line])
        row = self.split(line)
        return recognise(row[self.time]) if len(row) > self.time else None

    def split(self, line: str) -> list[str]:
        """The fields of a line without line ends in fields."""
        if '"' in line:
            return next(csv.reader([line], delimiter=self.delimiter), [])
        return line.rstrip("\r\n").split(self.delimiter)

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        delimiter, width, extras = self.delimiter, self.width, self.extras
        for line in self._lines:
            if '"' in line:
                row = self._quoted(line)
                if isinstance(row, Fault):
                    yield row
                    continue
            else:
                self._taken[:] = (line,)
                row = line.rstrip("\r\n").split(delimiter)
            if len(row) != width:
                if line.isspace():
                    continue
                yield Fault(f"{len(row)} fields instead of {width}")
                continue
            if extras:
                row += extras
            yield row

    def _quoted(self, line: str) -> list[str] | Fault:
        """The row that begins with a line; further lines are taken if it goes on in them.

        A fault costs its own line: where a quotation mark has swallowed rows, these are read again.
        """
        taken = self._taken = [line]

        def feed() -> Iterator[str]:
            yield line
            while len(taken) < _MOST_LINES and (following := self._lines.take()) is not None:
                taken.append(following)
                yield following

        try:
            row = next(csv.reader(feed(), delimiter=self.delimiter, strict=True))
            fault = None
            if len(taken) > 1 and (len(row) != self.width or self._swallows(taken[1:-1])):
                fault = "a quotation mark is closed in another row"
        except csv.Error as error:
            fault = str(error)
        if fault is None:
            return row
        self._lines.give_back(taken[1:])
        del taken[1:]
        return Fault(fault)

    def _swallows(self, lines: list[str]) -> bool:
        """Whether lines within a row are rows themselves."""
        return any(
            len(next(csv.reader([line], delimiter=self.delimiter), [])) == self.width for line in lines
        )

    def origin(self, row: Row | Fault) -> Origin:  # noqa: ARG002
        """See ``Source``."""
        line = self._lines.number - len(self._taken) + 1
        return Origin(self.name, line, self.header, "".join(self._taken).rstrip("\r\n"))


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
