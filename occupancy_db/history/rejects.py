"""Rows that an import did not take, in a file that can be imported again."""

import csv
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

HEADER: Final = ("file", "line", "reason", "header", "row")
"""The columns of the file."""


@dataclass(frozen=True)
class Origin:
    """A row, and where it was.

    Attributes:
        file: The file or database.
        line: Where it begins, counted from 1.
        header: The line of the file that names the columns; empty for rows that are JSON.
        row: As it stands there.
    """

    file: str
    line: int
    header: str
    row: str


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

    def add(self, origin: Origin, reason: str) -> None:
        """Write one down.

        Args:
            origin: The row.
            reason: What is wrong with it.
        """
        if self._writer is None:
            # What was not UTF-8 comes out as it came in.
            target = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
            self._writer = csv.writer(self._stack.enter_context(target))
            self._writer.writerow(HEADER)
        self._writer.writerow([origin.file, origin.line, reason, origin.header, origin.row])
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(f"{origin.file}, line {origin.line}: {reason}")
