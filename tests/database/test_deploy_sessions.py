"""A release beside other sessions: locks that are held, full connection limits, several runners."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from occupancy_db import maintenance
from occupancy_db.backup.configuration import as_user
from occupancy_db.backup.sets import Store
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.release import precheck, protocol, verification, watch
from occupancy_db.schema import privileges, runner
from occupancy_db.settings import Settings
from tests.database.conftest import HEAD
from tests.database.migration_host import MigrationHost
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.releases import DATA, EXPAND, Release, failure, revision
from tests.waiting import wait_for_async


async def test_a_user_that_cannot_log_in_is_not_a_lost_connection(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(EXPAND)
    prove, tried = privileges.verify_privileges, 0

    async def full(settings: Settings, *, older: bool) -> None:
        nonlocal tried
        tried += 1
        if tried > len(privileges.USERS):  # after the migration
            raise DatabaseError(ExitCode.UNREACHABLE, "too many connections", "")
        await prove(settings, older=older)

    monkeypatch.setattr(verification, "verify_privileges", full)
    error = await failure(migration_host, save=False)
    assert f"too many connections; {migration_host.database.name} was reverted to {HEAD}" in error.what


async def test_verification_waits_while_a_connection_limit_is_reached(migration_host: MigrationHost) -> None:
    """Disconnected dashboards connect again at once; that is not a missing privilege."""
    reader = as_user(migration_host.settings(), "occupancy_readonly", migration_host.backup)
    cluster = migration_host.database.cluster
    (limit,) = migration_host.query("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'occupancy_readonly'")
    cluster.execute("ALTER ROLE occupancy_readonly CONNECTION LIMIT 1")
    try:
        with pytest.raises(DatabaseError, match="too many connections"):
            async with connect(reader, "test"), connect(reader, "test"):
                pass
        holder = migration_host.connect("occupancy_readonly")
        refused = 'too many connections for role "occupancy_readonly"'
        before = cluster.log().count(refused)
        proof = asyncio.create_task(privileges.verify_privileges(reader))
        await wait_for_async(lambda: cluster.log().count(refused) > before, "a refused connection")
        assert not proof.done()
        holder.close()
        await proof
    finally:
        cluster.execute(f"ALTER ROLE occupancy_readonly CONNECTION LIMIT {limit}")


async def test_a_failure_never_releases_the_maintenance_lock(
    migration_host: MigrationHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure may happen at any moment of the watcher."""
    monkeypatch.setattr(watch, "POLL", 0)
    async with maintenance.maintenance_lock(migration_host.settings()) as guard:
        watching = watch.LockWatch(guard)
        for number in range(50):
            with pytest.raises(KeyError):
                async with watching.watching(0):
                    await asyncio.sleep(number / 10_000)
                    raise KeyError
        held = "SELECT count(*) FROM pg_locks WHERE relation = 'public.maintenance_lock'::regclass"
        assert await guard.scalar(text(held)) == 1


async def test_the_time_to_wait_for_a_lock_begins_with_the_first_refusal(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precheck, "LONG_TRANSACTION", 3600)  # the transaction may be old on a busy machine
    slow = "DO $$ BEGIN PERFORM pg_sleep(0.2); PERFORM pg_sleep(1) FROM sensor_readings LIMIT 1; END $$"
    release(r801_slow=revision("801_slow", HEAD, slow, "ALTER TABLE predictions ADD COLUMN place text"))
    holder = migration_host.connect(application_name="a report")
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE predictions IN ACCESS SHARE MODE")

    # The trial in an empty database runs the same statement.
    attempt = """
        SELECT max(query_start) FROM pg_stat_activity
        WHERE query LIKE 'DO $$ BEGIN PERFORM pg_sleep(0.2)%' AND datname = current_database()
    """

    def started() -> Any:
        return migration_host.query(attempt)[0]

    async def let_go() -> None:
        first = await wait_for_async(started, "the first attempt")
        # Parsing and executing a statement each set query_start; an attempt takes more than a second.
        later = first + timedelta(seconds=1)
        await wait_for_async(lambda: (started() or first) > later, "the second attempt")
        holder.close()

    # An attempt takes longer than the time to wait.
    done, _ = await asyncio.gather(migration_host.deploy(save=False, wait=1), let_go())
    assert done.revisions[0].attempts > 1
    assert done.slowest_lock_ms == 0  # no session waited for the revision


# Keeps its lock until another session has waited for a second, so that the watcher has seen that session.
HELD = """DO $$ BEGIN
    IF EXISTS (SELECT FROM sensor_readings) THEN
        LOCK TABLE predictions;
        FOR attempt IN 1 .. 600 LOOP
            EXIT WHEN EXISTS (
                SELECT FROM pg_locks WHERE NOT granted AND relation = 'predictions'::regclass
                AND waitstart < clock_timestamp() - interval '1 s'
            );
            PERFORM pg_sleep(0.1);
        END LOOP;
    END IF;
END $$"""


async def test_the_wait_of_a_session_for_a_revision_is_measured(
    migration_host: MigrationHost, release: Release
) -> None:
    release(r801_slow=revision("801_slow", HEAD, HELD))
    held = """
        SELECT count(*) FROM pg_locks
        WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'predictions'::regclass
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """

    async def ask() -> None:
        await wait_for_async(lambda: migration_host.query(held) != (0,), "the lock of the revision")
        await asyncio.to_thread(migration_host.query, "SELECT count(*) FROM predictions")

    done, _ = await asyncio.gather(migration_host.deploy(save=False), ask())
    assert done.slowest_lock_ms > 100


