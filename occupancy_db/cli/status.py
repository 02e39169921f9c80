"""``occupancy-db status``."""

import asyncio
import os
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from occupancy_db.checks import host as documents
from occupancy_db.checks import thresholds
from occupancy_db.checks.evaluation import evaluate
from occupancy_db.checks.evidence import Evidence
from occupancy_db.checks.facts import gather
from occupancy_db.checks.model import Check, Level, Result, Status
from occupancy_db.checks.of_backups import newest_set
from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

_PAUSE = 10
"""Seconds between two screens of --watch."""

_CODES = {Level.WARNING: ExitCode.WARNING, Level.BAD: ExitCode.BAD}
_COLOURS = {Level.BAD: "31;1", Level.WARNING: "33;1", Level.GOOD: "32", Level.SKIPPED: "2"}


def status(
    watch: Annotated[
        bool, typer.Option("--watch", help=f"Repeat every {_PAUSE} seconds, until it is interrupted.")
    ] = False,
    scheduled: Annotated[bool, typer.Option("--scheduled", hidden=True)] = False,
    json: Json = False,
) -> None:
    """Show the results of all checks, the worst first.

    A warning has the command that helps, and the page of the documentation. The exit code is 20 if the worst
    result is a warning and 21 if it is bad. What the host's collector has found is that of this moment on a
    host, and with --watch that of the last run of the job.
    """
    directory = Path(os.environ.get("STATUS_DIR") or documents.DIRECTORY)
    while True:
        found, checks = asyncio.run(_status(directory, scheduled))
        if out.json:
            out.result(_data(found))
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            out.result({}, *_screen(found, checks))
        if not watch:
            break
        time.sleep(_PAUSE)
    if code := _CODES.get(found.level):
        raise typer.Exit(code)


async def _status(directory: Path, scheduled: bool) -> tuple[Status, Mapping[str, Check]]:
    """Evaluate the list at this moment."""
    from occupancy_db.cli.app import version

    settings = Settings()
    try:
        host = documents.read_host(directory)
        checks = thresholds.read(directory)
    except (OSError, ValueError) as error:
        raise DatabaseError(
            ExitCode.FAILED, f"the status of the host cannot be read: {error}", "Run 'make up' again."
        ) from None
    facts = await gather(settings, newest_set(host) if host else None)
    evidence = Evidence(datetime.now(UTC), host, facts, _previous(directory), scheduled)
    found = evaluate(checks, evidence, socket.gethostname(), version())
    return found, {check.name: check for check in checks}


def _previous(directory: Path) -> Status | None:
    try:
        return Status.from_json((directory / documents.STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or of another release
        return None


def _data(found: Status) -> dict[str, object]:
    import json

    return dict(json.loads(found.to_json()))


def _screen(found: Status, checks: Mapping[str, Check]) -> Iterator[str]:
    """The lines for people: the worst first, good ones in a line each."""
    width = max(shutil.get_terminal_size((100, 24)).columns, 60)
    worst = sorted(found.results, key=lambda one: -one.level.rank)
    shown = [one for one in worst if one.level is not Level.SKIPPED]
    counts = [
        f"{sum(one.level is level for one in shown)} {level}"
        for level in (Level.BAD, Level.WARNING, Level.GOOD)
    ]
    level = _colour(found.level, found.level.upper())
    yield f"{found.host}: {level} ({', '.join(counts)}), {found.time:%Y-%m-%d %H:%M} UTC"
    yield ""
    gap = max(len(check.title) for check in checks.values()) + 2
    for one in worst:
        yield from _lines(one, checks[one.name], gap, width)


def _lines(one: Result, check: Check, gap: int, width: int) -> Iterator[str]:
    label = _colour(one.level, f"{one.level:<8}")
    indent = " " * (9 + gap)
    first, *others = textwrap.wrap(one.summary, max(width - len(indent), 30)) or [""]
    yield f"{label} {check.title:<{gap}}{first}"
    for line in others:
        yield indent + line
    if one.level.rank < Level.WARNING.rank:
        return
    for line in one.details:
        yield f"{indent}{line}"
    if one.since:
        yield f"{indent}since {one.since:%Y-%m-%d %H:%M} UTC"
    yield f"{indent}{with_program(check.action)}"
    yield f"{indent}docs/{check.page}"


def _colour(level: Level, text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[level]}m{text}\x1b[0m"
