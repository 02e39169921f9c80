"""``occupancy-db log``: the help of a program of the host, roles/postgres/files/occupancy-log.py."""

from enum import StrEnum
from typing import Annotated

import typer

from occupancy_db.cli.output import Json
from occupancy_db.errors import DatabaseError, ExitCode


class LogLevel(StrEnum):
    """How serious a line is, beginning with the least."""

    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


def log(
    since: Annotated[str, typer.Option(metavar="TIME", help="Not what came before.")] = "yesterday",
    until: Annotated[str, typer.Option(metavar="TIME", help="Not what came after.")] = "now",
    level: Annotated[LogLevel, typer.Option(help="The least serious level.")] = LogLevel.NOTICE,
    json: Json = False,
) -> None:
    """Show what server, jobs and deployments have logged, in order of time.

    On the host only, as root. A time is `today`, `yesterday`, `now` or ISO 8601; without an offset it is UTC.
    """
    raise DatabaseError(
        ExitCode.UNSUITABLE,
        "The log is read on the host of the server",
        "Run it there: sudo occupancy-db log.",
    )
