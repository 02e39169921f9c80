"""What goes wrong around a backup or restore: server, memory, disk, locks, clock, versions, users, people."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest

from occupancy_db.backup.sets import DUMP
from occupancy_db.errors import ExitCode
from occupancy_db.maintenance import LOCK_KEY
from tests.database.site import LIVE
from tests.database.users import OWNER
from tests.faults.house import (
    CREATING,
    RESTORING,
    WAITING_DUMP,
    House,
    Process,
    changed,
    dump_that_waits,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.fault
CONFIRMED = ("--confirm", LIVE, "--without-safety-backup")
KEEP_ONE = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
    "BACKUP_KEEP_LAST": 1
}
"""With these a run that succeeds removes every set but its own; one that fails must remove none."""


def unverified(house: House) -> list[str]:
    return [name for name, state in house.site.states().items() if state == "unverified"]


# The server


def test_the_server_is_down(house: House) -> None:
    house.site.cluster.crash()
    try:
        for command in (["backup", "create"], ["restore", "latest", *CONFIRMED]):
            assert house.site.cli(*command, **KEEP_ONE).returncode == ExitCode.UNREACHABLE
    finally:
        house.site.cluster.run()
    house.survived()


def test_the_server_goes_down_during_the_dump(house: House) -> None:
    with dump_that_waits(house, environment=KEEP_ONE) as process:
        house.site.cluster.crash()
        try:
            ended = process.end()
        finally:
            house.site.cluster.run()
    assert ended.returncode in {ExitCode.UNREACHABLE, ExitCode.PROGRAM}, ended.stderr
    assert house.site.unfinished() == []
    house.survived()


@pytest.mark.parametrize("place", ["restore", "prepare", "in the exchange"])
def test_the_server_goes_down_during_a_restore(house: House, place: str) -> None:
    hold, when = RESTORING[place]
    process = house.start("restore", "latest", *CONFIRMED, hold=hold, when=when)
    house.site.cluster.crash()
    try:
        ended = process.end()
    finally:
        house.site.cluster.run()
    assert ended.returncode in {ExitCode.UNREACHABLE, ExitCode.PROGRAM}, ended.stderr
    house.survived("restore")


def test_the_session_of_pg_dump_is_terminated(house: House) -> None:
    with dump_that_waits(house, environment=KEEP_ONE) as process:
        house.site.ask(f"SELECT pg_terminate_backend(pid) FROM ({WAITING_DUMP}) AS dump")
        ended = process.end()
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    assert house.site.unfinished() == []
    house.survived()


def test_the_sessions_that_compare_are_terminated(house: House) -> None:
    process = house.start(
        "backup", "create", environment=KEEP_ONE, hold="occupancy_db.backup.contents:_read_tables"
    )
    sessions = "FROM pg_stat_activity WHERE application_name = 'occupancy-db backup' AND state ~ 'idle in'"
    wait_for(lambda: house.site.ask(f"SELECT pg_terminate_backend(pid) {sessions}"), "the reader")
    ended = process.end()
    # Whether the lost session or the lost snapshot is noticed first is a matter of chance; it says the same.
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    assert "Traceback" not in ended.stderr
    assert house.site.unfinished() == []
    house.survived()


def test_sequences_go_on_between_the_dump_and_the_comparison(house: House) -> None:
    # The comparison is held where it is given the dump's snapshot: its name begins with 0.
    process = house.start("backup", "create", hold="occupancy_db.backup.contents:read", when="'0")
    dump = f".partial-*/{DUMP}"
    wait_for(lambda: any(found.stat().st_size for found in house.site.sets.glob(dump)), "the dump")
    wait_for(lambda: "pg_dump" not in process.children().values(), "its end")
    house.site.ask("SELECT nextval('sensor_readings_id_seq') FROM generate_series(1, 100)")
    ended = process.end()
    assert ended.returncode == 0, ended.stderr
    house.survived()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_of_the_rehearsal_is_terminated(house: House, number: signal.Signals) -> None:
    process = house.start(
        "backup", "create", environment=KEEP_ONE,
        hold="occupancy_db.backup.contents:_read_tables", when="postgres_user='postgres'",
    )  # fmt: skip
    ended_sessions = 0
    for pid in process.children():
        with suppress(OSError):  # it has ended by itself, as the one does that is not held
            if b"[local]" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, number)
                ended_sessions += 1
    assert ended_sessions
    ended = process.end()
    assert ended.returncode == ExitCode.PROGRAM, ended.stderr
    assert "the rehearsal's server ended" in ended.stderr
    assert len(unverified(house)) == 1
    house.survived()


# Memory


def test_the_dump_is_killed_for_want_of_memory(house: House) -> None:
    with dump_that_waits(house, environment=KEEP_ONE) as process:
        os.kill(process.child("pg_dump"), signal.SIGKILL)
        ended = process.end()
    assert ended.returncode == ExitCode.PROGRAM
    assert "ended by signal 9" in ended.stderr
    assert house.site.unfinished() == []
    house.survived()


def test_the_rehearsal_runs_out_of_memory(house: House) -> None:
    path = wrapped(house, "postgres", f'ulimit -v 65536; exec {house.site.cluster.bin / "postgres"} "$@"')
    failed = house.site.backup("create", PATH=path, **KEEP_ONE)
    assert failed.returncode == ExitCode.PROGRAM, failed.stderr
    assert "Check memory and disk" in failed.stderr
    assert len(unverified(house)) == 1
    house.survived()


def wrapped(house: House, program: str, script: str) -> str:
    """A PATH where a script stands before one of PostgreSQL's programs."""
    programs = house.site.directory / "programs"
    programs.mkdir()
    (programs / program).write_text(f"#!/bin/sh\n{script}\n")
    (programs / program).chmod(0o755)
    return f"{programs}{os.pathsep}{house.site.changes('occupancy_backup')['PATH']}"


