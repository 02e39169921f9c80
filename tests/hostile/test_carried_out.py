"""What restricted users can do, and what goes on meanwhile: a writer, upkeep and a backup.

Each attack first proves that it was carried out. An attack that stops something names the limit that ends it,
and the test waits for that limit, which is set short for the user.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg2
import pytest

from tests.database.backup_host import LIVE
from tests.hostile.attackers import (
    EVERYBODY,
    OPERATORS,
    READERS,
    WRITERS,
    Scene,
    expect_error,
)
from tests.waiting import wait_for

SHORT = "5s"
"""A limit that a test waits for. It is set for the user before its session begins."""

IDLE = "idle_in_transaction_session_timeout"
STATEMENT = "statement_timeout"
JOB = "the job occupancy-users"


@dataclass(frozen=True)
class Attack:
    """An attack, and what ends it.

    Attributes:
        carry_out: Carries it out as a user, and proves that.
        users: Who can.
        limit: What ends it if it stops a writer, upkeep or a backup; empty if it stops nothing.
    """

    carry_out: Callable[[Scene, str], None]
    users: tuple[str, ...] = EVERYBODY
    limit: str = ""


ATTACKS: dict[str, Attack] = {}


def attack(
    *users: tuple[str, ...], limit: str = ""
) -> Callable[[Callable[[Scene, str], None]], Callable[[Scene, str], None]]:
    """Add a function to ATTACKS under its name."""

    def add(carry_out: Callable[[Scene, str], None]) -> Callable[[Scene, str], None]:
        names = tuple(name for group in users for name in group) or EVERYBODY
        ATTACKS[carry_out.__name__] = Attack(carry_out, names, limit)
        return carry_out

    return add


def held(scene: Scene, condition: str) -> int:
    """The number of locks of the attacker."""
    query = f"""
        SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'attacker' AND granted AND {condition}
    """
    return int(scene.superuser(query)[0][0])


# Locks


@attack(WRITERS, READERS)
def access_share_locks_of_all_tables(scene: Scene, user: str) -> None:
    tables = "sensor_readings, room_transitions, predictions, rooms, alembic_version, maintenance_lock"
    scene.run(user, "BEGIN", f"LOCK TABLE {tables} IN ACCESS SHARE MODE")
    assert held(scene, "mode = 'AccessShareLock' AND relation = 'public.maintenance_lock'::regclass") == 1


def lock_of_the_readings(mode: str) -> Callable[[Scene, str], None]:
    def carry_out(scene: Scene, user: str) -> None:
        scene.limit(user, IDLE, SHORT)
        session = scene.run(user, "BEGIN", f"LOCK TABLE sensor_readings IN {mode} MODE")
        with session.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND granted")
            assert (cursor.fetchone() or (0,))[0] > 0

    return carry_out


for mode in ("ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"):
    ATTACKS[f"lock {mode}"] = Attack(lock_of_the_readings(mode), WRITERS, IDLE)
for mode in ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"):
    ATTACKS[f"lock {mode}"] = Attack(lock_of_the_readings(mode), WRITERS, IDLE)


@attack(WRITERS)
def row_locks_of_all_readings(scene: Scene, user: str) -> None:
    scene.run(
        user, "BEGIN", "SELECT id FROM sensor_readings FOR UPDATE", "SELECT id FROM predictions FOR UPDATE"
    )
    assert held(scene, "mode = 'RowShareLock' AND relation = 'public.sensor_readings'::regclass") == 1


@attack(WRITERS)
def an_open_transaction_with_readings(scene: Scene, user: str) -> None:
    scene.run(
        user,
        "BEGIN",
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (now(), 'office', 'open', true, 'open')",
        "UPDATE sensor_readings SET confidence = 0.5 WHERE source_entity = 'hostile'",
    )
    assert held(scene, "mode = 'RowExclusiveLock' AND relation = 'public.sensor_readings'::regclass") == 1


# Sessions and statements


@attack()
def an_old_snapshot(scene: Scene, user: str) -> None:
    session = scene.run(
        user, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1", "SELECT pg_export_snapshot()"
    )
    scene.wait_until(
        f"SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = {session.info.backend_pid}",
        "the snapshot",
    )


@attack(WRITERS, READERS)
def a_serializable_transaction_that_reads_everything(scene: Scene, user: str) -> None:
    scene.run(user, "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE", "SELECT count(*) FROM sensor_readings")
    assert held(scene, "mode = 'SIReadLock'") > 0


@attack()
def as_many_sessions_as_allowed(scene: Scene, user: str) -> None:
    full = f'too many connections for role "{user}"'
    with pytest.raises(psycopg2.OperationalError, match=full):
        for _ in range(1000):
            scene.session(user)


@attack(limit=STATEMENT)
def pg_sleep(scene: Scene, user: str) -> None:
    scene.limit(user, STATEMENT, SHORT)
    pid = scene.begin(user, "SELECT pg_sleep(3600)")
    wait_for(lambda: scene.state(pid).get("wait_event") == "PgSleep", "the sleep")


@attack(limit=STATEMENT)
def an_endless_loop(scene: Scene, user: str) -> None:
    scene.limit(user, STATEMENT, SHORT)
    pid = scene.begin(user, "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
    wait_for(lambda: scene.state(pid).get("state") == "active", "the loop")


@attack(limit=JOB)
def a_session_that_lifts_its_limits(scene: Scene, user: str) -> None:
    scene.limit(user, STATEMENT, "1s")
    pid = scene.begin(user, "SET statement_timeout = 0; SELECT pg_sleep(3600)")
    wait_for(lambda: scene.state(pid).get("wait_event") == "PgSleep", "the sleep")


@attack(limit=JOB)
def an_idle_transaction_that_lifts_its_limit(scene: Scene, user: str) -> None:
    scene.limit(user, IDLE, "1s")
    scene.run(user, f"SET {IDLE} = 0", "BEGIN", "SELECT 1")
    (state,) = scene.superuser("SELECT state FROM pg_stat_activity WHERE application_name = 'attacker'")
    assert state == ("idle in transaction",)


@attack(limit=STATEMENT)
def a_client_that_does_not_read_its_result(scene: Scene, user: str) -> None:
    scene.limit(user, STATEMENT, SHORT)
    pid = scene.begin(user, "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
    wait_for(lambda: scene.state(pid).get("wait_event") == "ClientWrite", "a full connection")


@attack(WRITERS, READERS)
def open_cursors(scene: Scene, user: str) -> None:
    session = scene.run(
        user,
        "BEGIN",
        "DECLARE one CURSOR FOR SELECT * FROM sensor_readings",
        "DECLARE two CURSOR WITH HOLD FOR SELECT * FROM sensor_readings",
        "COMMIT",
    )
    with session.cursor() as cursor:
        cursor.execute("SELECT name, is_holdable FROM pg_cursors")
        assert cursor.fetchall() == [("two", True)]


@attack()
def temporary_files(scene: Scene, user: str) -> None:
    scene.limit(user, "temp_file_limit", "10MB")
    session = scene.session(user)
    with session.cursor() as cursor, expect_error("53400"):
        cursor.execute(
            "SELECT n FROM (SELECT repeat('x', 1000) || n AS n FROM generate_series(1, 100000) AS n) AS t "
            "ORDER BY n"
        )
    with session.cursor() as cursor, expect_error("53400"):
        cursor.execute(
            "BEGIN; DECLARE mine CURSOR WITH HOLD FOR "
            "SELECT repeat('x', 1000) FROM generate_series(1, 100000); COMMIT"
        )


@attack()
def notifications_that_nobody_reads(scene: Scene, user: str) -> None:
    scene.run(user, "LISTEN mine", "BEGIN")
    sender = scene.run(
        user, "SELECT pg_notify('mine', repeat('x', 7000) || n) FROM generate_series(1, 5000) AS n"
    )
    with sender.cursor() as cursor:
        cursor.execute("SELECT pg_notification_queue_usage() > 0")
        assert cursor.fetchone() == (True,)


@attack()
def messages_in_the_write_ahead_log(scene: Scene, user: str) -> None:
    ((before,),) = scene.superuser("SELECT pg_current_wal_insert_lsn()")
    scene.run(
        user,
        "SELECT count(pg_logical_emit_message(false, '', repeat('x', 100000))) FROM generate_series(1, 500)",
    )
    assert scene.superuser(f"SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn > 40000000") == [(True,)]


@attack()
def the_end_of_sessions_of_the_same_user(scene: Scene, user: str) -> None:
    target = scene.session("occupancy_app" if user == "planner" else user)
    session = scene.run(user, f"SELECT pg_terminate_backend({target.info.backend_pid})")
    with session.cursor() as cursor:
        cursor.execute("SELECT 1")
    wait_for(lambda: scene.state(target.info.backend_pid) == {}, "the end of the session")


# Changes of its own login


def change_of_settings(statement: str, setting: str) -> Callable[[Scene, str], None]:
    def carry_out(scene: Scene, user: str) -> None:
        options = "-c default_transaction_read_only=off"
        scene.run(user, statement.format(user), session=scene.session(user, options=options))
        query = f"""
            SELECT count(*) FROM pg_db_role_setting
            WHERE setrole = '{user}'::regrole AND '{setting}' = ANY (setconfig)
        """
        assert scene.superuser(query) == [(1,)]

    return carry_out


for statement, setting in {
    "ALTER ROLE {} SET default_transaction_read_only = on": "default_transaction_read_only=on",
    "ALTER ROLE {} SET statement_timeout = '1ms'": "statement_timeout=1ms",
    "ALTER ROLE {} SET search_path = nowhere": "search_path=nowhere",
    "ALTER ROLE {} SET local_preload_libraries = 'nothing'": "local_preload_libraries=nothing",
    f"ALTER ROLE {{}} IN DATABASE {LIVE} SET lock_timeout = 0": "lock_timeout=0",
}.items():
    # Readers have read-only transactions anyway.
    users = {"users": WRITERS} if "read_only" in setting else {}
    ATTACKS[statement.format("itself")] = Attack(change_of_settings(statement, setting), limit=JOB, **users)


@attack(limit=JOB)
def another_password(scene: Scene, user: str) -> None:
    session = scene.session(user, options="-c default_transaction_read_only=off")
    scene.run(user, f"ALTER ROLE {user} PASSWORD 'of a burglar'", session=session)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        scene.session(user)


@attack(READERS)
def revoking_its_own_privileges(scene: Scene, user: str) -> None:
    """PostgreSQL only warns that these privileges were granted by others."""
    role = next((one["role"] for one in OPERATORS if one["name"] == user), user)
    session = scene.session(user, options="-c default_transaction_read_only=off")
    scene.run(user, f"DROP OWNED BY {role}", session=session)
    assert "no privileges could be revoked" in "".join(session.notices)


CASES = [
    pytest.param(name, user, id=f"{name} as {user}", marks=pytest.mark.attack(name.split()[0]))
    for name, one in ATTACKS.items()
    for user in one.users
]


def go_on(scene: Scene, user: str, record_property: Callable[[str, object], None]) -> None:
    """A writer, upkeep and a backup succeed."""
    try:
        # The application that has taken all its own connections has stopped only itself.
        scene.write("planner" if user == "occupancy_app" else "occupancy_app")
    except psycopg2.Error:
        record_property("writers stopped", 1)
        raise
    done = scene.maintain()
    assert done.returncode == 0, done.stderr
    made = scene.back_up()
    if made.returncode:
        record_property("backups stopped", 1)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(("name", "user"), CASES)
def test_writers_upkeep_and_backups_go_on(
    scene: Scene, record_property: Callable[[str, object], None], name: str, user: str
) -> None:
    scene.drop_last_month()
    case = ATTACKS[name]
    case.carry_out(scene, user)
    record_property("carried out", 1)
    if case.limit == JOB:
        wait_for(lambda: user in scene.put_right().stdout, "the job that names the user")
        scene.write(user if user in WRITERS else "occupancy_app")
    go_on(scene, user, record_property)
    if case.limit:
        record_property("ended by a limit", 1)
        wait_for(lambda: idle_or_gone(scene), f"the end by {case.limit}")


def idle_or_gone(scene: Scene) -> bool:
    """Whether the attacker has neither a statement nor a transaction any more."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'attacker' AND state <> 'idle'"
    return scene.superuser(query) == [(0,)]


@pytest.mark.parametrize("user", EVERYBODY)
def test_default_privileges_of_a_user_stop_neither_backups_nor_restores(
    scene: Scene, record_property: Callable[[str, object], None], user: str
) -> None:
    """Any user may set them for the objects that it creates, and a restore may not."""
    change = f"ALTER DEFAULT PRIVILEGES FOR ROLE {user} {{}} ALL ON TABLES {{}} PUBLIC"
    session = scene.session(user, options="-c default_transaction_read_only=off")
    scene.run(user, change.format("GRANT", "TO"), session=session)
    query = f"SELECT count(*) FROM pg_default_acl WHERE defaclrole = '{user}'::regrole"
    assert scene.superuser(query) == [(1,)]
    record_property("carried out", 1)
    session.close()
    scene.drop_last_month()
    go_on(scene, user, record_property)
    done = scene.host.restore("latest", "--without-safety-backup")
    assert done.returncode == 0, done.stderr
    assert scene.superuser(query) == [(0,)]
    go_on(scene, user, record_property)
