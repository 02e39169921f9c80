"""Migrations as a release brings them: one at a time, beside writers, with a look and a backup before them.

A failure leaves what was there, or says what is there and which commands lead on. No backup is restored here.
"""

import asyncio
import contextlib
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from alembic import command
from alembic.script import Script
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db import maintenance
from occupancy_db.backup import contents, create
from occupancy_db.backup.configuration import BackupSettings, as_user
from occupancy_db.backup.rehearsal import throwaway_cluster
from occupancy_db.backup.run import Run, Say
from occupancy_db.backup.sets import Store
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by, explain, task_group
from occupancy_db.maintenance import LOCK_WAIT, maintenance_lock
from occupancy_db.release.precheck import INVALID, State, look
from occupancy_db.schema import definitions, privileges, revisions, runner
from occupancy_db.schema.definitions import Schema
from occupancy_db.schema.privileges import BACKUP_USER, USERS
from occupancy_db.schema.revisions import Phase, UndeclaredError
from occupancy_db.schema.runner import script_directory
from occupancy_db.server import POSTGRES_MAJOR
from occupancy_db.settings import Environment, Settings

# Everybody queues behind who waits for a strong lock: ask briefly, and again later.
PATIENT = {**maintenance.SESSION, "lock_timeout": "100ms"}
_PAUSE = (0.1, 0.5)
_POLL = 0.05
_LONG_ATTEMPTS = 10
"""So often a refusal after work longer than the wait begins a new wait: a backfill has come further."""

_BACKUP_WAIT = 900.0
"""Seconds to wait for a backup or restore that is at work: it ends by itself."""

_WAITS = text("""
    SELECT (
        SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float
        FROM pg_locks WHERE NOT granted AND :pid = ANY (pg_blocking_pids(pid))
    ) AS behind, (
        SELECT string_agg(format('pid %s, "%s", user %s', pid, application_name, usename), '; ' ORDER BY pid)
        FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid))
    ) AS before
""")


async def plan(settings: Settings, backup: BackupSettings) -> dict[str, Any]:
    """What deploy() would do, and what it would stop at; changes nothing.

    Returns:
        ``database``, ``from``, ``to``, ``pending`` (``revision``, ``phase``, ``locks``, ``reversible`` and
        ``sql`` of each), ``ahead``, ``problems``, ``warnings``.

    Raises:
        DatabaseError: no connection.
    """
    async with connect(settings, "occupancy-db migrate", server_settings=PATIENT) as connection:
        state = await look(connection, settings, backup)
    config = runner.alembic_config()
    return {
        "database": settings.database,
        "from": state.revision,
        "to": state.pending[-1].revision if state.pending else state.revision,
        "pending": [{**_declared(script), "sql": revisions.sql(config, script)} for script in state.pending],
        "ahead": state.ahead,
        "problems": [str(problem) for problem in state.problems],
        "warnings": state.warnings,
    }


