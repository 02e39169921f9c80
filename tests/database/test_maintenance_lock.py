"""The maintenance lock: who can take it, what its session holds, and what happens when it is lost."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg2.errors
import pytest
from sqlalchemy import text

from occupancy_db.errors import DatabaseError, ExitCode, explain
from occupancy_db.maintenance import LOCK_KEY, LOCK_SESSION, hold_lock, maintenance_lock
from occupancy_db.settings import Settings
from tests.database.conftest import Database
from tests.database.users import NAMES, OWNER, grant, password
from tests.waiting import wait_for_async

HOLDERS = (OWNER, "occupancy_backup", "occupancy_restore")
RESTRICTED = [user for user in NAMES if user not in HOLDERS]
LOCK = "LOCK TABLE public.maintenance_lock IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"


@pytest.fixture
def granted(database: Database) -> Database:
    grant(database.cluster, database.name)
    return database


@pytest.fixture
def held(granted: Database) -> Iterator[int]:
    """The owner holds the lock, like a command that runs; yields the process ID of its session."""
    connection = granted.connect(application_name="a night shift")
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(LOCK)
    yield connection.info.backend_pid
    connection.close()


def settings_of(database: Database, user: str) -> Settings:
    changes = {"postgres_user": user, "postgres_password": password(user)}
    return Settings.model_validate(database.settings().model_dump() | changes)


def session(database: Database, user: str) -> Any:
    return database.cluster.connect(database.name, user, password(user))


@pytest.mark.parametrize("user", RESTRICTED)
@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_a_restricted_user_cannot_stop_maintenance_with_an_advisory_lock(
    granted: Database, user: str, function: str
) -> None:
    # In a database of a release before this one every user may call the function.
    granted.cluster.execute(f"GRANT EXECUTE ON FUNCTION {function}(bigint) TO {user}", database=granted.name)
    attacker = session(granted, user)
    with attacker.cursor() as cursor:
        cursor.execute(f"SELECT {function}({LOCK_KEY})")
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        assert cursor.fetchone() == (1,)
    done = granted.cli("partitions", "maintain", "--lock-wait", "0")
    attacker.close()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", RESTRICTED)
def test_a_restricted_user_cannot_lock_the_table(granted: Database, user: str) -> None:
    attacker = session(granted, user)
    attacker.autocommit = False
    for mode in ("ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"):
        with attacker.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f"LOCK TABLE public.maintenance_lock IN {mode} MODE")
        attacker.rollback()
    attacker.close()


def test_a_reader_of_the_table_does_not_stop_maintenance(granted: Database) -> None:
    reader = session(granted, "occupancy_readonly")
    reader.autocommit = False
    with reader.cursor() as cursor:
        cursor.execute("LOCK TABLE public.maintenance_lock IN ACCESS SHARE MODE")
    done = granted.cli("partitions", "maintain", "--lock-wait", "0")
    reader.close()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", HOLDERS)
async def test_the_users_of_the_tools_take_the_lock(granted: Database, user: str) -> None:
    async with hold_lock(settings_of(granted, user), wait=0):
        with pytest.raises(DatabaseError) as refused:
            async with hold_lock(granted.settings(), wait=0):
                pass
    assert refused.value.code is ExitCode.LOCKED
    assert f'"{LOCK_SESSION}", user {user}' in refused.value.what
    async with hold_lock(granted.settings(), wait=0):
        pass


def test_the_holder_is_named(granted: Database, held: int) -> None:
    refused = granted.cli("partitions", "maintain", "--lock-wait", "0")
    assert refused.returncode == ExitCode.LOCKED
    assert f'pid {held}, "a night shift", user {OWNER}' in refused.stderr


def test_a_tool_of_the_release_before_is_waited_for(granted: Database) -> None:
    """Releases before this one take an advisory lock. One of their jobs may run during the upgrade."""
    former = granted.connect(application_name="a former release")
    with former.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
    refused = granted.cli("partitions", "maintain", "--lock-wait", "0")
    former.close()
    assert refused.returncode == ExitCode.LOCKED
    assert f'"a former release", user {OWNER}' in refused.stderr


async def test_a_tool_of_the_release_before_waits(granted: Database) -> None:
    async with hold_lock(granted.settings()):
        former = granted.connect()
        with former.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY])
            assert cursor.fetchone() == (False,)
        former.close()


async def test_the_session_that_holds_the_lock_holds_no_snapshot(granted: Database) -> None:
    """A snapshot or a transaction ID would delay vacuum, and CREATE INDEX CONCURRENTLY for ever."""
    async with maintenance_lock(granted.settings()) as guard:
        query = text("""
            SELECT state, backend_xid, backend_xmin FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = :name
        """)
        (found,) = (await guard.execute(query, {"name": LOCK_SESSION})).tuples()
        assert found == ("idle in transaction", None, None)
        await guard.exec_driver_sql("CREATE INDEX CONCURRENTLY more ON room_transitions (to_room)")


async def test_the_work_ends_when_the_session_that_holds_the_lock_is_lost(granted: Database) -> None:
    async with maintenance_lock(granted.settings()) as guard:
        sleeping = asyncio.create_task(guard.execute(text("SELECT pg_sleep(3600)")))
        active = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)' AND state = 'active'"
        other = granted.connect()
        with other.cursor() as cursor:

            def works() -> Any:
                cursor.execute(active)
                return cursor.fetchall()

            await wait_for_async(works, "the statement under the lock")
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = %s AND datname = current_database()",
                [LOCK_SESSION],
            )
            assert cursor.fetchall() == [(True,)]
        with pytest.raises(Exception, match="connection") as lost:
            await sleeping
        other.close()
        known = explain(lost.value)
        assert known is not None
        assert known.code is ExitCode.UNREACHABLE


async def test_a_missing_table_is_created_for_the_same_users(granted: Database) -> None:
    granted.cluster.execute("DROP TABLE public.maintenance_lock", database=granted.name)
    assert granted.cli("partitions", "maintain").returncode == 0
    async with hold_lock(settings_of(granted, "occupancy_backup"), wait=0):
        pass
    for user in RESTRICTED:
        attacker = session(granted, user)
        with attacker.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f"BEGIN; {LOCK}")
        attacker.close()


async def test_without_the_table_the_advisory_lock_is_the_lock(granted: Database) -> None:
    granted.cluster.execute("DROP TABLE public.maintenance_lock", database=granted.name)
    backup = settings_of(granted, "occupancy_backup")
    async with hold_lock(backup, wait=0):
        with pytest.raises(DatabaseError) as refused:
            async with hold_lock(backup, wait=0):
                pass
        assert refused.value.code is ExitCode.LOCKED
        assert "user occupancy_backup" in refused.value.what


def test_autogenerate_does_not_drop_the_table(granted: Database) -> None:
    assert granted.cli("partitions", "maintain").returncode == 0  # creates the table if it is missing
    done = granted.alembic("check")
    assert done.returncode == 0, done.stderr + done.stdout
