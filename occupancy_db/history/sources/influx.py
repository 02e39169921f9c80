"""The annotated CSV of InfluxDB 2, with what Home Assistant writes there."""

import csv
import io
from collections.abc import Iterator
from typing import Final

from occupancy_db.errors import DatabaseError
from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import CANONICAL, OURS, Fault, Options, Row, arrange
from occupancy_db.history.sources.text import Columns, CsvLines, File
from occupancy_db.history.times import TimeFormat

ANNOTATIONS: Final = ("#group", "#datatype", "#default")
"""What the first line of a table may begin with."""

_FIELDS: Final = frozenset({"value", "state"})
"""The fields of a measurement that are a state; others are attributes."""


def is_table(line: str) -> bool:
    """Whether a line is the first of such a file: an annotation, or the header where there are none."""
    return line.startswith(ANNOTATIONS) or {"_time", "_value"} <= set(line.strip().split(","))


class InfluxSource(CsvLines):
    """The tables of a query, one after the other, each with columns of its own.

    Raises:
        DatabaseError: the first table has not the columns.
    """

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(file)
        self._options = options
        self._columns: Columns | Fault = Fault("no line names its columns")
        self._defaults: list[str] = []
        self.said = "annotated CSV of InfluxDB"
        self.times = options.times or TimeFormat.ISO
        arrange(self, CANONICAL)
        lines = file.head.decode("utf-8-sig", errors="replace").splitlines()[:-1]
        header = next((line for line in lines if line.strip() and not line.startswith("#")), None)
        if header is not None:
            Columns(file.path, header, self.delimiter, options)

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        number, header = 0, True
        for line in self._text:
            number += 1
            if line.startswith("#") or line.isspace():
                header = True
                if line.startswith("#default"):
                    self._defaults = self._split(line)
            elif header:
                header = False
                self._table(line)
            else:
                for row in self._rows(line, number):
                    if (found := row if isinstance(row, Fault) else self._found(row[4])) is not None:
                        yield found
                number = self._at[0]

    def origin(self, row: Row | Fault) -> Origin:
        """See ``Source``; a row has our columns, as its own ones may be empty where a default is meant."""
        found = super().origin(row)
        if isinstance(row, Fault):
            return found
        target = io.StringIO()
        csv.writer(target, lineterminator="").writerow(row)
        return Origin(found.file, found.line, ",".join(OURS), target.getvalue())

    def _table(self, line: str) -> None:
        self.header = line.rstrip("\r\n")
        try:
            self._columns = Columns(self.name, self.header, self.delimiter, self._options)
            self.width = self._columns.width
        except DatabaseError as error:
            self._columns, self.width = Fault(error.what), len(self._split(line))

    def _found(self, fields: list[str]) -> Row | Fault | None:
        columns = self._columns
        if isinstance(columns, Fault):
            return columns
        if len(fields) != columns.width:
            return Fault(f"{len(fields)} fields instead of {columns.width}")
        if len(self._defaults) == len(fields):
            fields = [field or default for field, default in zip(fields, self._defaults, strict=True)]
        if "_field" in columns.names and fields[columns.names.index("_field")] not in _FIELDS:
            return None
        return columns.row(fields)
