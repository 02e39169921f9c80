"""``occupancy-db migrate``."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import asyncpg
import typer

from occupancy_db.cli.options import LockWait
from occupancy_db.cli.output import Json, out
from occupancy_db.driver import LOCK_WAIT, SESSION_SETTINGS, connect_driver
from occupancy_db.errors import DatabaseError
from occupancy_db.release.results import Deployment, ReleasePlan
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
    Outside production the backup is skipped if the directory of backup sets does not exist. With --plan the
    exit code is that of the first obstacle.
    """
    settings = Settings()
    if plan:
        planned = asyncio.run(_plan(settings))
        _show(planned)
        if planned.exit_code:
            raise typer.Exit(planned.exit_code)
    else:
        run(settings, save=backup, wait=lock_wait)


def run(settings: Settings, *, save: bool = True, wait: float = LOCK_WAIT) -> None:
    """Migrate the schema to this release and print what was done; see ``protocol.deploy``."""
    done = asyncio.run(_deploy(settings, save=save, wait=wait))
    if not done.applied:
        ahead = f", ahead of this release by {', '.join(done.ahead)}" if done.ahead else ""
        line = f"{settings.database}: already at {done.after or 'base'}{ahead}, nothing to do"
    else:
        line = f"{settings.database}: {done.before or 'base'} → {done.after}"
    out.result(done.as_dict(), line)


async def _plan(settings: Settings) -> ReleasePlan:
    """The plan of ``planning.plan``; without importing Alembic if there is nothing to apply."""
    found = await _position(settings)
    if found is not None and found.revision == found.head:
        return ReleasePlan(settings.database, found.revision, found.revision)
    from occupancy_db.backup.configuration import BackupSettings
    from occupancy_db.release import planning

    return await planning.plan(settings, BackupSettings())


async def _deploy(settings: Settings, *, save: bool, wait: float) -> Deployment:
    """The result of ``protocol.deploy``; without importing Alembic if there is nothing to do."""
    found = None
    # The protocol waits where all connections are in use or a lock is held, and explains other errors.
    with suppress(DatabaseError, asyncpg.PostgresError):
        found = await _position(settings)
    if found is not None and found.revision == found.head and not found.unverified:
        return Deployment(settings.database, found.revision, found.revision, [], [], {})
    from occupancy_db.backup.configuration import BackupSettings
    from occupancy_db.release import protocol

    return await protocol.deploy(settings, BackupSettings(), out.step, wait=wait, save=save)


async def _position(settings: Settings) -> position.Position | None:
    """The position of the database; None if only Alembic can find it."""
    try:
        async with connect_driver(settings, "occupancy-db migrate", SESSION_SETTINGS) as connection:
            return await position.find(connection)
    except position.UnclearError:
        return None


def _show(plan: ReleasePlan) -> None:
    lines = []
    for planned in plan.pending:
        one = planned.summary
        reversible = "reversible" if one.reversible else "not reversible without loss of data"
        lines += [f"-- {one.revision}: {one.phase}, {reversible}, locks: {one.locks}", planned.sql]
    lines += [f"note: {warning}" for warning in plan.warnings]
    lines += [f"prevented by: {problem}" for problem in plan.problems]
    move = f"{plan.before or 'base'} → {plan.after or 'base'}"
    out.result(plan.as_dict(), *lines, f"{plan.database}: {move}, {len(plan.pending)} pending")


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
