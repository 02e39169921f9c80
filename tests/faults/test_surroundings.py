"""Backups and restores with failures of the server, memory, disks, clock and programs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from occupancy_db.backup.manifest import DUMP
from occupancy_db.errors import ExitCode
from tests.database.backup_host import LIVE
from tests.faults.environment import (
    CONFIRMED,
    CREATING,
    KEEP_ONE,
    RESTORING,
    WAITING_DUMP,
    FaultEnvironment,
    dump_that_waits,
    unverified,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.fault


# The server


def test_backup_and_restore_fail_while_the_server_is_down(fault_env: FaultEnvironment) -> None:
    fault_env.host.cluster.crash()
    try:
        for command in (["backup", "create"], ["restore", "latest", *CONFIRMED]):
            assert fault_env.host.cli(*command, **KEEP_ONE).returncode == ExitCode.UNREACHABLE
    finally:
        fault_env.host.cluster.run()
    fault_env.assert_survived()


def test_the_server_goes_down_during_the_dump(fault_env: FaultEnvironment) -> None:
    with dump_that_waits(fault_env, environment=KEEP_ONE) as process:
        fault_env.host.cluster.crash()
        try:
            ended = process.finish()
        finally:
            fault_env.host.cluster.run()
    assert ended.returncode in {ExitCode.UNREACHABLE, ExitCode.PROGRAM}, ended.stderr
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


@pytest.mark.parametrize("place", ["restore", "prepare", "in the exchange"])
def test_the_server_goes_down_during_a_restore(fault_env: FaultEnvironment, place: str) -> None:
    hold, when = RESTORING[place]
    process = fault_env.start("restore", "latest", *CONFIRMED, hold=hold, when=when)
    fault_env.host.cluster.crash()
    try:
        ended = process.finish()
    finally:
        fault_env.host.cluster.run()
    assert ended.returncode in {ExitCode.UNREACHABLE, ExitCode.PROGRAM}, ended.stderr
    fault_env.assert_survived("restore")


def test_the_session_of_pg_dump_is_terminated(fault_env: FaultEnvironment) -> None:
    with dump_that_waits(fault_env, environment=KEEP_ONE) as process:
        fault_env.host.query(f"SELECT pg_terminate_backend(pid) FROM ({WAITING_DUMP}) AS dump")
        ended = process.finish()
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


def test_the_sessions_that_compare_are_terminated(fault_env: FaultEnvironment) -> None:
    process = fault_env.start(
        "backup", "create", environment=KEEP_ONE, hold="occupancy_db.backup.contents:_read_tables"
    )
    sessions = "FROM pg_stat_activity WHERE application_name = 'occupancy-db backup' AND state ~ 'idle in'"
    wait_for(lambda: fault_env.host.query(f"SELECT pg_terminate_backend(pid) {sessions}"), "the reader")
    ended = process.finish()
    # Either the lost session or the lost snapshot is noticed first; both have the same exit code.
    assert ended.returncode == ExitCode.UNREACHABLE, ended.stderr
    assert "Traceback" not in ended.stderr
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


def test_sequences_may_advance_between_the_dump_and_the_comparison(fault_env: FaultEnvironment) -> None:
    # Paused where the comparison gets the snapshot of the dump, whose name begins with 0.
    process = fault_env.start("backup", "create", hold="occupancy_db.backup.contents:read", when="'0")
    dump = f".partial-*/{DUMP}"
    wait_for(lambda: any(found.stat().st_size for found in fault_env.host.sets.glob(dump)), "the dump")
    wait_for(lambda: "pg_dump" not in process.children().values(), "the end of pg_dump")
    fault_env.host.query("SELECT nextval('sensor_readings_id_seq') FROM generate_series(1, 100)")
    ended = process.finish()
    assert ended.returncode == 0, ended.stderr
    fault_env.assert_survived()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_of_the_rehearsal_is_terminated(
    fault_env: FaultEnvironment, number: signal.Signals
) -> None:
    process = fault_env.start(
        "backup", "create", environment=KEEP_ONE,
        hold="occupancy_db.backup.contents:_read_tables", when="postgres_user='postgres'",
    )  # fmt: skip
    ended_sessions = 0
    for pid in process.children():
        with suppress(OSError):  # the session that is not paused ends by itself
            if b"[local]" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, number)
                ended_sessions += 1
    assert ended_sessions
    ended = process.finish()
    assert ended.returncode == ExitCode.PROGRAM, ended.stderr
    assert "the rehearsal's server ended" in ended.stderr
    assert len(unverified(fault_env)) == 1
    fault_env.assert_survived()


# Memory


def test_the_dump_is_killed_by_the_kernel(fault_env: FaultEnvironment) -> None:
    with dump_that_waits(fault_env, environment=KEEP_ONE) as process:
        os.kill(process.child("pg_dump"), signal.SIGKILL)
        ended = process.finish()
    assert ended.returncode == ExitCode.PROGRAM
    assert "ended by signal 9" in ended.stderr
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


def test_the_rehearsal_runs_out_of_memory(fault_env: FaultEnvironment) -> None:
    path = wrapped(
        fault_env, "postgres", f'ulimit -v 65536; exec {fault_env.host.cluster.bin / "postgres"} "$@"'
    )
    failed = fault_env.host.backup("create", PATH=path, **KEEP_ONE)
    assert failed.returncode == ExitCode.PROGRAM, failed.stderr
    assert "Check memory and disk" in failed.stderr
    assert len(unverified(fault_env)) == 1
    fault_env.assert_survived()


def wrapped(fault_env: FaultEnvironment, program: str, script: str) -> str:
    """Return a PATH where a script replaces one of PostgreSQL's programs."""
    programs = fault_env.host.directory / "programs"
    programs.mkdir()
    (programs / program).write_text(f"#!/bin/sh\n{script}\n")
    (programs / program).chmod(0o755)
    return f"{programs}{os.pathsep}{fault_env.host.changes('occupancy_backup')['PATH']}"


