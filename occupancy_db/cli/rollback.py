"""``occupancy-db rollback``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report
from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.release.protocol import take_back
from occupancy_db.settings import Settings


def rollback(
    revision: Annotated[str, typer.Option(help="A revision id, 'base', or how many steps back.")] = "-1",
    lose_data: Annotated[
        bool, typer.Option("--lose-data", help="In production: take back what cannot be with all its data.")
    ] = False,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Take back one migration, or all down to a revision; the data that only they can hold is lost.

    Production refuses that for migrations which do not say that nothing is lost.
    """
    settings = Settings()
    report(settings, asyncio.run(take_back(settings, revision, wait=lock_wait, lose_data=lose_data)))
