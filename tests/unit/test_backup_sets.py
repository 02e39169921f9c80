"""Sets on disk, PostgreSQL's programs, and the comparison of contents, without a server."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occupancy_db.backup import sets
from occupancy_db.backup.contents import Contents, Table
from occupancy_db.backup.files import replace
from occupancy_db.backup.manifest import (
    DUMP,
    FORMAT,
    GLOBALS,
    MANIFEST,
    PINNED,
    Manifest,
    Verified,
    file_facts,
)
from occupancy_db.backup.programs import libpq_environment, run_program, start_program
from occupancy_db.backup.sets import AHEAD, BackupSet, SetState, Store, read_set, set_id
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

CONTENTS = Contents(
    revision="004",
    tables={"public.a": Table(rows=3, hashes="17"), "public.b": Table(rows=0, hashes="0")},
    partitions={"public.a_1": "of a FOR VALUES FROM (1) TO (2)"},
    sequences={"public.a_id_seq": 33},
    large_objects=Table(rows=2, hashes="5"),
    extensions={"plpgsql": "1.0"},
    encoding="UTF8",
    collate="C",
    ctype="C",
)


def publish(store: Store, now: datetime | None = None, **changes: Any) -> BackupSet:
    now = now or datetime.now(UTC)
    partial = store.begin("house", now)
    for name in (DUMP, GLOBALS):
        (partial / name).write_text(f"{name} of {partial.name}")
    body: dict[str, Any] = {
        "format": FORMAT, "id": set_id(partial), "database": "house", "started_at": now, "ended_at": now,
        "files": {name: file_facts(partial / name) for name in (DUMP, GLOBALS)},
        "server_version": "16.14", "server_version_num": 160014, "client_version": "16.14", "image": "ops:1",
        "superuser": "postgres", "lsn": "0/1", "database_bytes": 1, "contents": CONTENTS,
    }  # fmt: skip
    replace(partial / MANIFEST, Manifest(**{**body, **changes}).seal())
    return store.publish(partial)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_sealed_file_is_read_as_it_was_written(store: Store) -> None:
    made = publish(store)
    manifest = Manifest.unseal(made.path / MANIFEST)
    assert manifest.contents == CONTENTS
    assert manifest.seal() == (made.path / MANIFEST).read_bytes()


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_a_sealed_file_is_detected(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "verified.json"
    verified = Verified(manifest="a" * 64, verified_at=datetime(2026, 1, 1, tzinfo=UTC), seconds=1.5, rows=7)
    content = verified.seal()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 3, len(content))))
    changed = content[:start] + data.draw(st.binary(max_size=3)) + content[end:]
    path.write_bytes(changed)
    if changed == content:
        assert Verified.unseal(path) == verified
        return
    with pytest.raises(DatabaseError) as raised:
        Verified.unseal(path)
    assert raised.value.code is ExitCode.DAMAGED


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"checksum": 1}', b"[" * 10**5]
)
def test_a_file_that_was_not_sealed_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(DatabaseError) as raised:
        Manifest.unseal(path)
    assert raised.value.code is ExitCode.DAMAGED


def test_a_set_is_private_and_complete_before_it_is_published(store: Store) -> None:
    partial = store.begin("house", datetime.now(UTC))
    (partial / DUMP).write_text("half of it")
    assert store.sets("house") == []
    store.clear()
    made = publish(store)
    assert [one.id for one in store.sets("house")] == [made.id]
    assert store.sets("another") == []
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.path.iterdir()} == {0o600}
    assert not list(store.directory.glob(".partial-*"))


def test_the_state_follows_from_the_files_of_the_set(store: Store) -> None:
    made = publish(store)
    assert made.state is SetState.UNVERIFIED
    made.mark_verified(1.0, 3)
    assert store.find("house", "latest").id == made.id
    made.mark_damaged("a byte has changed")
    (found,) = store.sets("house")
    assert found.state is SetState.DAMAGED
    assert "a byte has changed" in (found.problem or "")
    for name, code in ((made.id, None), ("latest", ExitCode.DAMAGED), ("house-x", ExitCode.DAMAGED)):
        if code is None:
            assert store.find("house", name).id == made.id
        else:
            with pytest.raises(DatabaseError) as raised:
                store.find("house", name)
            assert raised.value.code is code


def test_latest_is_the_newest_verified_set_that_is_not_a_safety_backup(store: Store) -> None:
    now = datetime.now(UTC)
    sets = [publish(store, now - timedelta(hours=hours)) for hours in (4, 3, 2)]
    safety = publish(store, now - timedelta(hours=1), before_restore_of=sets[0].id)
    for one in (sets[0], sets[1], safety):
        one.mark_verified(1.0, 3)
    assert store.find("house", "latest").id == sets[1].id
    ahead = publish(store, now + AHEAD + timedelta(minutes=1))
    ahead.mark_verified(1.0, 3)
    with pytest.raises(DatabaseError) as raised:
        store.find("house", "latest")
    assert raised.value.code is ExitCode.CLOCK
    ahead.mark_ahead(now)
    assert store.find("house", "latest").id == sets[1].id


def test_removing_a_set_keeps_the_others(store: Store) -> None:
    made, other = publish(store), publish(store)
    store.remove(made)
    assert [one.id for one in store.sets("house")] == [other.id]
    assert {path.name for path in store.directory.iterdir()} == {other.id}


def test_a_set_that_is_pinned_during_its_removal_is_kept(store: Store) -> None:
    made = publish(store)
    replace(made.path / PINNED, b"the move\n")  # after the set was read
    store.remove(made)
    (kept,) = store.sets("house")
    assert (kept.id, kept.pinned) == (made.id, "the move")


def test_a_set_that_is_removed_while_it_is_read_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, other = publish(store), publish(store)

    def late(path: Path, match: Any) -> BackupSet:
        if made.path.exists():
            store.remove(made)
        return read_set(path, match)

    monkeypatch.setattr(sets, "read_set", late)
    assert [one.id for one in store.sets("house")] == [other.id]


async def test_the_store_has_one_lock(store: Store) -> None:
    async with store.lock():
        with pytest.raises(DatabaseError) as raised:
            async with store.lock():
                pass
        assert raised.value.code is ExitCode.LOCKED
    async with store.lock():
        pass


# Differences of contents


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"revision": None}, "revision None instead of 004"),
        ({"tables": {"public.a": Table(rows=3, hashes="17")}}, "table public.b is missing"),
        ({"tables": {**CONTENTS.tables, "c": Table(rows=0, hashes="0")}}, "table c is new"),
        ({"tables": {**CONTENTS.tables, "public.a": Table(rows=2, hashes="17")}}, "has 2 rows instead of 3"),
        ({"tables": {**CONTENTS.tables, "public.a": Table(rows=3, hashes="18")}}, "public.a has other rows"),
        ({"partitions": {}}, "partition public.a_1 is None"),
        ({"partitions": {**CONTENTS.partitions, "x": "of a DEFAULT"}}, "partition x is of a DEFAULT"),
        ({"sequences": {"public.a_id_seq": 32}}, "sequence public.a_id_seq is at 32, before 33"),
        ({"sequences": {}}, "sequence public.a_id_seq is at None"),
        ({"large_objects": Table(rows=1, hashes="5")}, "large objects: rows=1"),
        ({"large_objects": Table(rows=2, hashes="6")}, "large objects: rows=2 hashes='6' instead of"),
        ({"extensions": {}}, "extensions [] instead of ['plpgsql']"),
    ],
)
def test_differences_are_listed(changes: dict[str, Any], words: str) -> None:
    (line,) = CONTENTS.differences(CONTENTS.model_copy(update=changes))
    assert words in line


@pytest.mark.parametrize(
    "changes", [{}, {"sequences": {"public.a_id_seq": 65}}, {"extensions": {"plpgsql": "1.1"}}]
)
def test_accepted_differences_are_not_listed(changes: dict[str, Any]) -> None:
    assert CONTENTS.differences(CONTENTS.model_copy(update=changes)) == []


# Programs


Script = Callable[[str], None]


@pytest.fixture
def pg_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return a function that replaces pg_dump with a script."""
    path = tmp_path / "pg_dump"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(script: str) -> None:
        path.touch(0o755)
        path.write_text(f"#!/bin/sh\n{script}\n")

    return make


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("pg_dump: error: could not write to output file: No space left on device", ExitCode.NO_SPACE),
        ("pg_dump: error: ERROR:  permission denied for table a", ExitCode.PERMISSION),
        ("pg_dump: error: could not open output file: Permission denied", ExitCode.PERMISSION),
        ("canceling statement due to lock timeout", ExitCode.LOCKED),
        ("pg_dump: error: aborting because of server version mismatch", ExitCode.UNSUITABLE),
        ("pg_dump: error: this build does not support compression with zstd", ExitCode.UNSUITABLE),
        ('pg_dump: error: unrecognized compression algorithm: "x"', ExitCode.UNSUITABLE),
        ("connection to server failed: FATAL:  password authentication failed", ExitCode.AUTHENTICATION),
        ("connection to server failed: Connection refused", ExitCode.UNREACHABLE),
        ("FATAL:  terminating connection due to administrator command", ExitCode.UNREACHABLE),
        ("pg_dump: error: something else", ExitCode.PROGRAM),
        ("", ExitCode.PROGRAM),
    ],
)
async def test_the_output_of_a_program_determines_the_exit_code(
    pg_dump: Script, said: str, code: ExitCode
) -> None:
    pg_dump(f"echo 'a first line' >&2\necho '{said}' >&2\nexit 3")
    with pytest.raises(DatabaseError) as raised:
        await run_program("pg_dump")
    assert raised.value.code is code
    assert raised.value.what.startswith("pg_dump failed: ")
    assert "\n" not in str(raised.value)


