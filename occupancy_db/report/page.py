"""The page of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from occupancy_db.report.home import Home
from occupancy_db.report.parts import Section, Tile


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        home: The home.
        database: Name of the database.
        host: Name of the host; empty if it is not known.
        release: Release of the product.
        tiles: The values at its top.
        sections: Its sections.
    """

    home: Home
    database: str
    host: str
    release: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """Return the HTML of a report. It contains all that it shows."""
    from mako.template import Template

    directory = files("occupancy_db.report")
    # h: every value is escaped, unless it is HTML already.
    template: Any = Template(  # noqa: S702
        (directory / "page.html.mako").read_text(encoding="utf-8"),
        default_filters=["h"],
        imports=["from markupsafe import Markup"],
        strict_undefined=True,
    )
    style = (directory / "page.css").read_text(encoding="utf-8")
    html: str = template.render_unicode(page=page, home=page.home, style=style)
    return html