def test_the_jobs_of_a_restore_share_maintenance_work_mem(fault_env: FaultEnvironment) -> None:
    """The memory of the server's container suffices for one index build at a time."""
    said = fault_env.host.directory / "said"
    programs = fault_env.host.cluster.bin
    ask = f"{programs}/psql -XAt -d {LIVE} -c 'SHOW maintenance_work_mem' >>{said}"
    path = wrapped(fault_env, "pg_restore", f'{ask}\nexec {programs}/pg_restore "$@"')
    done = fault_env.host.cli("restore", "latest", *CONFIRMED, PATH=path)
    assert done.returncode == 0, done.stderr
    assert said.read_text().split() == ["32MB"]
    assert fault_env.host.query("SHOW maintenance_work_mem") == [("64MB",)]


# Disks


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """Mount a small file system in place of a directory, with a copy of its files."""
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
    """Shrink the file system until only ``left`` bytes are free."""
    disk = os.statvfs(path)
    remount(path, f"size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + left}")


def test_nothing_is_begun_if_the_disk_is_too_small(fault_env: FaultEnvironment) -> None:
    backup_host = fault_env.host
    for directory, command in (
        (backup_host.sets, ["backup", "create"]),
        (backup_host.rehearsals, ["backup", "create"]),
        (backup_host.sets, ["restore", "latest", *CONFIRMED]),
    ):
        with small_disk(directory, 50):
            refused = backup_host.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.NO_SPACE, refused.stderr
            assert "Nothing was changed" in refused.stderr
            assert backup_host.unfinished() == []
    fault_env.assert_survived()


FILLED = {
    "dump": ("occupancy_db.backup.create:run_program", "--snapshot="),
    "publish": ("occupancy_db.backup.create:replace", "manifest.json"),
    "record the verification": ("occupancy_db.backup.sets:replace", "verified.json"),
}


@pytest.mark.parametrize("place", FILLED)
def test_the_disk_fills_up(fault_env: FaultEnvironment, place: str) -> None:
    backup_host, (hold, when) = fault_env.host, FILLED[place]
    with small_disk(backup_host.sets, 400):
        process = fault_env.start("backup", "create", environment=KEEP_ONE, hold=hold, when=when)
        fill(backup_host.sets)
        ended = process.finish()
        remount(backup_host.sets, "size=400m")
        assert ended.returncode == ExitCode.NO_SPACE, ended.stderr
        assert backup_host.unfinished() == []
        assert len(unverified(fault_env)) == (place == "record the verification")
        fault_env.assert_survived()