def test_the_jobs_of_a_restore_share_the_memory_of_one(house: House) -> None:
    """The server's container has room for one index build at a time."""
    said = house.site.directory / "said"
    programs = house.site.cluster.bin
    ask = f"{programs}/psql -XAt -d {LIVE} -c 'SHOW maintenance_work_mem' >>{said}"
    path = wrapped(house, "pg_restore", f'{ask}\nexec {programs}/pg_restore "$@"')
    done = house.site.cli("restore", "latest", *CONFIRMED, PATH=path)
    assert done.returncode == 0, done.stderr
    assert said.read_text().split() == ["32MB"]
    assert house.site.ask("SHOW maintenance_work_mem") == [("64MB",)]


# Disks


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own in a directory's place, with what was in there."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    away, owner = path.with_suffix(".away"), path.stat().st_uid
    path.rename(away)
    path.mkdir()
    options = f"size={megabytes}m,mode=0700,uid={owner}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        path.rmdir()
        away.rename(path)
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(away, path, dirs_exist_ok=True)
        yield
        shutil.copytree(path, away, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
        path.rmdir()
        away.rename(path)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def fill(path: Path, left: int = 0) -> None:
    """Only so many bytes are left for anybody."""
    disk = os.statvfs(path)
    remount(path, f"size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + left}")


def test_the_disk_is_too_small_from_the_beginning(house: House) -> None:
    site = house.site
    for directory, command in (
        (site.sets, ["backup", "create"]),
        (site.rehearsals, ["backup", "create"]),
        (site.sets, ["restore", "latest", *CONFIRMED]),
    ):
        with small_disk(directory, 50):
            refused = site.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.NO_SPACE, refused.stderr
            assert "Nothing was begun" in refused.stderr
            assert site.unfinished() == []
    house.survived()


FILLED = {
    "dump": ("occupancy_db.backup.create:run", "--snapshot="),
    "publish": ("occupancy_db.backup.create:replace", "manifest.json"),
    "write it down": ("occupancy_db.backup.sets:replace", "verified.json"),
}


@pytest.mark.parametrize("place", FILLED)
def test_the_disk_fills_up(house: House, place: str) -> None:
    site, (hold, when) = house.site, FILLED[place]
    with small_disk(site.sets, 400):
        process = house.start("backup", "create", environment=KEEP_ONE, hold=hold, when=when)
        fill(site.sets)
        ended = process.end()
        remount(site.sets, "size=400m")
        assert ended.returncode == ExitCode.NO_SPACE, ended.stderr
        assert site.unfinished() == []
        assert len(unverified(house)) == (place == "write it down")
        house.survived()


def test_the_disk_of_the_rehearsal_fills_up(house: House) -> None:
    site, (hold, when) = house.site, CREATING["rehearse, restoring"]
    with small_disk(site.rehearsals, 400):
        process = house.start("backup", "create", environment=KEEP_ONE, hold=hold, when=when)
        fill(site.rehearsals, left=2**19)
        ended = process.end()
        remount(site.rehearsals, "size=400m")
        assert ended.returncode == ExitCode.NO_SPACE, ended.stderr
        assert site.unfinished() == []
        assert len(unverified(house)) == 1
        house.survived()


@pytest.mark.parametrize("which", ["sets", "rehearsals"])
def test_the_disk_cannot_be_written(house: House, which: str) -> None:
    site = house.site
    directory = getattr(site, which)
    with small_disk(directory, 400):
        remount(directory, "ro")
        refused = site.backup("create", **KEEP_ONE)
        remount(directory, "rw")
        assert refused.returncode == ExitCode.PERMISSION, refused.stderr
        assert "Read-only file system" in refused.stderr
        house.survived()


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


# The clock


@pytest.mark.parametrize("days", [365, -365])
def test_the_clock_is_a_year_off(house: House, days: int) -> None:
    """A set is made and proved; none is removed, now or later, until somebody has looked."""
    site = house.site
    began = datetime.now(UTC)
    ended = house.start("backup", "create", environment=KEEP_ONE, days=days).end()
    assert ended.returncode == ExitCode.CLOCK, ended.stderr
    assert "No set was removed" in ended.stderr
    (odd,) = site.states().keys() - house.sets.keys()
    moments = (began, datetime.now(UTC))  # midnight may lie between them
    assert odd.startswith(tuple(f"{LIVE}-{(moment + timedelta(days=days)):%Y%m%d}" for moment in moments))
    assert site.states()[odd] == "verified"
    house.untouched()

    if days > 0:
        for command in (["backup", "create"], ["backup", "prune"], ["restore", "latest", *CONFIRMED]):
            refused = site.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.CLOCK, refused.stderr
        house.untouched()
        shutil.rmtree(site.sets / odd)
    house.survived()


# Versions and features


def test_pg_dump_is_of_another_version(house: House) -> None:
    path = wrapped(house, "pg_dump", "echo 'pg_dump (PostgreSQL) 15.9'")
    refused = house.site.backup("create", PATH=path, **KEEP_ONE)
    assert refused.returncode == ExitCode.UNSUITABLE
    assert "pg_dump is of version 15.9" in refused.stderr
    house.survived()


def test_there_are_no_programs(house: House) -> None:
    nowhere = {"PATH": str(house.site.temporary), **KEEP_ONE}
    for command in (["backup", "create"], ["backup", "verify"], ["restore", "latest", *CONFIRMED]):
        refused = house.site.cli(*command, **nowhere)
        assert refused.returncode == ExitCode.UNSUITABLE, refused.stderr
        assert "there is no program" in refused.stderr
    house.survived("restore")


def test_this_build_does_not_compress_like_that(house: House) -> None:
    refused = house.site.backup("create", BACKUP_COMPRESSION="zstd:3", **KEEP_ONE)
    assert refused.returncode == ExitCode.UNSUITABLE
    assert "gzip:3" in refused.stderr
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
