"""Parquet, read by DuckDB a few rows at a time."""

import csv
import io
from collections.abc import Iterator
from typing import Final

import duckdb

from occupancy_db.history.duck import open_duckdb
from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import (
    CANONICAL,
    OURS,
    Fault,
    Options,
    Row,
    Source,
    arrange,
    choose,
    unusable,
)
from occupancy_db.history.sources.text import File, find_columns
from occupancy_db.history.times import Clock, TimeFormat, moment_of, recognise

AT_ONCE: Final = 2000
"""Rows that are taken from DuckDB at once."""

_MOMENT: Final = "TIMESTAMP WITH TIME ZONE"
_TEXT: Final = frozenset({"room", "zone", "source_entity"})


class ParquetSource(Source):
    """Rows of a Parquet file.

    Raises:
        DatabaseError: it cannot be read, or has not the columns.
    """

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(str(file.path))
        self._file = file
        self._options = options
        self._connection = open_duckdb()
        # The name of an open file: that of the file itself can be taken for a pattern or an address.
        self._path = f"/dev/fd/{file.binary.fileno()}"
        self._number = self._rows = 0
        self.size = file.size
        self.said = "Parquet"
        arrange(self, CANONICAL)
        try:
            self._open()
        except duckdb.Error as error:
            self._connection.close()
            raise unusable(self.name, _words(error), "Check the file.") from error

    def _open(self) -> None:
        described = self._connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [self._path])
        types: dict[str, str] = {name: kind for name, kind, *_ in described.fetchall()}
        wanted = choose(list(types), self._options)
        find_columns(self.name, list(types), wanted)
        self._select = ", ".join(
            _expression(column, name, types[name]) if (name := wanted.get(column)) else "?::VARCHAR"
            for column in OURS
        )
        self._values = [self._options.constants.get(column) for column in OURS if column not in wanted]
        counted = self._connection.execute("SELECT count(*) FROM read_parquet(?)", [self._path]).fetchone()
        self._rows = counted[0] if counted else 0
        if types.get(wanted.get("timestamp", "")) == _MOMENT:
            self.times = TimeFormat.MICROSECONDS
        else:
            first = self._query(" LIMIT 1").fetchone()
            self.times = self._options.times or (recognise(first[self.time]) if first else None)

    def _query(self, end: str = "") -> duckdb.DuckDBPyConnection:
        return self._connection.execute(
            f"SELECT {self._select} FROM read_parquet(?){end}",  # noqa: S608  # quoted names of columns
            [*self._values, self._path],
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._file.close()

    def position(self) -> int:
        """See ``Source``."""
        return self.size * self._number // max(self._rows, 1)

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        try:
            found = self._query()
            while rows := found.fetchmany(AT_ONCE):
                for row in rows:
                    self._number += 1
                    yield row
        except duckdb.Error as error:
            raise unusable(self.name, _words(error), "Nothing was imported.") from error

    def origin(self, row: Row | Fault) -> Origin:
        """See ``Source``; the number of the row, and the row as CSV."""
        values = [] if isinstance(row, Fault) else list(row)
        if values and self.times is TimeFormat.MICROSECONDS and isinstance(values[0], int):
            values[0] = moment_of(Clock(self.times, None).parse(values[0])).isoformat()
        target = io.StringIO()
        csv.writer(target, lineterminator="").writerow(values)
        return Origin(self.name, self._number, ",".join(OURS), target.getvalue())


def _expression(column: str, name: str, kind: str) -> str:
    """What is selected for a column of ours, as the values of other formats are."""
    quoted = '"' + name.replace('"', '""') + '"'
    if kind == _MOMENT and column == "timestamp":
        return f"epoch_us({quoted})"
    if kind in ("BOOLEAN", "DOUBLE") or (kind.endswith("INT") and column not in _TEXT):
        return quoted
    return f"{quoted}::VARCHAR"


def _words(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
