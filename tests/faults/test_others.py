"""Backups and restores beside other runs, sessions and schema changes, with wrong privileges or arguments."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest

from occupancy_db.errors import ExitCode
from occupancy_db.maintenance import LOCK_TABLE
from tests.database.backup_host import LIVE
from tests.database.users import OWNER
from tests.faults.environment import (
    CONFIRMED,
    CREATING,
    KEEP_ONE,
    FaultEnvironment,
    Process,
    changed,
)
from tests.waiting import wait_for

# Locks and other runs


def test_commands_are_refused_while_another_run_holds_the_lock(fault_env: FaultEnvironment) -> None:
    with (fault_env.host.sets / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["backup", "create"], ["backup", "prune"], ["restore-cleanup"]):
            refused = fault_env.host.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.LOCKED, refused.stderr
            assert "another backup or restore is running" in refused.stderr
    fault_env.assert_survived()


def test_a_second_backup_is_refused_while_the_first_runs(fault_env: FaultEnvironment) -> None:
    hold, when = CREATING["publish"]
    first = fault_env.start("backup", "create", hold=hold, when=when)
    assert fault_env.host.backup("create", **KEEP_ONE).returncode == ExitCode.LOCKED
    ended = first.finish()
    assert ended.returncode == 0, ended.stderr
    assert list(fault_env.host.states().values()) == ["verified"] * 3
    fault_env.assert_survived()


def test_a_restore_waits_for_a_running_backup(fault_env: FaultEnvironment) -> None:
    hold, when = CREATING["publish"]
    backup = fault_env.start("backup", "create", hold=hold, when=when)
    restore = fault_env.start("restore", fault_env.prepared.new, *CONFIRMED)
    lock = str(fault_env.host.sets / ".lock")

    def waits() -> bool:
        with suppress(OSError):  # a file was closed while the directory was read
            files = Path(f"/proc/{restore.process.pid}/fd").iterdir()
            return any(lock in os.path.realpath(file) for file in files)
        return False

    wait_for(waits, "the restore", explain=lambda: f"exit code of the restore: {restore.process.poll()}")
    assert fault_env.host.databases() == {LIVE}
    assert backup.finish().returncode == 0
    assert restore.finish().returncode == 0
    assert fault_env.host.databases() == {LIVE, f"{LIVE}_replaced"}
    assert list(fault_env.host.states().values()) == ["verified"] * 3


def test_a_backup_waits_for_the_maintenance_lock_of_a_migration(fault_env: FaultEnvironment) -> None:
    migration = fault_env.host.connect(OWNER)
    with migration.cursor() as cursor:
        cursor.execute(f"BEGIN; LOCK TABLE {LOCK_TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
    refused = fault_env.start(
        "backup",
        "create",
        environment=KEEP_ONE,
        set={"occupancy_db.backup.create:LOCK_WAIT": 0.3},
    ).finish()
    assert refused.returncode == ExitCode.LOCKED
    assert "another session holds the maintenance lock" in refused.stderr
    assert fault_env.host.unfinished() == []

    waiting = fault_env.start("backup", "create")
    wait_for(
        lambda: len(
            fault_env.host.query("SELECT 1 FROM pg_stat_activity WHERE application_name ~ 'maintenance lock'")
        ),
        "the run that waits",
    )
    assert waiting.process.poll() is None
    migration.close()
    assert waiting.finish().returncode == 0
    fault_env.assert_survived()


# Users and their privileges


def test_the_backup_user_has_lost_the_privilege_to_read(fault_env: FaultEnvironment) -> None:
    grant = "pg_read_all_data {} occupancy_backup"
    with changed(fault_env.host, f"REVOKE {grant.format('FROM')}", f"GRANT {grant.format('TO')}"):
        refused = fault_env.host.backup("create", **KEEP_ONE)
    assert refused.returncode == ExitCode.PERMISSION
    assert "permission denied" in refused.stderr
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


def test_rows_are_hidden_from_the_backup_user(fault_env: FaultEnvironment) -> None:
    """With a row-level security policy, a dump would silently contain fewer rows."""
    fault_env.host.cluster.execute("ALTER TABLE predictions ENABLE ROW LEVEL SECURITY", database=LIVE)
    attribute = "ALTER ROLE occupancy_backup {}BYPASSRLS"
    with changed(fault_env.host, attribute.format("NO"), attribute.format("")):
        refused = fault_env.host.backup("create", **KEEP_ONE)
    assert refused.returncode == ExitCode.PROGRAM, refused.stderr
    assert "row-level security" in refused.stderr
    fault_env.assert_survived()


def test_a_user_of_the_product_is_missing(fault_env: FaultEnvironment) -> None:
    rename = "ALTER ROLE {} RENAME TO {}"
    names = ("occupancy_monitor", "gone")
    with changed(fault_env.host, rename.format(*names), rename.format(*names[::-1])):
        refused = fault_env.host.restore("latest")
    assert refused.returncode == ExitCode.CONFIGURATION
    assert "users of the product are missing: occupancy_monitor" in refused.stderr
    fault_env.assert_survived("restore")


def test_a_password_is_missing(fault_env: FaultEnvironment) -> None:
    file = fault_env.host.secrets / "occupancy_readonly"
    file.rename(file.with_suffix(".away"))
    refused = fault_env.host.restore("latest")
    assert refused.returncode == ExitCode.CONFIGURATION
    assert "cannot read the password of occupancy_readonly" in refused.stderr
    file.with_suffix(".away").rename(file)
    fault_env.assert_survived("restore")


NO_LOGIN = ("ALTER ROLE occupancy_app NOLOGIN", "ALTER ROLE occupancy_app LOGIN")


def test_a_user_cannot_use_the_restored_database_before_the_exchange(fault_env: FaultEnvironment) -> None:
    with changed(fault_env.host, *NO_LOGIN):
        refused = fault_env.host.restore("latest")
    assert refused.returncode == ExitCode.AUTHENTICATION, refused.stderr
    assert "exchange" not in refused.stdout
    fault_env.assert_survived("restore")


def test_a_user_has_too_many_privileges_in_the_restored_database(fault_env: FaultEnvironment) -> None:
    with (
        changed(
            fault_env.host,
            "GRANT pg_write_all_data TO occupancy_readonly",
            "REVOKE pg_write_all_data FROM occupancy_readonly",
        ),
        changed(
            fault_env.host,
            "ALTER ROLE occupancy_readonly SET default_transaction_read_only = 'off'",
            "ALTER ROLE occupancy_readonly SET default_transaction_read_only = 'on'",
        ),
    ):
        refused = fault_env.host.restore("latest")
    assert refused.returncode == ExitCode.PERMISSION, refused.stderr
    assert "may run a forbidden statement" in refused.stderr
    fault_env.assert_survived("restore")


def test_a_user_cannot_use_the_restored_database_after_the_exchange(fault_env: FaultEnvironment) -> None:
    process = fault_env.start(
        "restore", fault_env.prepared.old, *CONFIRMED, hold="occupancy_db.backup.restore:_verify_exchange"
    )
    with changed(fault_env.host, *NO_LOGIN):
        ended = process.finish()
    assert ended.returncode == ExitCode.AUTHENTICATION
    assert "was reverted" in ended.stderr
    fault_env.assert_survived("restore")


def test_a_restore_that_cannot_be_reverted_names_the_command(fault_env: FaultEnvironment) -> None:
    process = fault_env.start(
        "restore", fault_env.prepared.old, *CONFIRMED, hold="occupancy_db.backup.restore:_verify_exchange"
    )
    superuser = fault_env.host.cluster.connect(LIVE)
    with changed(fault_env.host, *NO_LOGIN):
        ended = process.finish()
    superuser.close()
    assert ended.returncode == ExitCode.AUTHENTICATION
    command = f"restore-rollback --confirm {LIVE}"
    assert command in ended.stderr
    done = fault_env.host.cli(*command.split())
    assert done.returncode == 0, done.stderr
    fault_env.assert_survived("restore")


# Sessions that prevent the exchange


def test_a_superuser_is_connected(fault_env: FaultEnvironment) -> None:
    superuser = fault_env.host.cluster.connect(LIVE, application_name="maintenance by hand")
    refused = fault_env.host.restore("latest")
    superuser.close()
    assert refused.returncode == ExitCode.LOCKED
    assert "maintenance by hand" in refused.stderr
    assert refused.stdout.startswith("choose: failed")  # refused before the dump is restored
    fault_env.assert_survived("restore")


def test_nothing_is_exchanged_if_sessions_do_not_end(fault_env: FaultEnvironment) -> None:
    client = fault_env.host.connect("occupancy_app")
    process = fault_env.start(
        "restore", "latest", *CONFIRMED, hold="occupancy_db.backup.exchange:_end_sessions"
    )
    ended_by_itself = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%RENAME%'"
    wait_for(lambda: fault_env.host.query(ended_by_itself, "postgres"), "the exchange")
    wait_for(lambda: not fault_env.host.query(ended_by_itself, "postgres"), "the end of the attempt")
    ended = process.finish()
    client.close()
    assert ended.returncode == ExitCode.LOCKED, ended.stderr
    assert "nothing was exchanged" in ended.stderr
    fault_env.assert_survived("restore")


WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"


# Sessions that change the schema without the maintenance lock


@contextmanager
def outsider(fault_env: FaultEnvironment, statement: str) -> Iterator[Process]:
    """Change the schema in a transaction that begins before the dump and commits while the dump waits."""
    process = fault_env.start(
        "backup", "create", environment=KEEP_ONE, hold="occupancy_db.backup.create:_dump"
    )
    other = fault_env.host.connect(OWNER)
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute(statement)
        process.resume()
        wait_for(lambda: fault_env.host.query(WAITING), "the dump")
        other.commit()
    other.close()
    yield process


def test_a_table_is_rewritten_while_the_dump_begins(fault_env: FaultEnvironment) -> None:
    """A snapshot from before the rewrite would not contain its rows, and the comparison would not notice."""
    fault_env.host.cluster.execute(
        "CREATE TABLE notes AS SELECT 1 AS n", "ALTER TABLE notes OWNER TO occupancy", database=LIVE
    )
    fault_env.live = fault_env.read_live()
    with outsider(fault_env, "ALTER TABLE notes ALTER COLUMN n TYPE text") as process:
        ended = process.finish()
    assert ended.returncode == 0, ended.stderr
    (made,) = fault_env.host.states()
    manifest = json.loads(fault_env.host.backup("show", made, "--json").stdout)["manifest"]
    assert manifest["contents"]["tables"]["public.notes"]["rows"] == 1
    assert fault_env.host.restore(made, "--without-safety-backup").returncode == 0
    assert fault_env.host.query("SELECT n FROM notes") == [("1",)]


def test_a_partition_is_dropped_while_the_dump_begins(fault_env: FaultEnvironment) -> None:
    partition = fault_env.host.query("SELECT min(tableoid::regclass::text) FROM sensor_readings")[0][0]
    with outsider(fault_env, f"DROP TABLE {partition}") as process:
        ended = process.finish()
    assert ended.returncode != 0, ended.stdout
    assert "Traceback" not in ended.stderr
    assert fault_env.host.unfinished() == []
    fault_env.host.cluster.execute(f"DROP DATABASE {LIVE} WITH (FORCE)")
    assert fault_env.host.restore(fault_env.prepared.new).returncode == 0
    fault_env.live = fault_env.read_live()
    fault_env.assert_survived()


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE predictions ADD COLUMN more text", "DROP TABLE room_transitions"]
)
def test_schema_changes_without_the_maintenance_lock_wait_for_the_dump(
    fault_env: FaultEnvironment, statement: str
) -> None:
    process = fault_env.start(
        "backup", "create", hold="occupancy_db.backup.create:run_program", when="--snapshot="
    )
    other = fault_env.host.connect(OWNER, options="-c lock_timeout=200ms")
    with other.cursor() as cursor, pytest.raises(psycopg2.errors.LockNotAvailable):
        cursor.execute(statement)
    other.close()
    ended = process.finish()
    assert ended.returncode == 0, ended.stderr
    fault_env.assert_survived()


# Wrong arguments and missing sets


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
def test_a_restore_with_wrong_arguments_is_refused(
    fault_env: FaultEnvironment, arguments: list[str], code: ExitCode
) -> None:
    refused = fault_env.host.cli("restore", *arguments)
    assert refused.returncode == code, refused.stderr
    fault_env.assert_survived()


def test_restore_rollback_without_a_restore_is_refused(fault_env: FaultEnvironment) -> None:
    refused = fault_env.host.cli("restore-rollback", "--confirm", LIVE)
    assert refused.returncode == ExitCode.DATABASE_MISSING
    fault_env.assert_survived()


def test_a_restore_without_a_verified_set_is_refused(fault_env: FaultEnvironment) -> None:
    for name in fault_env.sets:
        (fault_env.host.sets / name / "verified.json").rename(fault_env.host.temporary / name)
    assert fault_env.host.restore("latest").returncode == ExitCode.DAMAGED
    for name in fault_env.sets:
        (fault_env.host.temporary / name).rename(fault_env.host.sets / name / "verified.json")
    fault_env.assert_survived()


def test_a_dropped_database_is_restored(fault_env: FaultEnvironment) -> None:
    fault_env.host.cluster.execute(f"DROP DATABASE {LIVE}")
    assert fault_env.host.backup("create", **KEEP_ONE).returncode == ExitCode.DATABASE_MISSING
    restored = fault_env.host.restore("latest")
    assert restored.returncode == 0, restored.stderr
    rows = fault_env.host.fingerprint("public")
    assert rows
    assert rows.items() <= fault_env.live[1].items()
    fault_env.live = fault_env.read_live()
    fault_env.assert_survived()


def test_thirty_runs_fail_in_a_row(fault_env: FaultEnvironment) -> None:
    failures: list[tuple[dict[str, Any], ExitCode]] = [
        ({"BACKUP_COMPRESSION": "nonsense"}, ExitCode.UNSUITABLE),
        ({"POSTGRES_PORT": 1}, ExitCode.UNREACHABLE),
        ({"POSTGRES_PASSWORD_FILE": None, "POSTGRES_PASSWORD": "wrong"}, ExitCode.AUTHENTICATION),
    ]
    for changes, code in failures * 10:
        failed = fault_env.host.backup("create", **{**KEEP_ONE, **changes})
        assert failed.returncode == code, failed.stderr
    assert fault_env.host.unfinished() == []
    metrics = (fault_env.host.sets / ".backup.prom").read_text()
    assert f"occupancy_backup_last_exit_code {ExitCode.AUTHENTICATION}\n" in metrics
    fault_env.assert_survived()
