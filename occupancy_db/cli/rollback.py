"""``occupancy-db rollback``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report
from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json
from occupancy_db.driver import LOCK_WAIT
from occupancy_db.release.rollback import roll_back
from occupancy_db.settings import Settings


def rollback(
    revision: Annotated[
        str,
        typer.Option(
            "--revision", metavar="ID", help="A revision id, 'base', or a number of steps, as in -1."
        ),
    ] = "-1",
    lose_data: Annotated[
        bool,
        typer.Option("--lose-data", help="Revert even if data are lost that only these migrations can hold."),
    ] = False,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Revert one migration, or all down to a revision.

    If data would be lost that only the reverted migrations can hold, the command names these data and changes
    nothing, unless --lose-data is given.
    """
    settings = Settings()
    report(settings, asyncio.run(roll_back(settings, revision, wait=lock_wait, lose_data=lose_data)))