async def test_a_runner_checks_again_after_another_runner_has_finished(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(EXPAND, DATA)
    look, overtaken = precheck.check_database, False

    async def overtake(*arguments: Any) -> precheck.DatabaseState:
        nonlocal overtaken
        state = await look(*arguments)
        if not overtaken:  # between the first check and the lock of the sets
            overtaken = True
            await runner.upgrade(migration_host.settings(), EXPAND.stem)
        return state

    monkeypatch.setattr(protocol, "check_database", overtake)
    done = await migration_host.deploy()
    assert (done.before, done.applied) == (EXPAND.stem, [DATA.stem])
    assert done.backup is not None
    (saved,) = Store(migration_host.backup.dir).sets(migration_host.database.name)
    assert saved.manifest is not None
    assert saved.manifest.contents.revision == EXPAND.stem


async def test_a_deployment_ends_when_it_loses_the_maintenance_lock(
    migration_host: MigrationHost, release: Release
) -> None:
    release(
        r801_long=revision(
            "801_long", HEAD, "CREATE TABLE t ()", "SELECT pg_sleep(3600) FROM sensor_readings LIMIT 1"
        )
    )
    lost = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'occupancy-db maintenance lock' AND datname = current_database()
          AND EXISTS (
              SELECT FROM pg_stat_activity
              WHERE query LIKE 'SELECT pg_sleep(3600)%' AND state = 'active' AND datname = current_database()
          )
    """

    async def end_it() -> None:
        await wait_for_async(lambda: migration_host.query(lost), "the session that holds the lock")

    error, _ = await asyncio.gather(failure(migration_host, save=False), end_it())
    assert error.code is ExitCode.UNREACHABLE
    assert f"was at {HEAD} when the connection was lost" in error.what
    assert "'occupancy-db current'" in error.hint
    sleeping = (
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(3600)%'"
    )
    await wait_for_async(
        lambda: migration_host.query(sleeping) is None, "the end of the revision's statement"
    )
    assert migration_host.query("SELECT version_num, to_regclass('t') FROM alembic_version") == (HEAD, None)


async def test_one_of_several_runners_backs_up_and_applies_and_the_others_wait(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND)
    runs = await asyncio.gather(*(migration_host.deploy(wait=60) for _ in range(3)))
    assert sorted(len(done.applied) for done in runs) == [0, 0, 1]
    assert len(Store(migration_host.backup.dir).sets(migration_host.database.name)) == 1


async def test_a_blocking_session_is_named_before_the_deployment_begins(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(EXPAND)
    monkeypatch.setattr(precheck, "LONG_TRANSACTION", 0.1)
    holder = migration_host.connect("occupancy_app", application_name="a forgotten shell")
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM predictions")
    old = """
        SELECT 1 FROM pg_stat_activity
        WHERE application_name = 'a forgotten shell' AND clock_timestamp() - xact_start > interval '0.2 s'
    """
    as_superuser = migration_host.database.cluster.connect(migration_host.database.name)
    with as_superuser.cursor() as cursor:

        def is_old() -> Any:
            cursor.execute(old)
            return cursor.fetchone()

        await wait_for_async(is_old, "a transaction of 0.2 s")
    as_superuser.close()
    error = await failure(migration_host)
    assert error.code is ExitCode.LOCKED
    assert f'pid {holder.info.backend_pid}, "a forgotten shell", user occupancy_app' in error.what
    assert "idle in transaction" in error.what
    assert Store(migration_host.backup.dir).sets(migration_host.database.name) == []
    holder.close()
    there = "SELECT pid FROM pg_stat_activity WHERE application_name = 'a forgotten shell'"
    await wait_for_async(lambda: migration_host.query(there) is None, "the end of the session")
    monkeypatch.setattr(precheck, "LONG_TRANSACTION", 3600)
    assert (await migration_host.deploy(save=False)).applied == [EXPAND.stem]


async def test_a_lock_is_requested_again_and_its_holder_is_named(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precheck, "LONG_TRANSACTION", 3600)  # the transaction may be old on a busy machine
    release(EXPAND)
    holder = migration_host.connect("occupancy_app", application_name="a report")
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM predictions")
    error = await failure(migration_host, save=False, wait=1)
    assert error.code is ExitCode.LOCKED
    named = (
        f'pid {holder.info.backend_pid}, "a report", user occupancy_app, '
        "idle in transaction, transaction open for "
    )
    assert f"blocked by {named}" in error.what
    assert f"is at {HEAD}, as before" in error.what

    async def let_go() -> None:
        waits = "SELECT max(waitstart) FROM pg_locks WHERE NOT granted AND relation = 'predictions'::regclass"

        def waiting() -> Any:
            return migration_host.query(waits)[0]

        first = await wait_for_async(waiting, "the first attempt")
        await wait_for_async(lambda: (waiting() or first) > first, "the second attempt")
        holder.close()

    said: list[str] = []
    done, _ = await asyncio.gather(migration_host.deploy(said.append, save=False), let_go())
    assert done.applied == [EXPAND.stem]
    assert done.revisions[0].attempts > 1
    assert any(f"waited for {named}" in line for line in said)
