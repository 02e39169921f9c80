"""What the sections of a report are made of, and how values are written there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


class Html(Protocol):
    """Text that is HTML already; everything else is escaped."""

    def __html__(self) -> str:
        """The HTML."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        style: Class of the style sheet; "" for none.
    """

    text: str | Html
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: The heading.
        style: Class of its cells: ``number`` aligns them to the right, ``wide``
            gives them the width that is left.
    """

    title: str | Html
    style: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings. The first cell of a row is its heading.

    Attributes:
        caption: What the table shows.
        columns: The columns.
        rows: A cell for each column.
        style: Class of the table.
        hidden: Whether it is shown on request only, because a chart shows the same.
    """

    caption: str
    columns: Sequence[Column]
    rows: "Sequence[Row]"
    style: str = ""
    hidden: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: What it says.
        style: Class of the style sheet.
    """

    text: str
    style: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        title: What it shows, and the most important of its values: its text alternative.
        svg: The drawing.
        caption: The text below it.
    """

    title: str
    svg: Html
    caption: str
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Tile:
    """A value at the top of the page.

    Attributes:
        title: What it is.
        value: The value.
        note: A few words on it.
        style: Class of the style sheet.
    """

    title: str
    value: str
    note: str
    style: str = ""


Row = Sequence[Cell | str]
Part = Table | Text | Chart


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: Its address in the page.
        title: Its heading.
        parts: What it has.
    """

    id: str
    title: str
    parts: Sequence[Part]


def skipped(what: str) -> Text:
    """The paragraph in the place of something that cannot be shown; the text says why."""
    return Text(what, "skipped")


def size(count: float) -> str:
    """A number of bytes in decimal units, as in 1.5 GB."""
    number = 0
    while abs(count) >= 999.5 and number < len(_UNITS) - 1:
        count, number = count / 1000, number + 1
    return f"{count:,.{0 if number == 0 else 1}f} {_UNITS[number]}"


def duration(seconds: float) -> str:
    """A time in its two largest units, as in 3 h 20 min."""
    left, words = round(seconds), []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= length:
            words.append(f"{left // length} {unit}")
            left %= length
    return " ".join(words[:2]) or "0 s"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago a moment was."""
    if moment > now + timedelta(seconds=1):
        return "in the future"
    return f"{duration((now - moment).total_seconds())} ago"


def percent(part: float, whole: float) -> str:
    """A share as a whole percentage; a dash if there is nothing to share."""
    return f"{100 * part / whole:.0f} %" if whole else "–"