async def deploy(
    settings: Settings, backup: BackupSettings, say: Say, *, wait: float = LOCK_WAIT, save: bool = True
) -> dict[str, Any]:
    """Bring the schema to this release's newest revision; one that is there already is left alone.

    Args:
        settings: The database, as its owner.
        backup: Where backup sets, throwaway clusters and the other users' passwords are.
        say: Takes a line for a person.
        wait: Seconds to wait for another runner, and for the locks of each revision.
        save: Whether a verified backup set is made first. An empty database needs none.

    Returns:
        ``database``, ``from``, ``to``, ``applied`` and ``reverted`` (ids), ``ahead`` (of a newer release),
        ``revisions`` (``revision``, ``phase``, ``locks``, ``reversible``, ``seconds``, ``attempts``),
        ``slowest_lock_ms`` (the longest that anybody was seen waiting behind a revision), ``backup`` (an id
        or None), ``warnings``, ``phases`` (seconds).

    Raises:
        DatabaseError: it did not work; it says what is the state of the schema, and which commands lead on.
    """
    work = Run(Store(backup.dir), settings.database, say)
    async with connect(settings, "occupancy-db migrate", server_settings=PATIENT) as connection:
        state = await look(connection, settings, backup)
    result: dict[str, Any] = {
        "database": settings.database,
        "from": state.revision,
        "to": state.revision,
        "applied": [],
        "reverted": [],
        "ahead": state.ahead,
        "revisions": [],
        "slowest_lock_ms": 0.0,
        "backup": None,
        "warnings": state.warnings,
        "phases": work.phases,
    }
    state.insist()
    if not state.pending and not state.unproved:
        return result
    say(f"look: {len(state.pending)} pending, nothing in the way")
    async with AsyncExitStack() as locks:
        expected = None
        if state.revision is not None:
            state, expected, result["backup"] = await _prepare(settings, backup, work, state, save, locks)
            result["warnings"] = state.warnings
        for warning in state.warnings:
            say(f"note: {warning}")
        prepared = state.revision
        with work.phase("lock"):
            guard = await locks.enter_async_context(maintenance_lock(settings, wait))
        # Somebody else may have been at work since.
        state = await look(guard, settings, backup)
        state.insist()
        result["from"] = result["to"] = state.revision
        if state.pending and state.revision != prepared:
            raise DatabaseError(
                ExitCode.LOCKED,
                f"{settings.database} went from {prepared or 'base'} to {state.revision or 'base'} meanwhile",
                "Somebody else migrates it: run again when that has ended. Nothing was changed.",
            )
        watch = Watch(guard)
        try:
            for script in state.pending:
                with work.phase(script.revision) as notes:
                    began = time.monotonic()
                    # What is proved of a new database is not its users' rights: they come later.
                    unproved = state.revision is not None
                    attempts = await _step(settings, script, command.upgrade, wait, watch, unproved=unproved)
                    if attempts > 1:
                        notes.append(f"{attempts} attempts")
                result["applied"].append(script.revision)
                result["revisions"].append(
                    {
                        **_declared(script),
                        "seconds": round(time.monotonic() - began, 3),
                        "attempts": attempts,
                    }
                )
            if state.pending or state.unproved:
                with work.phase("verify") as notes:
                    notes += await _verify(guard, settings, backup, state, expected)
        except Exception as error:
            result["slowest_lock_ms"] = watch.slowest_ms
            raise await _failure(error, guard, settings, state, result, wait) from error
        result["to"] = await runner.current_revision(guard)
        result["slowest_lock_ms"] = watch.slowest_ms
        if state.unproved and expected is None:
            result["warnings"].append(
                "an earlier run has not proved the schema, and here it can't be: see the host"
            )
            return result
        with contextlib.suppress(DBAPIError):  # then the next run proves it once more
            await guard.execute(text(revisions.remember(revisions.chain(script_directory(), result["to"]))))
    return result


async def take_back(
    settings: Settings, revision: str, *, wait: float = LOCK_WAIT, lose_data: bool = False
) -> runner.Outcome:
    """Take the schema back, one revision at a time, beside writers.

    Args:
        settings: The database, as its owner.
        revision: An id, ``base``, or how many steps, as in ``-1``.
        wait: Seconds to wait for another runner, and for the locks of each revision.
        lose_data: Whether production may lose the data that only these revisions can hold.

    Raises:
        DatabaseError: there is no such revision below, or production would lose data.
        sqlalchemy.exc.DBAPIError: a step failed; it is undone, those before it are not.
    """
    async with maintenance_lock(settings, wait) as guard:
        before = await runner.current_revision(guard)
        applied = revisions.chain(script_directory(), before) if before else []
        going = _going(applied, revision)[::-1]
        lossy = [script.revision for script in going if not _declared(script)["reversible"]]
        if lossy and settings.environment is Environment.PRODUCTION and not lose_data:
            raise DatabaseError(
                ExitCode.REFUSED,
                f"{', '.join(lossy)} cannot be taken back with all data, and {settings.where} is production",
                "Restore a backup set instead, or say --lose-data.",
            )
        watch = Watch(guard)
        for script in going:
            await _step(settings, script, command.downgrade, wait, watch)
        after = await runner.current_revision(guard)
    return runner.Outcome(before, after, [script.revision for script in going], [])


