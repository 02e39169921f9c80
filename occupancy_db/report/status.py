"""The checks, as the document of the host's job has them."""

from pathlib import Path

from markupsafe import Markup, escape

from occupancy_db.checks.catalogue import BY_NAME
from occupancy_db.checks.model import Level, Result, Status
from occupancy_db.report.home import Home
from occupancy_db.report.parts import Cell, Column, Row, Section, Table, Text, ago, skipped

WORDS = {
    Level.GOOD: "✓ good",
    Level.WARNING: "▲ warning",
    Level.BAD: "✕ bad",
    Level.SKIPPED: "– not checked",
}
"""The levels with a sign each, because colours alone tell not everybody."""


def read(path: Path) -> Status | str:
    """Read the document with the results of all checks.

    Args:
        path: The file.

    Returns:
        The results, or why there are none.
    """
    try:
        return Status.from_json(path.read_text(encoding="utf-8")).as_read()
    except FileNotFoundError:
        return f"There are no results of the checks: {path} does not exist. On a host, a job writes it."
    except OSError as error:
        return f"The results of the checks cannot be read: {error.strerror}: {path}."
    except ValueError as error:
        return f"The results of the checks cannot be read: {path} is {error}."


def section(home: Home, status: Status | str) -> Section:
    """The section on the checks, worst first."""
    if isinstance(status, str):
        return Section("checks", "Checks", [skipped(status)])
    made = Text(f"Checked {ago(status.time, home.now)}, at {home.local(status.time)}.")
    results = sorted(status.results, key=lambda one: -one.level.rank)
    columns = [Column("Check"), Column("Result"), Column("What was found, and what helps", "wide")]
    return Section(
        "checks",
        "Checks",
        [made, Table("Results of the checks", columns, [_row(home, one) for one in results])],
    )


def _row(home: Home, result: Result) -> Row:
    check = BY_NAME.get(result.name)
    found = " ".join([result.summary, *result.details])
    if result.since:
        found += f" (since {home.local(result.since)})"
    helps = Markup("")
    if check and result.level in {Level.WARNING, Level.BAD}:
        helps = Markup(" <code>{}</code>").format(check.action)
    return [
        check.title if check else result.name,
        Cell(WORDS[result.level], result.level.value),
        Cell(escape(found) + helps, "wide"),
    ]
