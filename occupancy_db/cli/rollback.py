"""``occupancy-db rollback``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.cli.migrate import report
from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json
from occupancy_db.migrate import LOCK_WAIT, downgrade
from occupancy_db.settings import Settings


def rollback(
    revision: Annotated[str, typer.Option(help="A revision id, 'base', or how many steps back.")] = "-1",
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Take back one migration, or all down to a revision; the data that only they can hold is lost."""
    settings = Settings()
    report(settings, asyncio.run(downgrade(settings, revision, lock_wait)))
