"""NDJSON, and the rejects of an import, whose rows are CSV or JSON."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from occupancy_db.errors import DatabaseError
from occupancy_db.history.rejects import HEADER, Origin
from occupancy_db.history.sources.base import (
    ALIASES,
    CANONICAL,
    OURS,
    Fault,
    Options,
    Row,
    Source,
    arrange,
    choose,
)
from occupancy_db.history.sources.text import Columns, File
from occupancy_db.history.times import recognise


def _told(options: Options) -> dict[str, tuple[str, ...]]:
    """Under which keys each of our columns is looked for."""
    told = choose((), options)
    keys: dict[str, tuple[str, ...]] = {column: (told.get(column, column),) for column in OURS}
    for column, theirs in ALIASES.items():
        if keys[column] == (column,):
            keys[column] = (column, *theirs)
    return keys


class Objects:
    """Makes rows of JSON objects."""

    def __init__(self, options: Options) -> None:
        self._keys = [
            (column, keys, options.constants.get(column)) for column, keys in _told(options).items()
        ]

    def row(self, text: str) -> Row | Fault:
        """The row of one object, or what is wrong with it."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Fault(f"not JSON: {error}")
        return self.of(found)

    def of(self, found: Any) -> Row | Fault:
        """The same of an object that has been read."""
        if not isinstance(found, dict):
            return Fault("not a JSON object")
        row = []
        for _, keys, constant in self._keys:
            value = constant
            for key in keys:
                if value is None:
                    value = found.get(key)
            row.append(value)
        if isinstance(row[-1], bool):  # which would be found among the numbers, as 0 or 1
            return Fault(f"confidence is not a number: {row[-1]}")
        if isinstance(row[0], bool):
            return Fault(f"timestamp is not ISO 8601: {row[0]}")
        return row


class NdjsonSource(Source):
    """One object a line."""

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.position = file.position  # type: ignore[method-assign]
        self.size = file.size
        self._objects = Objects(options)
        self._line = ""
        self._number = 0
        self.said = "NDJSON"
        arrange(self, CANONICAL)
        first = self._objects.row(file.head.partition(b"\n")[0].decode("utf-8-sig", errors="replace"))
        self.times = options.times or (None if isinstance(first, Fault) else recognise(first[self.time]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        for line in self._file.text:
            self._number += 1
            if line.isspace():
                continue
            self._line = line
            yield self._objects.row(line)

    def origin(self, row: Row | Fault) -> Origin:  # noqa: ARG002
        """See ``Source``."""
        return Origin(self.name, self._number, "", self._line.strip())


class RejectsSource(Source):
    """The rows of a file of rejects, each as it was in its own file."""

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.position = file.position  # type: ignore[method-assign]
        self.size = file.size
        self._options = options
        self._objects = Objects(options)
        self._headers: dict[str, tuple[str, Columns] | Fault] = {}
        self._origin = Origin(self.name, 1, "", "")
        self.said = "rejects of an import"
        arrange(self, CANONICAL)
        # The first timestamp may be what was wrong.
        self.times = options.times

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        lines = csv.reader(self._file.text)
        next(lines)
        while True:
            try:
                found = next(lines, None)
            except csv.Error as error:
                self._origin = Origin(self.name, lines.line_num, "", "")
                yield Fault(str(error))
                continue
            if found is None:
                return
            if len(found) != len(HEADER):
                self._origin = Origin(self.name, lines.line_num, "", ",".join(found))
                yield Fault(f"{len(found)} fields instead of {len(HEADER)}")
                continue
            name, line, _, header, row = found
            self._origin = Origin(name, int(line) if line.isdecimal() else lines.line_num, header, row)
            yield self._csv(header, row) if header else self._objects.row(row)

    def _csv(self, header: str, text: str) -> Row | Fault:
        if header not in self._headers:
            try:
                self._headers[header] = self._columns(header)
            except DatabaseError as error:
                self._headers[header] = Fault(error.what)
        known = self._headers[header]
        if isinstance(known, Fault):
            return known
        delimiter, columns = known
        try:
            row = next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            return Fault(str(error))
        if len(row) != columns.width:
            return Fault(f"{len(row)} fields instead of {columns.width}")
        return columns.row(row)

    def _columns(self, header: str) -> tuple[str, Columns]:
        delimiter = self._options.delimiter or max(",;\t|", key=header.count)
        # Some sources name their rows' columns as we do, whatever they are called there.
        options = replace(self._options, columns={}) if header == ",".join(OURS) else self._options
        return delimiter, Columns(self.name, header, delimiter, options)

    def origin(self, row: Row | Fault) -> Origin:  # noqa: ARG002
        """See ``Source``."""
        return self._origin
