"""What the superuser takes away from every user of a database, and what the backup user can read."""

from typing import Any

import psycopg2.errors
import pytest

from tests.database.backup_host import LIVE, BackupHost
from tests.database.backup_host import backup_host as backup_host
from tests.database.backup_host import prepared as prepared
from tests.database.users import OWNER

RESTRICTED = ["occupancy_app", "occupancy_readonly", "occupancy_monitor"]
LARGE_OBJECTS = [
    "lo_create(0)",
    "lo_creat(-1)",
    "lo_from_bytea(0, 'x')",
    "lo_open(4711, 131072)",
    "lo_get(4711)",
    "lo_put(4711, 0, 'x')",
    "lo_unlink(4711)",
    "lowrite(0, 'x')",
    "lo_truncate(0, 0)",
    "lo_import('/etc/passwd')",
]
ADVISORY = ["pg_advisory_lock(1)", "pg_try_advisory_lock_shared(1)", "pg_advisory_xact_lock(1, 2)"]


def call(backup_host: BackupHost, user: str, *statements: str) -> Any:
    connection = backup_host.connect(user)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone()
    finally:
        connection.close()


def assert_refused(backup_host: BackupHost, user: str, function: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied for function"):
        call(backup_host, user, "SET default_transaction_read_only = off", f"SELECT {function}")


def test_restricted_users_cannot_call_the_functions_also_after_a_restore(backup_host: BackupHost) -> None:
    cases = [(user, function) for user in RESTRICTED for function in LARGE_OBJECTS]
    cases += [(user, function) for user in RESTRICTED for function in ADVISORY]
    for user, function in cases:
        assert_refused(backup_host, user, function)
    done = backup_host.restore("latest", "--without-safety-backup")
    assert done.returncode == 0, done.stderr
    for user, function in cases:
        assert_refused(backup_host, user, function)


def test_large_objects_of_all_users_are_saved_and_restored(backup_host: BackupHost) -> None:
    call(backup_host, OWNER, "SELECT lo_from_bytea(4711, 'of the owner')")
    backup_host.cluster.execute("SELECT lo_from_bytea(4712, 'of the superuser')", database=LIVE)
    backup_host.cluster.execute(
        "SELECT lo_from_bytea(4713, 'of the application')",
        "ALTER LARGE OBJECT 4713 OWNER TO occupancy_app",  # made by a release before this one
        database=LIVE,
    )
    made = backup_host.backup("create", "--json")
    assert made.returncode == 0, made.stderr
    done = backup_host.restore("latest", "--without-safety-backup")
    assert done.returncode == 0, done.stderr
    contents = "SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata ORDER BY oid"
    assert backup_host.query(contents) == [("of the owner",), ("of the superuser",), ("of the application",)]
    assert backup_host.backup("create").returncode == 0


def test_rows_behind_policies_are_saved_and_restored(backup_host: BackupHost) -> None:
    backup_host.cluster.execute(
        "CREATE TABLE notes AS SELECT 'hidden' AS note",
        "ALTER TABLE notes OWNER TO occupancy",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        database=LIVE,
    )
    assert call(backup_host, OWNER, "SELECT count(*) FROM notes") == (0,)
    made = backup_host.backup("create", "--json")
    assert made.returncode == 0, made.stderr
    done = backup_host.restore("latest", "--without-safety-backup")
    assert done.returncode == 0, done.stderr
    assert backup_host.query("SELECT note FROM notes") == [("hidden",)]
