"""``occupancy-db reset``."""

import asyncio
import sys
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report
from occupancy_db.cli.options import refuse_in_production
from occupancy_db.cli.output import Json, out
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings


def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """Drop the schema with all data, and create it again.

    The command asks for confirmation; with --json it requires --yes. It is refused in production.
    """
    settings = Settings()
    refuse_in_production(settings, "reset destroys all data")
    if not (yes or _confirmed(settings)):
        raise DatabaseError(
            ExitCode.REFUSED,
            f"reset of {settings.where} was not confirmed; nothing was changed",
            "Pass --yes." if out.json else "Confirm with 'y', or pass --yes.",
        )
    from occupancy_db.schema.runner import recreate

    report(settings, asyncio.run(recreate(settings)))


def _confirmed(settings: Settings) -> bool:
    if out.json:  # a program reads the output, and cannot answer
        return False
    try:
        return typer.confirm(f"Destroy all data in {settings.where}?", err=True)
    except typer.Abort:  # end of input
        return False
    finally:
        if not sys.stdin.isatty():
            print(file=sys.stderr)  # the answer did not end the line of the question
