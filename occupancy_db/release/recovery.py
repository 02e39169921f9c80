"""Recovery from a failed deployment: revert revisions if no data is lost, and describe the state."""

from dataclasses import dataclass, field

from alembic.script import Script
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.release import steps
from occupancy_db.release.precheck import DatabaseState
from occupancy_db.release.results import Deployment
from occupancy_db.release.verification import explained
from occupancy_db.release.watch import LockWatch
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.revisions import Phase
from occupancy_db.settings import Settings


@dataclass
class _Recovery:
    """The state after a failed deployment.

    Attributes:
        outcome: The state of the schema, for the operator.
        commands: The commands to run next, in order of preference.
    """

    outcome: str
    commands: list[str] = field(default_factory=lambda: ["occupancy-db migrate"])


async def recover(
    error: Exception,
    guard: AsyncConnection,
    settings: Settings,
    state: DatabaseState,
    deployment: Deployment,
    wait: float,
) -> DatabaseError:
    """Revert the applied revisions if that loses no data, and describe the state.

    Args:
        error: Why the deployment failed.
        guard: A session that works under the maintenance lock.
        settings: The database, as its owner.
        state: The database before the deployment.
        deployment: What was done; its ``after`` and ``reverted`` are brought up to date.
        wait: Seconds to wait for the locks of each revision.

    Returns:
        The error for the operator. Its details are the deployment and ``recover``, the commands to run
        next.
    """
    known = explained(error)
    applied = state.pending[: len(deployment.revisions)]
    failed = state.pending[len(applied) :][:1]
    # If the session of a revision was lost, it is not known whether the revision was committed.
    lost = known.code is ExitCode.UNREACHABLE and (bool(failed) or not await _answers(guard))
    if lost:
        recovery = _after_lost_connection(settings, state, deployment)
    elif not applied:
        recovery = _Recovery(f"{settings.database} is at {state.revision or 'base'}, as before")
    elif all(one.summary.reversible for one in deployment.revisions):
        recovery = await _revert(guard, settings, state, deployment, applied, wait)
    else:
        recovery = _after_irreversible(settings, deployment, bool(failed))
    for script in failed:
        if _commits_midway(script):
            recovery.outcome += f"; what {script.revision} has committed stays, and the next run continues"
    left = [script for script in applied if script.revision not in deployment.reverted]
    if applied and not lost:
        deployment.after = left[-1].revision if left else state.revision
    commands = " or ".join(f"'{command}'" for command in recovery.commands)
    hint = f"{known.hint} Then: {commands}".strip()
    if left and deployment.backup:
        recovery.commands.append(f"occupancy-db restore {deployment.backup} --confirm {settings.database}")
        hint += f"; or, losing what was written since the backup, '{recovery.commands[-1]}'"
    details = {**deployment.as_dict(), "recover": recovery.commands}
    return DatabaseError(known.code, f"{known.what}; {recovery.outcome}", f"{hint}.", details)


def _after_lost_connection(settings: Settings, state: DatabaseState, deployment: Deployment) -> _Recovery:
    last = deployment.applied[-1] if deployment.revisions else state.revision or "base"
    deployment.after = last
    recovery = _Recovery(f"{settings.database} was at {last} when the connection was lost")
    recovery.commands.insert(0, "occupancy-db current")
    return recovery


async def _revert(
    guard: AsyncConnection,
    settings: Settings,
    state: DatabaseState,
    deployment: Deployment,
    applied: list[Script],
    wait: float,
) -> _Recovery:
    start = state.revision or "base"
    try:
        for script in reversed(applied):
            await steps.revert(settings, script, wait, LockWatch(guard))
            deployment.reverted.append(script.revision)
    except Exception as second:
        recovery = _Recovery(f"and it could not be reverted to {start}: {explained(second).what}")
        recovery.commands.insert(0, f"occupancy-db rollback --revision {start}")
        return recovery
    return _Recovery(f"{settings.database} was reverted to {start}")


def _after_irreversible(settings: Settings, deployment: Deployment, step_failed: bool) -> _Recovery:
    lossy = [one.summary.revision for one in deployment.revisions if not one.summary.reversible]
    outcome = f"{settings.database} stays at {deployment.applied[-1]}: reverting {lossy[0]} loses data"
    # If the verification failed instead of a revision, it is not known whether the old release works.
    if step_failed and all(one.summary.phase != Phase.CONTRACT for one in deployment.revisions):
        outcome += "; the previous release works with it"
    return _Recovery(outcome)


async def _answers(guard: AsyncConnection) -> bool:
    try:
        await guard.execute(text("SELECT"))
    except SQLAlchemyError:
        return False
    return True


def _commits_midway(script: Script) -> bool:
    """Return whether a revision commits before its end, so that a failure leaves some of its changes."""
    try:
        return revisions.upgrade_sql(runner.alembic_config(), script).count("COMMIT;") > 1
    except Exception:  # the Python code of the revision fails here, too
        return False
