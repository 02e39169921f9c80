"""The progress of a long command on a terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from occupancy_db.cli.output import out

Advance = Callable[[str, int, int], None]
"""Takes a description, and how many bytes or rows are done, of how many."""


@contextmanager
def progress(unit: Literal["bytes", "rows"]) -> Iterator[Advance]:
    """A progress bar on standard error; none with ``--json``, or if that is not a terminal."""
    if out.json or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR"))),
    ) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
