"""What others do around a backup or restore: other runs, users and their privileges, sessions, operators."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest

from occupancy_db.errors import ExitCode
from occupancy_db.maintenance import LOCK_KEY
from tests.database.site import LIVE
from tests.database.users import OWNER
from tests.faults.house import (
    CONFIRMED,
    CREATING,
    KEEP_ONE,
    House,
    Process,
    changed,
    wait_for,
)

# Locks, and others at work


def test_another_run_is_at_work(house: House) -> None:
    with (house.site.sets / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["backup", "create"], ["backup", "prune"], ["restore-cleanup"]):
            refused = house.site.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.LOCKED, refused.stderr
            assert "another backup or restore is at work" in refused.stderr
    house.survived()


def test_two_runs_overlap(house: House) -> None:
    hold, when = CREATING["publish"]
    first = house.start("backup", "create", hold=hold, when=when)
    assert house.site.backup("create", **KEEP_ONE).returncode == ExitCode.LOCKED
    ended = first.end()
    assert ended.returncode == 0, ended.stderr
    assert list(house.site.states().values()) == ["verified"] * 3
    house.survived()


def test_a_restore_waits_for_a_backup_that_is_at_work(house: House) -> None:
    hold, when = CREATING["publish"]
    backup = house.start("backup", "create", hold=hold, when=when)
    restore = house.start("restore", house.stock.new, *CONFIRMED)
    lock = str(house.site.sets / ".lock")
    waits = Path(f"/proc/{restore.process.pid}/fd")
    wait_for(lambda: any(lock in os.path.realpath(file) for file in waits.iterdir()), "the restore")
    assert house.site.databases() == {LIVE}
    assert backup.end().returncode == 0
    assert restore.end().returncode == 0
    assert house.site.databases() == {LIVE, f"{LIVE}_replaced"}
    assert list(house.site.states().values()) == ["verified"] * 3


def test_a_migration_holds_its_lock(house: House) -> None:
    migration = house.site.connect(OWNER)
    with migration.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
    refused = house.start(
        "backup",
        "create",
        environment=KEEP_ONE,
        set={"occupancy_db.backup.create:LOCK_WAIT": 0.3},
    ).end()
    assert refused.returncode == ExitCode.LOCKED
    assert "another session holds the migration lock" in refused.stderr
    assert house.site.unfinished() == []

    waiting = house.start("backup", "create")
    wait_for(
        lambda: len(
            house.site.ask("SELECT 1 FROM pg_stat_activity WHERE application_name ~ 'migration lock'")
        ),
        "the run that waits",
    )
    assert waiting.process.poll() is None
    migration.close()
    assert waiting.end().returncode == 0
    house.survived()


# Users and their rights


def test_the_backup_user_may_not_read_any_more(house: House) -> None:
    grant = "pg_read_all_data {} occupancy_backup"
    with changed(house.site, f"REVOKE {grant.format('FROM')}", f"GRANT {grant.format('TO')}"):
        refused = house.site.backup("create", **KEEP_ONE)
    assert refused.returncode == ExitCode.PERMISSION
    assert "permission denied" in refused.stderr
    assert house.site.unfinished() == []
    house.survived()


def test_rows_are_hidden_from_the_backup_user(house: House) -> None:
    """A policy would have it save fewer rows without a word."""
    house.site.cluster.execute("ALTER TABLE predictions ENABLE ROW LEVEL SECURITY", database=LIVE)
    refused = house.site.backup("create", **KEEP_ONE)
    assert refused.returncode == ExitCode.PROGRAM, refused.stderr
    assert "row-level security" in refused.stderr
    house.survived()


def test_a_user_of_the_product_is_missing(house: House) -> None:
    rename = "ALTER ROLE {} RENAME TO {}"
    names = ("occupancy_monitor", "gone")
    with changed(house.site, rename.format(*names), rename.format(*names[::-1])):
        refused = house.site.restore("latest")
    assert refused.returncode == ExitCode.CONFIGURATION
    assert "users of the product are missing: occupancy_monitor" in refused.stderr
    house.survived("restore")


def test_a_password_is_missing(house: House) -> None:
    file = house.site.secrets / "occupancy_readonly"
    file.rename(file.with_suffix(".away"))
    refused = house.site.restore("latest")
    assert refused.returncode == ExitCode.CONFIGURATION
    assert "cannot read the password of occupancy_readonly" in refused.stderr
    file.with_suffix(".away").rename(file)
    house.survived("restore")


NO_LOGIN = ("ALTER ROLE occupancy_app NOLOGIN", "ALTER ROLE occupancy_app LOGIN")


def test_the_restored_database_fails_a_user_before_the_exchange(house: House) -> None:
    with changed(house.site, *NO_LOGIN):
        refused = house.site.restore("latest")
    assert refused.returncode == ExitCode.AUTHENTICATION, refused.stderr
    assert "exchange" not in refused.stdout
    house.survived("restore")


def test_a_user_may_more_than_it_should_in_the_restored_database(house: House) -> None:
    with (
        changed(
            house.site,
            "GRANT pg_write_all_data TO occupancy_readonly",
            "REVOKE pg_write_all_data FROM occupancy_readonly",
        ),
        changed(
            house.site,
            "ALTER ROLE occupancy_readonly SET default_transaction_read_only = 'off'",
            "ALTER ROLE occupancy_readonly SET default_transaction_read_only = 'on'",
        ),
    ):
        refused = house.site.restore("latest")
    assert refused.returncode == ExitCode.PERMISSION, refused.stderr
    assert "may do what it must not" in refused.stderr
    house.survived("restore")


def test_the_restored_database_fails_a_user_in_its_place(house: House) -> None:
    process = house.start(
        "restore", house.stock.old, *CONFIRMED, hold="occupancy_db.backup.restore:_look_again"
    )
    with changed(house.site, *NO_LOGIN):
        ended = process.end()
    assert ended.returncode == ExitCode.AUTHENTICATION
    assert "was taken back" in ended.stderr
    house.survived("restore")


def test_a_restore_that_cannot_be_taken_back_says_what_to_do(house: House) -> None:
    process = house.start(
        "restore", house.stock.old, *CONFIRMED, hold="occupancy_db.backup.restore:_look_again"
    )
    superuser = house.site.cluster.connect(LIVE)
    with changed(house.site, *NO_LOGIN):
        ended = process.end()
    superuser.close()
    assert ended.returncode == ExitCode.AUTHENTICATION
    command = f"restore-rollback --confirm {LIVE}"
    assert f"occupancy-db {command}" in ended.stderr
    done = house.site.cli(*command.split())
    assert done.returncode == 0, done.stderr
    house.survived("restore")


# Sessions in the way


def test_a_superuser_is_connected(house: House) -> None:
    superuser = house.site.cluster.connect(LIVE, application_name="somebody at work")
    refused = house.site.restore("latest")
    superuser.close()
    assert refused.returncode == ExitCode.LOCKED
    assert "somebody at work" in refused.stderr
    assert refused.stdout.startswith("choose: failed")  # before the work, not after it
    house.survived("restore")


def test_sessions_that_do_not_end_leave_everything_as_it_is(house: House) -> None:
    client = house.site.connect("occupancy_app")
    process = house.start("restore", "latest", *CONFIRMED, hold="occupancy_db.backup.restore:_end_sessions")
    ended_by_itself = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%RENAME%'"
    wait_for(lambda: house.site.ask(ended_by_itself, "postgres"), "the exchange")
    wait_for(lambda: not house.site.ask(ended_by_itself, "postgres"), "the end of its patience")
    ended = process.end()
    client.close()
    assert ended.returncode == ExitCode.LOCKED, ended.stderr
    assert "nothing was exchanged" in ended.stderr
    house.survived("restore")


WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"


# Outsiders who change the schema without the lock of those that do


@contextmanager
def outsider(house: House, statement: str) -> Iterator[Process]:
    """Somebody whose transaction was there before the dump, and is committed while the dump waits for it."""
    process = house.start("backup", "create", environment=KEEP_ONE, hold="occupancy_db.backup.create:_dump")
    other = house.site.connect(OWNER)
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute(statement)
        process.go()
        wait_for(lambda: house.site.ask(WAITING), "the dump")
        other.commit()
    other.close()
    yield process


def test_a_table_is_rewritten_while_the_dump_begins(house: House) -> None:
    """Who began to look before does not see its rows: a set without them would compare well."""
    house.site.cluster.execute(
        "CREATE TABLE notes AS SELECT 1 AS n", "ALTER TABLE notes OWNER TO occupancy", database=LIVE
    )
    house.live = house.look()
    with outsider(house, "ALTER TABLE notes ALTER COLUMN n TYPE text") as process:
        ended = process.end()
    assert ended.returncode == 0, ended.stderr
    (made,) = house.site.states()
    manifest = json.loads(house.site.backup("show", made, "--json").stdout)["manifest"]
    assert manifest["contents"]["tables"]["public.notes"]["rows"] == 1
    assert house.site.restore(made, "--without-safety-backup").returncode == 0
    assert house.site.ask("SELECT n FROM notes") == [("1",)]


def test_a_partition_is_dropped_while_the_dump_begins(house: House) -> None:
    partition = house.site.ask("SELECT min(tableoid::regclass::text) FROM sensor_readings")[0][0]
    with outsider(house, f"DROP TABLE {partition}") as process:
        ended = process.end()
    assert ended.returncode != 0, ended.stdout
    assert "Traceback" not in ended.stderr
    assert house.site.unfinished() == []
    house.site.cluster.execute(f"DROP DATABASE {LIVE} WITH (FORCE)")
    assert house.site.restore(house.stock.new).returncode == 0
    house.live = house.look()
    house.survived()


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE predictions ADD COLUMN more text", "DROP TABLE room_transitions"]
)
def test_outsiders_wait_for_the_dump(house: House, statement: str) -> None:
    process = house.start("backup", "create", hold="occupancy_db.backup.create:run", when="--snapshot=")
    other = house.site.connect(OWNER, options="-c lock_timeout=200ms")
    with other.cursor() as cursor, pytest.raises(psycopg2.errors.LockNotAvailable):
        cursor.execute(statement)
    other.close()
    ended = process.end()
    assert ended.returncode == 0, ended.stderr
    house.survived()


# People


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["latest"], ExitCode.REFUSED),
        (["latest", "--confirm", "another"], ExitCode.REFUSED),
        (["house-20200101T000000Z-000000", "--confirm", LIVE], ExitCode.DAMAGED),
        (["../secrets", "--confirm", LIVE], ExitCode.DAMAGED),
        (["", "--confirm", LIVE], ExitCode.DAMAGED),
    ],
)
def test_a_restore_is_asked_for_in_a_wrong_way(house: House, arguments: list[str], code: ExitCode) -> None:
    refused = house.site.cli("restore", *arguments)
    assert refused.returncode == code, refused.stderr
    house.survived()


def test_there_is_no_restore_to_take_back(house: House) -> None:
    refused = house.site.cli("restore-rollback", "--confirm", LIVE)
    assert refused.returncode == ExitCode.DATABASE_MISSING
    house.survived()


def test_there_is_no_verified_set(house: House) -> None:
    for name in house.sets:
        (house.site.sets / name / "verified.json").rename(house.site.temporary / name)
    assert house.site.restore("latest").returncode == ExitCode.DAMAGED
    for name in house.sets:
        (house.site.temporary / name).rename(house.site.sets / name / "verified.json")
    house.survived()


def test_the_live_database_is_gone(house: House) -> None:
    house.site.cluster.execute(f"DROP DATABASE {LIVE}")
    assert house.site.backup("create", **KEEP_ONE).returncode == ExitCode.DATABASE_MISSING
    restored = house.site.restore("latest")
    assert restored.returncode == 0, restored.stderr
    rows = house.site.fingerprint("public")
    assert rows
    assert rows.items() <= house.live[1].items()
    house.live = house.look()
    house.survived()


def test_thirty_runs_fail_in_a_row(house: House) -> None:
    failures: list[tuple[dict[str, Any], ExitCode]] = [
        ({"BACKUP_COMPRESSION": "nonsense"}, ExitCode.UNSUITABLE),
        ({"POSTGRES_PORT": 1}, ExitCode.UNREACHABLE),
        ({"POSTGRES_PASSWORD_FILE": None, "POSTGRES_PASSWORD": "wrong"}, ExitCode.AUTHENTICATION),
    ]
    for changes, code in failures * 10:
        failed = house.site.backup("create", **{**KEEP_ONE, **changes})
        assert failed.returncode == code, failed.stderr
    assert house.site.unfinished() == []
    metrics = (house.site.sets / ".backup.prom").read_text()
    assert f"occupancy_backup_last_exit_code {ExitCode.AUTHENTICATION}\n" in metrics
    house.survived()
