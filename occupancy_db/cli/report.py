"""``occupancy-db report``."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from occupancy_db.cli.app import version
from occupancy_db.cli.output import Json, out, size
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.report.create import ReportSettings, create
from occupancy_db.report.file import refuse_foreign, write
from occupancy_db.settings import Settings

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Where it is written; - is standard output. [default: REPORT_OUTPUT, or report.html]",
    ),
]
Days = Annotated[
    int, typer.Option("--days", min=1, max=366, help="Days that are shown, the present one included.")
]
_STANDARD_OUTPUT = Path("-")


def report(output: Output = None, days: Days = 28, json: Json = False) -> None:
    """Write a page that shows the state of the database and of the home.

    It is one HTML file that needs nothing else: open it with a browser. It shows when nobody is at home, and
    only its owner may read it.
    """
    settings = ReportSettings()
    path = output or settings.output
    if path != _STANDARD_OUTPUT:
        _refuse_elsewhere(path, settings.output)
        refuse_foreign(path)
    page = asyncio.run(create(Settings(), settings, days, version()))
    if path == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(page.encode())
        return
    write(path, page)
    length = len(page.encode())
    out.result({"file": str(path.absolute()), "bytes": length}, f"{path.absolute()} ({size(length)})")


def _refuse_elsewhere(path: Path, usual: Path) -> None:
    """On a host the command runs in a container, which has one directory of the host for reports."""
    if os.environ.get("OCCUPANCY_COMMAND") and path.absolute().parent != usual.parent:
        raise DatabaseError(
            ExitCode.USAGE,
            f"on a host, this command writes to {usual.parent} only, and not to {path}",
            f"Use 'occupancy-db report --output - > {path}'.",
        )
