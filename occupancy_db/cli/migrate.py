"""``occupancy-db migrate``."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.driver import LOCK_WAIT, connect_driver
from occupancy_db.schema import position
from occupancy_db.settings import Settings

if TYPE_CHECKING:
    from occupancy_db.schema.runner import Outcome


def migrate(
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show the SQL that would run, and what would prevent it.")
    ] = False,
    backup: Annotated[
        bool, typer.Option(help="Create a verified backup set first, unless the database is empty.")
    ] = True,
    lock_wait: LockWait = LOCK_WAIT,
    json: Json = False,
) -> None:
    """Migrate the schema to this release: check, back up, apply, verify.

    Migrations are applied one at a time. If several processes migrate, one applies and the others wait.
    Outside production the backup is skipped if the directory of backup sets does not exist.
    """
    settings = Settings()
    if plan:
        _show(asyncio.run(_plan(settings)))
    else:
        run(settings, save=backup, wait=lock_wait)


def run(settings: Settings, *, save: bool = True, wait: float = LOCK_WAIT) -> None:
    """Migrate the schema to this release and print what was done; see ``protocol.deploy``."""
    from occupancy_db.backup.configuration import BackupSettings
    from occupancy_db.release import protocol

    done = asyncio.run(protocol.deploy(settings, BackupSettings(), out.step, wait=wait, save=save))
    if not done["applied"]:
        ahead = f", ahead of this release by {', '.join(done['ahead'])}" if done["ahead"] else ""
        out.result(done, f"{settings.database}: already at {done['to'] or 'base'}{ahead}, nothing to do")
        return
    out.result(done, f"{settings.database}: {done['from'] or 'base'} → {done['to']}")


async def _plan(settings: Settings) -> dict[str, Any]:
    """The plan of ``protocol.plan``; without importing Alembic if there is nothing to apply."""
    try:
        async with connect_driver(settings, "occupancy-db migrate") as connection:
            found = await position.find(connection)
    except position.UnclearError:
        found = None
    if found is not None and found.revision == found.head:
        unchanged = {"database": settings.database, "from": found.revision, "to": found.revision}
        return {**unchanged, "pending": [], "ahead": [], "problems": [], "warnings": []}
    from occupancy_db.backup.configuration import BackupSettings
    from occupancy_db.release import protocol

    return await protocol.plan(settings, BackupSettings())


def _show(plan: dict[str, Any]) -> None:
    lines = []
    for one in plan["pending"]:
        reversible = "reversible" if one["reversible"] else "not reversible without loss of data"
        lines += [f"-- {one['revision']}: {one['phase']}, {reversible}, locks: {one['locks']}", one["sql"]]
    lines += [f"note: {warning}" for warning in plan["warnings"]]
    lines += [f"prevented by: {problem}" for problem in plan["problems"]]
    move = f"{plan['from'] or 'base'} → {plan['to'] or 'base'}"
    out.result(plan, *lines, f"{plan['database']}: {move}, {len(plan['pending'])} pending")


def report(settings: Settings, outcome: "Outcome") -> None:
    """Print what a run of migrations has done.

    Args:
        settings: The database.
        outcome: The revisions before and after.
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
        *(f"reverted {revision}" for revision in outcome.reverted),
        *(f"applied {revision}" for revision in outcome.applied),
        f"{settings.database}: {outcome.before or 'base'} → {outcome.after or 'base'}",
    )