def _going(applied: list[Script], revision: str) -> list[Script]:
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


async def _prepare(
    settings: Settings, backup: BackupSettings, work: Run, state: State, save: bool, locks: AsyncExitStack
) -> tuple[State, Schema | None, str | None]:
    """What must be at hand before a database with something in it is touched: the target, and a way back.

    Returns:
        The database as it is then, the definitions that it should come to, and the backup set.
    """
    reason = _nowhere(settings, backup)
    if reason and save and state.pending and settings.environment is Environment.PRODUCTION:
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"no verified backup can be made here: {reason}",
            "Run 'occupancy-db migrate' on the host, or say --no-backup. Nothing was changed.",
        )
    if reason:
        state.warnings.append(f"no backup, and no comparison of definitions: {reason}")
        return state, None, None
    # To the end: another runner finds the work done, and makes no set of its own.
    await locks.enter_async_context(Store(backup.dir).lock(_BACKUP_WAIT))
    async with connect(settings, "occupancy-db migrate", server_settings=PATIENT) as connection:
        state = await look(connection, settings, backup)
    state.insist()
    if not state.pending and not state.unproved:
        return state, None, None
    with work.phase("rights") as notes:
        notes.append(f"tried as {', '.join(await _try_rights(settings, backup, state)) or 'nobody'}")
    with work.phase("compare") as notes:
        at_start, at_end = await _reference(backup, state)
        missing, more = at_start.drift(await _schema(settings))
        if missing:
            raise _drifted(f"the database is not what {state.revision} made it", missing)
        state.warnings += [f"beyond what {state.revision} made: {one}" for one in more]
        notes.append(f"as {state.revision} made it")
    if not state.pending:
        return state, at_end, None
    if not save:
        state.warnings.append("no backup: told so")
        return state, at_end, None
    with work.measured():
        reader = as_user(settings, BACKUP_USER, backup)
        made = await create.make(reader, backup, work)
        await create.prove(made, backup, work)
    return state, at_end, made.id


def _nowhere(settings: Settings, backup: BackupSettings) -> str | None:
    """Why there is no place for a backup set, or None if there is."""
    for directory in (backup.dir, backup.rehearsal_dir):
        if not os.access(directory, os.W_OK):
            return f"{directory} is not there, or not for us"
    if settings.postgres_user != BACKUP_USER and not (backup.secrets_dir / BACKUP_USER).exists():
        return f"the password of {BACKUP_USER} is not in {backup.secrets_dir}"
    if not shutil.which("initdb"):
        return f"the programs of PostgreSQL {POSTGRES_MAJOR} are not on PATH"
    return None


async def _reference(backup: BackupSettings, state: State) -> tuple[Schema, Schema]:
    """The definitions that the migrations make, before and after those that are pending."""
    async with throwaway_cluster(backup.rehearsal_dir, "postgres") as settings:
        async with connect(settings, "occupancy-db migrate", autocommit=True) as connection:
            for user in USERS:  # a migration may name them
                await connection.exec_driver_sql(f"CREATE ROLE {user}")
        try:
            await runner.upgrade(settings, state.revision or "base")
            before = await _schema(settings)
            await runner.upgrade(settings)
            return before, await _schema(settings)
        except Exception as error:
            known = _explained(error)
            what = f"tried in an empty database of their own, the migrations fail: {known.what}"
            raise DatabaseError(known.code, what, "The live database was not touched.") from error


async def _schema(settings: Settings) -> Schema:
    async with connect(settings, "occupancy-db migrate", server_settings=contents.SESSION) as connection:
        return await definitions.read(connection)


