"""The deployment of a release's migrations: pre-check, backup, one revision at a time, verification.

Clients read and write meanwhile. A failure leaves the database unchanged, or the error names its state and
the commands to run next. No backup set is restored here.
"""

import contextlib
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup import create
from occupancy_db.backup.configuration import BackupSettings, as_user
from occupancy_db.backup.copying import read_definitions
from occupancy_db.backup.programs import missing_programs
from occupancy_db.backup.progress import Announce, Progress
from occupancy_db.backup.sets import Store
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.maintenance import LOCK_WAIT, maintenance_lock
from occupancy_db.release import steps
from occupancy_db.release.precheck import DatabaseState, check_database
from occupancy_db.release.recovery import recover
from occupancy_db.release.results import AppliedRevision, Deployment, RevisionSummary
from occupancy_db.release.steps import BRIEF_LOCK_SETTINGS, PAUSE
from occupancy_db.release.verification import (
    drift_error,
    reference_schemas,
    try_privileges,
    verify,
)
from occupancy_db.release.watch import LockWatch
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.definitions import Definitions
from occupancy_db.schema.privileges import BACKUP_USER
from occupancy_db.settings import Environment, Settings

_BACKUP_WAIT = 900.0
"""Seconds to wait for a backup or restore that is running: it ends by itself."""


@dataclass(frozen=True)
class _Prepared:
    """The state and the backup before the first revision is applied.

    Attributes:
        state: The database.
        expected: The definitions that it should have after the deployment; None if they are not known.
        backup: Id of the backup set that was made; None if none was made.
    """

    state: DatabaseState
    expected: Definitions | None = None
    backup: str | None = None


async def deploy(
    settings: Settings,
    backup: BackupSettings,
    announce: Announce,
    *,
    wait: float = LOCK_WAIT,
    save: bool = True,
) -> Deployment:
    """Bring the schema to this release's newest revision; a database at this revision is not changed.

    Args:
        settings: The database, as its owner.
        backup: Where backup sets, throwaway clusters and the other users' passwords are.
        announce: Takes a line for the operator.
        wait: Seconds to wait for the maintenance lock, and for the locks of each revision.
        save: Whether a verified backup set is made first. An empty database needs none.

    Raises:
        DatabaseError: the deployment failed; the error names the state of the schema, and the commands to
            run next.
    """
    progress = Progress(Store(backup.dir), settings.database, announce)
    state = await _check(settings, backup, wait)
    state.raise_problems()
    deployment = Deployment(
        settings.database, state.revision, state.revision, state.ahead, state.warnings, progress.phases
    )
    if not state.pending and not state.unverified:
        return deployment
    announce(f"look: {len(state.pending)} pending, no problems found")
    async with AsyncExitStack() as locks:
        prepared = _Prepared(state)
        if state.revision is not None:
            prepared = await _prepare(settings, backup, progress, state, save, wait, locks)
        deployment.backup, deployment.warnings = prepared.backup, prepared.state.warnings
        for warning in deployment.warnings:
            announce(f"note: {warning}")
        with progress.phase("lock"):
            guard = await locks.enter_async_context(maintenance_lock(settings, wait))
        # Another session may have changed the database since the first check.
        state = await check_database(guard, settings, backup)
        state.raise_problems()
        deployment.before = deployment.after = state.revision
        _refuse_if_overtaken(settings, prepared.state, state)
        watch = LockWatch(guard)
        try:
            await _apply(settings, state, progress, deployment, watch, wait)
            if state.pending or state.unverified:
                with progress.phase("verify") as notes:
                    notes += await verify(guard, settings, backup, state, prepared.expected)
        except Exception as error:
            deployment.slowest_lock_ms = watch.slowest_ms
            raise await recover(error, guard, settings, state, deployment, wait) from error
        deployment.after = await runner.current_revision(guard)
        deployment.slowest_lock_ms = watch.slowest_ms
        await _record_verification(guard, state, prepared, deployment)
    return deployment


async def _check(settings: Settings, backup: BackupSettings, wait: float) -> DatabaseState:
    """Check the database; wait for a lock that the revision of another runner holds."""

    async def attempt() -> DatabaseState:
        async with connect(
            settings, "occupancy-db migrate", server_settings=BRIEF_LOCK_SETTINGS
        ) as connection:
            return await check_database(connection, settings, backup)

    try:
        return await retry(attempt, catch=asyncpg.LockNotAvailableError, deadline=wait, pause=PAUSE)
    except RetryTimeoutError as timeout:
        raise timeout.failure.error from None


