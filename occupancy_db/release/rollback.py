"""The rollback of revisions on request of the operator."""

import re

from alembic.script import Script

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.maintenance import LOCK_WAIT, maintenance_lock
from occupancy_db.release import steps
from occupancy_db.release.results import RevisionSummary
from occupancy_db.release.watch import LockWatch
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.runner import script_directory
from occupancy_db.settings import Environment, Settings


async def roll_back(
    settings: Settings, revision: str, *, wait: float = LOCK_WAIT, lose_data: bool = False
) -> runner.Outcome:
    """Revert the schema to an earlier revision, one revision at a time, beside clients.

    Args:
        settings: The database, as its owner.
        revision: An id, ``base``, or a number of steps, as in ``-1``.
        wait: Seconds to wait for the maintenance lock, and for the locks of each revision.
        lose_data: Whether production may lose the data that only these revisions can hold.

    Raises:
        DatabaseError: there is no such earlier revision, or production would lose data.
        sqlalchemy.exc.DBAPIError: a step failed; it is rolled back, those before it are not.
    """
    async with maintenance_lock(settings, wait) as guard:
        before = await runner.current_revision(guard)
        applied = revisions.up_to(script_directory(), before) if before else []
        going = _revisions_above(applied, revision)[::-1]
        lossy = [script.revision for script in going if not RevisionSummary.of(script).reversible]
        if lossy and settings.environment is Environment.PRODUCTION and not lose_data:
            raise DatabaseError(
                ExitCode.REFUSED,
                f"{', '.join(lossy)} cannot be reverted without losing data, and {settings.where} is "
                "production",
                "Restore a backup set instead, or use --lose-data.",
            )
        watch = LockWatch(guard)
        for script in going:
            await steps.revert(settings, script, wait, watch)
        after = await runner.current_revision(guard)
    return runner.Outcome(before, after, [script.revision for script in going], [])


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