class Watch:
    """Who waits for a revision, and whom it waits for, as seen from another session.

    Attributes:
        slowest_ms: The longest that anybody was seen waiting behind a revision.
        before: Who was last seen to hold what a revision waited for.
    """

    def __init__(self, guard: AsyncConnection) -> None:
        """Args: guard: a session that has nothing else to do meanwhile."""
        self._guard = guard
        self.slowest_ms = 0.0
        self.before: str | None = None

    @asynccontextmanager
    async def over(self, pid: int) -> AsyncIterator[None]:
        """Watch a session for as long as the block takes; without the guard's lock the block is cancelled."""
        over = asyncio.Event()

        async def look() -> None:
            while not over.is_set():
                row = (await self._guard.execute(_WAITS, {"pid": pid})).one()
                self.slowest_ms = max(self.slowest_ms, round(row.behind * 1000, 1))
                self.before = row.before or self.before
                with contextlib.suppress(TimeoutError):  # the block goes on: look again
                    await asyncio.wait_for(over.wait(), _POLL)

        async with task_group() as group:
            watcher = group.create_task(look())
            try:
                yield
            except Exception:
                # The group would cancel a query: that costs the guard its session, and the lock with it.
                over.set()
                await asyncio.wait([watcher])
                raise
            over.set()


