"""The rollback of revisions on request of the operator."""

import re

from alembic.script import Script
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.maintenance import LOCK_WAIT, maintenance_lock
from occupancy_db.release import steps
from occupancy_db.release.watch import LockWatch
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.revisions import UndeclaredError
from occupancy_db.schema.runner import script_directory
from occupancy_db.settings import Settings


async def roll_back(
    settings: Settings, revision: str, *, wait: float = LOCK_WAIT, lose_data: bool = False
) -> runner.Outcome:
    """Revert the schema to an earlier revision, one revision at a time, beside clients.

    Args:
        settings: The database, as its owner.
        revision: An id, ``base``, or a number of steps, as in ``-1``.
        wait: Seconds to wait for the maintenance lock, and for the locks of each revision.
        lose_data: Whether data that only these revisions can hold may be lost.

    Raises:
        DatabaseError: there is no such earlier revision, or data would be lost; the text names the data.
        alembic.util.CommandError: this release does not know the revision of the database.
        sqlalchemy.exc.DBAPIError: a step failed; it is rolled back, those before it are not.
    """
    async with maintenance_lock(settings, wait) as guard:
        before = await runner.current_revision(guard)
        scripts = script_directory()
        if before:
            scripts.get_revision(before)  # names a revision that this release does not know
        applied = revisions.up_to(scripts, before) if before else []
        going = _revisions_above(applied, revision)[::-1]
        if not lose_data:
            await require_no_loss(guard, going)
        watch = LockWatch(guard)
        for script in going:
            await steps.revert(settings, script, wait, watch)
        after = await runner.current_revision(guard)
    return runner.Outcome(before, after, [script.revision for script in going], [])


async def require_no_loss(
    connection: AsyncConnection, going: list[Script], flag: str = "--lose-data"
) -> None:
    """Raise an error if reverting revisions would lose data.

    Args:
        connection: A connection to the database.
        going: The revisions, the newest first.
        flag: The option that confirms the loss, for the hint.

    Raises:
        DatabaseError: data would be lost; the text names the data.
    """
    losses = []
    for script in going:
        try:
            one = revisions.declaration(script)
        except UndeclaredError:
            losses.append(f"{script.revision} does not say what its downgrade keeps")
            continue
        if not one.reversible and not one.lost:
            losses.append(f"{script.revision} is reversible {one.loses}")
        for what, query in one.lost.items():
            if count := (await connection.exec_driver_sql(query)).scalar():
                losses.append(f"{script.revision} has {count:,} {what}")
    if losses:
        raise DatabaseError(
            ExitCode.REFUSED,
            f"this cannot be reverted without losing data: {'; '.join(losses)}",
            f"Repeat the command with {flag} if these data may be lost. Nothing was changed.",
            {"losses": losses},
        )


def _revisions_above(applied: list[Script], revision: str) -> list[Script]:
    """Return the applied revisions after the given one, the oldest first."""
    ids = [script.revision for script in applied]
    keep = None
    if re.fullmatch(r"-\d+", revision):
        keep = len(ids) + int(revision)
    elif revision == "base":
        keep = 0
    elif revision in ids:
        keep = ids.index(revision) + 1
    if keep is None or keep < 0:
        raise DatabaseError(
            ExitCode.FAILED,
            f"there is no revision {revision} below {ids[-1] if ids else 'base'}",
            "See 'occupancy-db history'.",
        )
    return applied[keep:]
