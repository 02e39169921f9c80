"""``occupancy-db migrate``."""

import asyncio

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.migrate import LOCK_WAIT, Outcome, upgrade
from occupancy_db.settings import Settings


def migrate(lock_wait: LockWait = LOCK_WAIT, json: Json = False) -> None:
    """Apply all pending migrations; of several runners one applies and the others wait."""
    settings = Settings()
    report(settings, asyncio.run(upgrade(settings, lock_wait=lock_wait)))


def report(settings: Settings, outcome: Outcome) -> None:
    """Print what a run of migrations did.

    Args:
        settings: The database it was done to.
        outcome: What was done.
    """
    data = {
        "database": settings.database,
        "from": outcome.before,
        "to": outcome.after,
        "reverted": outcome.reverted,
        "applied": outcome.applied,
    }
    if not (outcome.reverted or outcome.applied):
        out.result(data, f"{settings.database}: already at {outcome.after or 'base'}, nothing to do")
        return
    out.result(
        data,
        *(f"took back {revision}" for revision in outcome.reverted),
        *(f"applied {revision}" for revision in outcome.applied),
        f"{settings.database}: {outcome.before or 'base'} → {outcome.after or 'base'}",
    )