async def _prepare(
    settings: Settings,
    backup: BackupSettings,
    progress: Progress,
    state: DatabaseState,
    save: bool,
    wait: float,
    locks: AsyncExitStack,
) -> _Prepared:
    """Check a database that has a schema, determine its target schema, and make a backup set of it."""
    reason = await _no_backup_reason(settings, backup)
    if reason and save and state.pending and settings.environment is Environment.PRODUCTION:
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"no verified backup can be made here: {reason}",
            "Run 'occupancy-db migrate' on the host, or use --no-backup. Nothing was changed.",
        )
    if reason:
        state.warnings.append(f"no backup, and no comparison of definitions: {reason}")
        return _Prepared(state)
    # The lock is held until the deployment ends: another runner then finds nothing to do, and makes no set.
    await locks.enter_async_context(Store(backup.dir).lock(_BACKUP_WAIT))
    state = await _check(settings, backup, wait)
    state.raise_problems()
    if not state.pending and not state.unverified:
        return _Prepared(state)
    with progress.phase("rights") as notes:
        notes.append(
            f"privileges verified: {', '.join(await try_privileges(settings, backup, state)) or 'no user'}"
        )
    with progress.phase("compare") as notes:
        at_start, at_end = await reference_schemas(backup, state.revision)
        drift = at_start.drift(await read_definitions(settings), privileges=False)
        if drift.missing:
            raise drift_error(f"the schema is not that of revision {state.revision}", drift.missing)
        more = [*drift.changing, *drift.more]
        state.warnings += [f"not part of revision {state.revision}: {one}" for one in more]
        notes.append(f"the schema of {state.revision}")
    if not state.pending:
        return _Prepared(state, at_end)
    if not save:
        state.warnings.append("no backup was made, as requested")
        return _Prepared(state, at_end)
    with progress.measured():
        made = await create.make_set(as_user(settings, BACKUP_USER, backup), backup, progress)
        await create.verify_set(made, backup, progress)
    return _Prepared(state, at_end, made.id)


async def _no_backup_reason(settings: Settings, backup: BackupSettings) -> str | None:
    """Return why no backup set can be made here, or None if one can."""
    for directory in (backup.dir, backup.rehearsal_dir):
        if not os.access(directory, os.W_OK):
            return f"{directory} does not exist, or this user may not write to it"
    if settings.postgres_user != BACKUP_USER and not (backup.secrets_dir / BACKUP_USER).exists():
        return f"the password of {BACKUP_USER} is not in {backup.secrets_dir}"
    return await missing_programs()


def _refuse_if_overtaken(settings: Settings, prepared: DatabaseState, now: DatabaseState) -> None:
    if now.pending and now.revision != prepared.revision:
        raise DatabaseError(
            ExitCode.LOCKED,
            f"{settings.database} changed from {prepared.revision or 'base'} to {now.revision or 'base'} "
            "meanwhile",
            "Another process migrates it: run the command again when it has ended. Nothing was changed.",
        )


async def _apply(
    settings: Settings,
    state: DatabaseState,
    progress: Progress,
    deployment: Deployment,
    watch: LockWatch,
    wait: float,
) -> None:
    """Apply the pending revisions, and add each to the deployment when it is done."""
    for script in state.pending:
        with progress.phase(script.revision) as notes:
            began = time.monotonic()
            # The privileges of a new database are not verified, because its users are created later.
            unverified = state.revision is not None
            watch.blockers = None
            attempts = await steps.apply(settings, script, wait, watch, unverified=unverified)
            if attempts > 1:
                notes.append(f"{attempts} attempts")
                notes += [f"waited for {watch.blockers}"] if watch.blockers else []
        seconds = round(time.monotonic() - began, 3)
        deployment.revisions.append(AppliedRevision(RevisionSummary.of(script), seconds, attempts))


async def _record_verification(
    guard: AsyncConnection, state: DatabaseState, prepared: _Prepared, deployment: Deployment
) -> None:
    """Record in the database that its schema was verified."""
    if state.unverified and prepared.expected is None:
        deployment.warnings.append(
            "an earlier run has not verified the schema: run 'occupancy-db migrate' on the host"
        )
        return
    heads = [deployment.after] if deployment.after else []
    applied = revisions.up_to(runner.script_directory(), *heads)
    with contextlib.suppress(DBAPIError):  # then the next run verifies the schema once more
        await guard.execute(text(revisions.history_comment(applied)))
