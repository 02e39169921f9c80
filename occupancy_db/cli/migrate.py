"""``occupancy-db migrate``."""

import asyncio
from typing import Annotated, Any

import typer

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.release import protocol
from occupancy_db.schema.runner import Outcome
from occupancy_db.settings import Settings


def migrate(
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would run and what is in the way; do nothing.")
    ] = False,
    backup: Annotated[
        bool, typer.Option(help="Make a verified backup set first, unless the database is empty.")
    ] = True,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Bring the schema to this release: check, back up, apply one migration at a time, verify.

    Of several runners one applies and the others wait. Outside production the backup is made where there is
    a place for it.
    """
    settings = Settings()
    if plan:
        _show(asyncio.run(protocol.plan(settings, BackupSettings())))
    else:
        run(settings, save=backup, wait=lock_wait)


def run(settings: Settings, *, save: bool = True, wait: float = LOCK_WAIT) -> None:
    """Bring the schema to this release and print what was done; arguments and errors as protocol.deploy()."""
    done = asyncio.run(protocol.deploy(settings, BackupSettings(), out.step, wait=wait, save=save))
    if not done["applied"]:
        ahead = f", ahead of this release by {', '.join(done['ahead'])}" if done["ahead"] else ""
        out.result(done, f"{settings.database}: already at {done['to'] or 'base'}{ahead}, nothing to do")
        return
    out.result(done, f"{settings.database}: {done['from'] or 'base'} → {done['to']}")


def _show(plan: dict[str, Any]) -> None:
    lines = []
    for one in plan["pending"]:
        reversible = "reversible" if one["reversible"] else "not reversible with all data"
        lines += [f"-- {one['revision']}: {one['phase']}, {reversible}, locks: {one['locks']}", one["sql"]]
    lines += [f"note: {warning}" for warning in plan["warnings"]]
    lines += [f"in the way: {problem}" for problem in plan["problems"]]
    move = f"{plan['from'] or 'base'} → {plan['to'] or 'base'}"
    out.result(plan, *lines, f"{plan['database']}: {move}, {len(plan['pending'])} pending")


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
    out.result(
        data,
        *(f"took back {revision}" for revision in outcome.reverted),
        *(f"applied {revision}" for revision in outcome.applied),
        f"{settings.database}: {outcome.before or 'base'} → {outcome.after or 'base'}",
    )
