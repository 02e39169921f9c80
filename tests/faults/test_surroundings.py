"""What goes wrong around a backup or restore: server, memory, disk, locks, clock, versions, users, people."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from occupancy_db.backup.sets import DUMP
from occupancy_db.errors import ExitCode
from tests.database.site import LIVE
from tests.faults.house import (
    CONFIRMED,
    CREATING,
    KEEP_ONE,
    RESTORING,
    WAITING_DUMP,
    House,
    dump_that_waits,
    unverified,
    wait_for,
)

pytestmark = pytest.mark.fault


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
