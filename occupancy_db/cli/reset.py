"""``occupancy-db reset``."""

import asyncio
import sys
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report
from occupancy_db.cli.options import refuse_in_production
from occupancy_db.cli.output import Json
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema.runner import recreate
from occupancy_db.settings import Settings


def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove what the migrations made, all data included, and make it anew; refused in production."""
    settings = Settings()
    refuse_in_production(settings, "reset destroys all data")
    if not (yes or _confirmed(settings)):
        raise DatabaseError(ExitCode.REFUSED, "nothing was changed", "Confirm with 'y', or pass --yes.")
    report(settings, asyncio.run(recreate(settings)))


def _confirmed(settings: Settings) -> bool:
    try:
        return typer.confirm(f"Destroy all data in {settings.where}?", err=True)
    except typer.Abort:  # end of input: nobody is there to ask
        return False
    finally:
        if not sys.stdin.isatty():
            print(file=sys.stderr)  # whoever answered did not press return on this terminal