async def _step(
    settings: Settings,
    script: Script,
    run: Callable[..., None],
    wait: float,
    watch: Watch,
    *,
    unproved: bool = False,
) -> int:
    """Apply or take back one revision, as often as it takes; returns how often."""
    target = script.revision if run is command.upgrade else script.down_revision or "base"
    deadline = None
    attempt = 0
    while True:
        attempt += 1
        began = time.monotonic()
        # A session of its own: what an attempt has set in it ends with it.
        async with connect(settings, "occupancy-db migrations", server_settings=PATIENT) as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await connection.rollback()  # Alembic takes a transaction that is open for its caller's
            try:
                async with watch.over(pid):
                    await runner.with_alembic(connection, partial(run, revision=target), unproved=unproved)
                return attempt
            except Exception as error:
                if not caused_by(error, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    raise
                now = time.monotonic()
                worked = now - began > wait and attempt < _LONG_ATTEMPTS
                # From here on, and not from the beginning: the work before the lock may have taken an hour.
                if deadline is None or worked:
                    deadline = now + wait
                if now >= deadline:
                    raise DatabaseError(
                        ExitCode.LOCKED,
                        f"{script.revision} did not get its locks in {wait:g} s and {attempt} attempts; "
                        f"in the way: {watch.before or 'several sessions'}",
                        "Let it end, or end it with pg_terminate_backend.",
                    ) from error
        # Not in step with whatever it was that was in the way.
        await asyncio.sleep(random.uniform(*_PAUSE))  # noqa: S311


async def _verify(
    guard: AsyncConnection,
    settings: Settings,
    backup: BackupSettings,
    state: State,
    expected: Schema | None,
) -> list[str]:
    """Insist that the schema is what this release expects; returns notes for a person."""
    found = await runner.current_revision(guard)
    if found != state.head:
        raise DatabaseError(ExitCode.DIFFERENT, f"the revision is {found} instead of {state.head}", "")
    if invalid := (await guard.scalars(INVALID)).all():
        raise DatabaseError(ExitCode.FAILED, f"INVALID indexes: {', '.join(invalid)}", "Drop them.")
    notes = []
    if expected:
        missing, _ = expected.drift(await _schema(settings))
        if missing:
            raise _drifted(f"the database is not what {state.head} should make it", missing)
        notes.append("definitions as they should be")
    # Of a new database the users and their rights come later.
    if state.revision is not None:
        notes.append(f"tried as {', '.join(await _try_rights(settings, backup)) or 'nobody'}")
    return notes


async def _try_rights(settings: Settings, backup: BackupSettings, before: State | None = None) -> list[str]:
    """Prove the rights of those users whose passwords are here; returns their names.

    Args:
        settings: The database.
        backup: Where the passwords are.
        before: What the database is before its migrations, if these are still to come.
    """
    tried = [user for user in USERS if user == settings.postgres_user or (backup.secrets_dir / user).exists()]
    for user in tried:
        try:
            await privileges.prove(
                as_user(settings, user, backup), older=before is not None and bool(before.pending)
            )
        except Exception as error:
            known = _explained(error)
            raise DatabaseError(known.code, f"{user} was tried: {known.what}", known.hint) from error
    return tried


def _drifted(what: str, missing: list[str]) -> DatabaseError:
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return DatabaseError(
        ExitCode.DIFFERENT,
        f"{what}; it lacks {'; '.join(' '.join(one.split()) for one in missing[:5])}{more}",
        "Somebody changed it by hand: put that right first.",
    )


async def _failure(
    error: Exception,
    guard: AsyncConnection,
    settings: Settings,
    state: State,
    result: dict[str, Any],
    wait: float,
) -> Exception:
    """Take back what may be taken back, and say what is there and what leads on."""
    known = _explained(error)
    start = state.revision or "base"
    applied = [script for script in state.pending if script.revision in result["applied"]]
    failed = state.pending[len(applied) :][:1]
    recover = ["occupancy-db migrate"]
    # Nobody knows how far a step has come whose session was lost.
    lost = known.code is ExitCode.UNREACHABLE and (bool(failed) or not await _answers(guard))
    if lost:
        last = applied[-1].revision if applied else start
        outcome = f"{settings.database} was at {last} when the connection was lost"
        result["to"] = last
        recover.insert(0, "occupancy-db current")
    elif not applied:
        outcome = f"{settings.database} is at {start}, as before"
    elif all(one["reversible"] for one in result["revisions"]):
        try:
            for script in reversed(applied):
                await _step(settings, script, command.downgrade, wait, Watch(guard))
                result["reverted"].append(script.revision)
            outcome = f"{settings.database} was taken back to {start}"
        except Exception as second:
            outcome = f"and it could not be taken back to {start}: {_explained(second).what}"
            recover.insert(0, f"occupancy-db rollback --revision {start}")
    else:
        lossy = [one["revision"] for one in result["revisions"] if not one["reversible"]]
        outcome = f"{settings.database} stays at {applied[-1].revision}: taking back {lossy[0]} loses data"
        # Of what did not stand its proof that can't be said.
        if failed and all(one["phase"] != Phase.CONTRACT for one in result["revisions"]):
            outcome += "; the release before works on beside it"
    for script in failed:
        if _commits_midway(script):
            outcome += f"; what {script.revision} has done so far stays, and the next run takes it up"
    left = [script for script in applied if script.revision not in result["reverted"]]
    if applied and not lost:
        result["to"] = left[-1].revision if left else state.revision
    commands = " or ".join(f"'{one}'" for one in recover)
    hint = f"{known.hint} Then: {commands}".strip()
    if left and result["backup"]:
        recover.append(f"occupancy-db restore {result['backup']} --confirm {settings.database}")
        hint += f"; or, losing what was written since the backup, '{recover[-1]}'"
    hint += "."
    return DatabaseError(known.code, f"{known.what}; {outcome}", hint, {**result, "recover": recover})


async def _answers(guard: AsyncConnection) -> bool:
    try:
        await guard.execute(text("SELECT"))
    except SQLAlchemyError:
        return False
    return True


def _explained(error: Exception) -> DatabaseError:
    """An error in words; what nothing of ours knows comes from the revision's own Python."""
    what = f"{type(error).__name__}: {error}"
    return explain(error) or DatabaseError(ExitCode.FAILED, what, "That is a mistake in the revision.")


def _commits_midway(script: Script) -> bool:
    try:
        return revisions.sql(runner.alembic_config(), script).count("COMMIT;") > 1
    except Exception:  # its own Python failed, and would fail here, too
        return False


def _declared(script: Script) -> dict[str, Any]:
    """What a revision says of itself, as JSON; one that says nothing is expected the worst of."""
    try:
        one = revisions.declared(script)
    except UndeclaredError:
        return {"revision": script.revision, "phase": None, "locks": None, "reversible": False}
    return {"revision": one.id, "phase": one.phase, "locks": one.locks, "reversible": one.reversible}
