"""Corrupted backup sets fail verification and are not restored; the live database does not change."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from occupancy_db.backup.manifest import DUMP, GLOBALS, MANIFEST, VERIFIED, Manifest, Verified, file_facts
from occupancy_db.errors import ExitCode
from tests.database.backup_host import LIVE, BackupHost, PreparedSets, make_backup_host, tree
from tests.database.cluster import Cluster
from tests.database.prefork import Prefork

FILES = [DUMP, GLOBALS, MANIFEST, VERIFIED]

# Corrupts a set. Arguments: the set, an intact set, and a source of random numbers. Returns a description and
# the name of the set afterwards.
Corruption = Callable[[Path, Path, Random], tuple[str, str]]


def editing(change: Callable[[bytearray, Random], str]) -> Callable[[str], Corruption]:
    """Return a function that makes a corruption of the bytes of a file, given by its name."""

    def of(name: str) -> Corruption:
        def corrupt(target: Path, _: Path, chance: Random) -> tuple[str, str]:
            content = bytearray((target / name).read_bytes())
            what = change(content, chance)
            (target / name).write_bytes(content)
            return f"{name}: {what}", target.name

        return corrupt

    return of


@editing
def flip(content: bytearray, chance: Random) -> str:
    at, bit = chance.randrange(len(content)), chance.randrange(8)
    content[at] ^= 1 << bit
    return f"bit {bit} of byte {at} of {len(content)} flipped"


@editing
def truncate(content: bytearray, chance: Random) -> str:
    size = len(content)
    del content[chance.randrange(1, size) :]
    return f"{len(content)} of {size} bytes left"


@editing
def cut(content: bytearray, chance: Random) -> str:
    start = chance.randrange(len(content) - 1)
    end = min(start + chance.randrange(1, 512), len(content) - 1)
    del content[start:end]
    return f"bytes {start} to {end} removed"


@editing
def overwrite(content: bytearray, chance: Random) -> str:
    """Replace a sector with zeros or with random bytes."""
    start = chance.randrange(0, len(content), 512)
    length = len(content[start : start + 512])
    content[start : start + 512] = bytes(length) if chance.random() < 0.5 else chance.randbytes(length)
    return f"{length} bytes from {start} replaced"


@editing
def extend(content: bytearray, chance: Random) -> str:
    more = chance.choice([b"\n", b" ", b"\0", chance.randbytes(chance.randrange(1, 64))])
    content.extend(more)
    return f"{more!r} added"


def empty(name: str) -> Corruption:
    def change(target: Path, _: Path, __: Random) -> tuple[str, str]:
        (target / name).write_bytes(b"")
        return f"{name} emptied", target.name

    return change


def miss(name: str) -> Corruption:
    def change(target: Path, _: Path, __: Random) -> tuple[str, str]:
        (target / name).unlink()
        return f"{name} removed", target.name

    return change


def become_directory(name: str) -> Corruption:
    def change(target: Path, _: Path, __: Random) -> tuple[str, str]:
        (target / name).unlink()
        (target / name).mkdir()
        return f"{name} is a directory", target.name

    return change


def become_link(name: str, where: str) -> Corruption:
    """Replace a file with a link to nothing, to the file of the other set, or to the file outside the set."""

    def change(target: Path, other: Path, _: Random) -> tuple[str, str]:
        file = target / name
        goal = {"nothing": target / "nothing", "other": other / name, "same": target.parent / f"{name}.away"}
        file.rename(target.parent / f"{name}.away")
        file.symlink_to(goal[where])
        return f"{name} is a link to {where}", target.name

    return change


def swap(*names: str) -> Corruption:
    def change(target: Path, other: Path, _: Random) -> tuple[str, str]:
        for name in names:
            between = target / "between"
            (target / name).rename(between)
            (other / name).rename(target / name)
            between.rename(other / name)
        return f"{' and '.join(names)} swapped with another set's", target.name

    return change


def take(name: str) -> Corruption:
    def change(target: Path, other: Path, _: Random) -> tuple[str, str]:
        shutil.copy2(other / name, target / name)
        return f"{name} is another set's", target.name

    return change


def rename(how: str) -> Corruption:
    def change(target: Path, other: Path, _: Random) -> tuple[str, str]:
        name = {
            "number": f"{target.name[:-6]}{'0' * 6}",
            "time": target.name.replace(target.name.split("-")[1], "20200101T000000Z"),
            "other": other.name,
        }[how]
        if how == "other":
            other.rename(other.with_name("away"))
        target.rename(target.with_name(name))
        return f"renamed to {name}", name

    return change


# Edits of the manifest, by the name of the field.
EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "rows": lambda body: body["contents"]["tables"]["public.predictions"].update(rows=7),
    "hash": lambda body: body["contents"]["tables"]["public.room_transitions"].update(hashes="1"),
    "lost table": lambda body: body["contents"]["tables"].pop("public.predictions"),
    "more tables": lambda body: body["contents"]["tables"].update(new={"rows": 0, "hashes": "0"}),
    "sequence": lambda body: body["contents"]["sequences"].update({"public.predictions_id_seq": 10**6}),
    "partition": lambda body: body["contents"]["partitions"].popitem(),
    "large objects": lambda body: body["contents"]["large_objects"].update(rows=7),
    "contents of large objects": lambda body: body["contents"]["large_objects"].update(hashes="1"),
    "extension": lambda body: body["contents"]["extensions"].update(pg_trgm="1.6"),
    "revision": lambda body: body["contents"].update(revision="003_time_ordered_readings"),
    "unknown revision": lambda body: body["contents"].update(revision="999_unknown"),
    "no revision": lambda body: body["contents"].update(revision=None),
    "version": lambda body: body.update(server_version_num=150008),
    "database": lambda body: body.update(database="other"),
    "id": lambda body: body.update(id=f"{LIVE}-20200101T000000Z-000000"),
    "format": lambda body: body.update(format=3),
    "superuser": lambda body: body.update(superuser="root"),
    "files": lambda body: body["files"].update({"more.sql": body["files"][GLOBALS]}),
    "size": lambda body: body["files"][DUMP].update(bytes=1),
    "checksum of a file": lambda body: body["files"][DUMP].update(sha256="0" * 64),
}


def edit_manifest(field: str, editor: str) -> Corruption:
    """Edit the manifest.

    Args:
        field: The field, a key of EDITS.
        editor: ``text`` changes the text only, ``checksum`` also corrects the checksum of the manifest, and
            ``seals`` also corrects the record of the verification.
    """

    def change(target: Path, _: Path, __: Random) -> tuple[str, str]:
        file = target / MANIFEST
        body = json.loads(file.read_bytes())
        EDITS[field](body)
        if editor == "text":
            file.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")
        else:
            reseal(target, body, verified=editor == "seals")
        return f"the manifest's {field} edited, {editor}", target.name

    return change


def reseal(target: Path, body: dict[str, Any], *, verified: bool) -> None:
    del body["checksum"]
    (target / MANIFEST).write_bytes(Manifest.model_validate(body).seal())
    if verified:
        seal = Verified.unseal(target / VERIFIED)
        digest = file_facts(target / MANIFEST).sha256
        (target / VERIFIED).write_bytes(seal.model_copy(update={"manifest": digest}).seal())


def pass_off(target: Path, other: Path, _: Random) -> tuple[str, str]:
    """Use the dump of another set, and correct all checksums: only the restored content is different."""
    shutil.copy2(other / DUMP, target / DUMP)
    body = json.loads((target / MANIFEST).read_bytes())
    body["files"][DUMP] = file_facts(target / DUMP).model_dump()
    reseal(target, body, verified=True)
    return "another set's dump under corrected checksums", target.name


# The forms of each kind of corruption.
KINDS: dict[str, list[Corruption]] = {
    "flipped": [flip(name) for name in FILES],
    "truncated": [truncate(name) for name in FILES],
    "cut": [cut(name) for name in FILES],
    "overwritten": [overwrite(name) for name in FILES],
    "extended": [extend(name) for name in FILES],
    "emptied": [empty(name) for name in FILES],
    "missing": [miss(name) for name in FILES if name != VERIFIED],
    "directory": [become_directory(name) for name in FILES],
    "link": [become_link(name, where) for name in FILES for where in ("nothing", "other", "same")],
    # Both files globals.sql have the same content, so swapping or copying them alone changes nothing.
    "swapped": [
        swap(*names) for names in [(DUMP,), (MANIFEST,), (VERIFIED,), (MANIFEST, VERIFIED), (DUMP, GLOBALS)]
    ],
    "taken": [take(name) for name in FILES if name != GLOBALS],
    "renamed": [rename(how) for how in ("number", "time", "other")],
    "edited": [
        edit_manifest(field, editor)
        for field in EDITS
        for editor in ("text", "checksum", "seals")
        # A restore does not use the name of the superuser.
        if (field, editor) != ("superuser", "seals")
    ],
    "passed off": [pass_off],
}
FORMS = [(kind, form) for kind, forms in KINDS.items() for form in range(len(forms))]
CHANCE = ["flipped"] * 6 + ["truncated", "cut", "overwritten", "extended"]
"""Kinds of the random corruptions, with their weights."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "corruption" in metafunc.fixturenames:
        count, seed = (metafunc.config.getoption(name) for name in ("corruptions", "corruption_seed"))
        chance = Random(seed)
        drawn = [(kind, chance.randrange(len(KINDS[kind]))) for kind in chance.choices(CHANCE, k=count)]
        cases = [(*case, f"{seed}.{number}") for number, case in enumerate([*FORMS, *drawn][:count])]
        metafunc.parametrize("corruption", cases, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")


@pytest.fixture(scope="module")
def shared(
    cluster: Cluster, prepared: PreparedSets, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackupHost]:
    with make_backup_host(cluster, prepared, prefork, tmp_path_factory.mktemp("corruptions")) as backup_host:
        yield backup_host


@pytest.fixture
def target(shared: BackupHost, prepared: PreparedSets) -> Path:
    """The newest set, without corruption."""
    shutil.rmtree(shared.sets)
    shutil.copytree(prepared.sets, shared.sets)
    return shared.sets / prepared.new


@pytest.mark.corruption
def test_a_corrupted_set_fails_verification_and_is_not_restored(
    shared: BackupHost, prepared: PreparedSets, target: Path, corruption: tuple[str, int, str]
) -> None:
    kind, form, chance = corruption
    what, name = KINDS[kind][form](target, shared.sets / prepared.old, Random(chance))
    what = f"{what} (chance {chance})"
    before = live(shared)

    restored = shared.restore(name, "--without-safety-backup")
    assert restored.returncode in REFUSALS, f"{what}: {restored.stderr}"
    assert live(shared) == before, what

    verified = shared.backup("verify", name)
    assert verified.returncode in REFUSALS, f"{what}: {verified.stdout}{verified.stderr}"
    for said in (restored.stderr, verified.stderr):
        assert said.startswith("error: "), what
        assert "Traceback" not in said, what
    # A set of another version is refused, but not damaged.
    assert shared.states().get(name) != "verified" or verified.returncode == ExitCode.UNSUITABLE, what


REFUSALS = {ExitCode.DAMAGED, ExitCode.DIFFERENT, ExitCode.PROGRAM, ExitCode.UNSUITABLE}


def live(backup_host: BackupHost) -> tuple[Any, ...]:
    """Return the OID of the live database, and a fingerprint of its rows."""
    return backup_host.query(
        f"SELECT oid FROM pg_database WHERE datname = '{LIVE}'"
    ), backup_host.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_the_intact_set_passes_verification(
    shared: BackupHost, prepared: PreparedSets, target: Path, kind: str
) -> None:
    good, other = tree(shared.sets), shared.sets / prepared.old
    KINDS[kind][0](target, other, Random(kind))
    assert tree(shared.sets) != good
    assert shared.backup("verify", prepared.new).returncode != 0

    for path in shared.sets.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.copytree(prepared.sets, shared.sets, dirs_exist_ok=True)
    verified = shared.backup("verify", prepared.new, prepared.old)
    assert verified.returncode == 0, verified.stderr
    assert shared.states() == {prepared.old: "verified", prepared.new: "verified"}


def test_an_intact_set_is_restored(shared: BackupHost, target: Path) -> None:
    before = shared.fingerprint("public")
    shared.cluster.execute("DELETE FROM predictions", database=LIVE)
    assert shared.fingerprint("public") != before
    restored = shared.restore(target.name, "--without-safety-backup")
    assert restored.returncode == 0, restored.stderr
    assert shared.fingerprint("public") == before
    assert shared.states()[target.name] == "verified"


def test_an_unverified_set_is_restored_only_after_verification(shared: BackupHost, target: Path) -> None:
    (target / VERIFIED).unlink()
    before = live(shared)
    refused = shared.restore(target.name)
    assert refused.returncode == ExitCode.DAMAGED
    assert "has not been verified" in refused.stderr
    assert live(shared) == before
    assert shared.backup("verify", target.name).returncode == 0
    assert shared.restore(target.name, "--without-safety-backup").returncode == 0
