"""Tables for a terminal of any width."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP = "  "
_NARROWEST = 12
"""A column is not wrapped to fewer characters than this; it is left out instead."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: The heading.
        rank: Columns with the highest rank are left out first where the terminal is too narrow. A column of
            rank 0 identifies the row: it is never left out, wrapped or cut.
        right: Whether the values are aligned to the right.
    """

    title: str
    rank: int = 1
    right: bool = False


@dataclass
class Table:
    """Rows under headings; ``render`` lays them out."""

    columns: Sequence[Column]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row. ``None`` is an empty cell."""
        self.rows.append(tuple("" if cell is None else str(cell) for cell in cells))

    def render(self, width: int | None) -> list[str]:
        """Return the lines of the table.

        Args:
            width: Characters in a line; None for no limit.
        """
        shown = list(range(len(self.columns)))
        widths = {n: max(1, len(self.columns[n].title), *(len(row[n]) for row in self.rows)) for n in shown}
        if width is not None:
            shown, widths = self._fit(widths, width)
        lines = [self._line([self.columns[n].title for n in shown], shown, widths)]
        lines.append(GAP.join("-" * widths[n] for n in shown))
        for row in self.rows:
            cells = [textwrap.wrap(row[n], widths[n]) or [""] for n in shown]
            for part in range(max(map(len, cells))):
                texts = [cell[part] if part < len(cell) else "" for cell in cells]
                lines.append(self._line(texts, shown, widths))
        if hidden := [column.title for n, column in enumerate(self.columns) if n not in shown]:
            lines.append(f"(not shown at this width: {', '.join(hidden)}; --json has every column)")
        return lines

    def _fit(self, widths: dict[int, int], width: int) -> tuple[list[int], dict[int, int]]:
        """Wrap columns, then leave columns out, until the table is narrow enough or only keys are left."""
        shown = list(widths)
        while True:
            narrow = {
                n: widths[n] if self.columns[n].rank == 0 else min(widths[n], self._least(n)) for n in shown
            }
            spare = width - sum(narrow.values()) - len(GAP) * (len(shown) - 1)
            optional = [n for n in shown if self.columns[n].rank > 0]
            if spare >= 0 or not optional:
                break
            shown.remove(max(optional, key=lambda n: (self.columns[n].rank, n)))
        for n in sorted(shown, key=lambda n: (self.columns[n].rank, n)):
            more = max(0, min(widths[n] - narrow[n], spare))
            narrow[n] += more
            spare -= more
        return shown, narrow

    def _least(self, n: int) -> int:
        """The narrowest that a column is wrapped to: a short value, as "1.2 MB", is not broken."""
        longest = max((len(word) for row in self.rows for word in row[n].split()), default=0)
        whole = max((len(row[n]) for row in self.rows), default=0)
        least = whole if whole <= _NARROWEST else min(max(longest, _NARROWEST), 2 * _NARROWEST)
        return max(least, len(self.columns[n].title))

    def _line(self, texts: list[str], shown: list[int], widths: dict[int, int]) -> str:
        cells = [
            text.rjust(widths[n]) if self.columns[n].right else text.ljust(widths[n])
            for n, text in zip(shown, texts, strict=True)
        ]
        return GAP.join(cells).rstrip()