def test_the_disk_of_the_rehearsal_fills_up(fault_env: FaultEnvironment) -> None:
    backup_host, (hold, when) = fault_env.host, CREATING["rehearse, restoring"]
    with small_disk(backup_host.rehearsals, 400):
        process = fault_env.start("backup", "create", environment=KEEP_ONE, hold=hold, when=when)
        fill(backup_host.rehearsals, left=2**19)
        ended = process.finish()
        remount(backup_host.rehearsals, "size=400m")
        assert ended.returncode == ExitCode.NO_SPACE, ended.stderr
        assert backup_host.unfinished() == []
        assert len(unverified(fault_env)) == 1
        fault_env.assert_survived()


@pytest.mark.parametrize("which", ["sets", "rehearsals"])
def test_a_read_only_disk_is_reported(fault_env: FaultEnvironment, which: str) -> None:
    backup_host = fault_env.host
    directory = getattr(backup_host, which)
    with small_disk(directory, 400):
        remount(directory, "ro")
        refused = backup_host.backup("create", **KEEP_ONE)
        remount(directory, "rw")
        assert refused.returncode == ExitCode.PERMISSION, refused.stderr
        assert "Read-only file system" in refused.stderr
        fault_env.assert_survived()


# The clock


@pytest.mark.parametrize("days", [365, -365])
def test_no_set_is_removed_if_the_clock_is_a_year_off(fault_env: FaultEnvironment, days: int) -> None:
    """A set is created and verified. No set is removed until the operator has confirmed the clock."""
    backup_host = fault_env.host
    began = datetime.now(UTC)
    ended = fault_env.start("backup", "create", environment=KEEP_ONE, days=days).finish()
    assert ended.returncode == ExitCode.CLOCK, ended.stderr
    assert "No set was removed" in ended.stderr
    (odd,) = backup_host.states().keys() - fault_env.sets.keys()
    moments = (began, datetime.now(UTC))  # midnight may be between them
    assert odd.startswith(tuple(f"{LIVE}-{(moment + timedelta(days=days)):%Y%m%d}" for moment in moments))
    assert backup_host.states()[odd] == "verified"
    fault_env.assert_unchanged()

    if days > 0:
        for command in (["backup", "create"], ["backup", "prune"], ["restore", "latest", *CONFIRMED]):
            refused = backup_host.cli(*command, **KEEP_ONE)
            assert refused.returncode == ExitCode.CLOCK, refused.stderr
        fault_env.assert_unchanged()
        confirmed = backup_host.database.cli("clock", "confirm")
        assert confirmed.returncode == 0, confirmed.stderr
        pruned = backup_host.backup("prune")
        assert pruned.returncode == 0, pruned.stderr
        assert "made while the clock was ahead" in pruned.stdout
        latest = backup_host.backup("show", "latest")
        assert (latest.returncode, latest.stdout.startswith(odd)) == (0, False), latest
        assert backup_host.states()[odd] == "verified"
    fault_env.assert_survived()


# Versions and features


def test_pg_dump_of_another_version_is_refused(fault_env: FaultEnvironment) -> None:
    path = wrapped(fault_env, "pg_dump", "echo 'pg_dump (PostgreSQL) 15.9'")
    refused = fault_env.host.backup("create", PATH=path, **KEEP_ONE)
    assert refused.returncode == ExitCode.UNSUITABLE
    assert "pg_dump is of version 15.9" in refused.stderr
    fault_env.assert_survived()


def test_missing_programs_are_reported(fault_env: FaultEnvironment) -> None:
    nowhere = {"PATH": str(fault_env.host.temporary), **KEEP_ONE}
    for command in (["backup", "create"], ["backup", "verify"], ["restore", "latest", *CONFIRMED]):
        refused = fault_env.host.cli(*command, **nowhere)
        assert refused.returncode == ExitCode.UNSUITABLE, refused.stderr
        assert "there is no program" in refused.stderr
    fault_env.assert_survived("restore")


def test_an_unsupported_compression_is_refused(fault_env: FaultEnvironment) -> None:
    refused = fault_env.host.backup("create", BACKUP_COMPRESSION="zstd:3", **KEEP_ONE)
    assert refused.returncode == ExitCode.UNSUITABLE
    assert "gzip:3" in refused.stderr
    fault_env.assert_survived()