async def test_a_killed_program_and_a_missing_program_are_reported(pg_dump: Script) -> None:
    pg_dump("kill -9 $$")
    with pytest.raises(DatabaseError) as raised:
        await run_program("pg_dump")
    assert raised.value.code is ExitCode.PROGRAM
    assert "ended by signal 9" in raised.value.what
    with pytest.raises(DatabaseError) as raised:
        await run_program("pg_no_such_program")
    assert raised.value.code is ExitCode.UNSUITABLE


async def test_a_program_ends_with_its_block(pg_dump: Script) -> None:
    pg_dump("exec sleep 1000")
    with pytest.raises(ZeroDivisionError):
        async with start_program("pg_dump") as process:
            raise ZeroDivisionError
    assert process.returncode == -signal.SIGTERM
    task = asyncio.create_task(run_program("pg_dump"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_password_is_only_in_a_private_file_during_the_block(
    pg_dump: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "colon:back\\slash"
    monkeypatch.setenv("POSTGRES_PASSWORD", secret)
    pg_dump('env\necho "$@"\nstat -c %a "$PGPASSFILE"\ncat "$PGPASSFILE"')
    with libpq_environment(
        Settings(postgres_host="/run/postgresql", postgres_user="u", postgres_db="d")
    ) as env:
        file = Path(env["PGPASSFILE"])
        *said, mode, password = (await run_program("pg_dump", "--argument", env=env)).splitlines()
        assert secret not in "\n".join(said)
        assert "POSTGRES_PASSWORD" not in "\n".join(said)
        assert (mode, password) == ("600", r"*:*:*:*:colon\:back\\slash")
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not file.parent.exists()
