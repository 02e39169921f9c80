"""Sets are signed: one that was made or changed elsewhere is neither verified nor restored."""

import json
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.backup.manifest import DUMP, GLOBALS, MANIFEST, SIGNATURE, VERIFIED, file_facts
from occupancy_db.errors import ExitCode
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets, make_backup_host, tree
from tests.database.cluster import Cluster
from tests.database.prefork import Prefork
from tests.database.users import grant
from tests.packages import debian_package

prepared = hosts.prepared

MINISIGN = debian_package("minisign", "/bin/minisign")


class SigningHost:
    """A BackupHost with keys.

    Attributes:
        host: The host.
        trusted: The file of the public keys that it trusts.
    """

    def __init__(self, host: BackupHost) -> None:
        self.host = host
        self.keys = host.directory / "signing"
        self.keys.mkdir()
        self.trusted = self.keys / "trusted.pub"
        self.environment: dict[str, Any] = {
            "BACKUP_SIGNING_KEY": self.keys / "key",
            "BACKUP_TRUSTED_KEYS": self.trusted,
        }
        self.environment["PATH"] = f"{host.changes('occupancy_backup')['PATH']}:{MINISIGN.parent}"

    def make_key(self, *, trust: bool = True, name: str = "key") -> Path:
        """Make a pair of keys as role backup does."""
        key = self.keys / name
        key.unlink(missing_ok=True)
        subprocess.run(
            [MINISIGN, "-G", "-W", "-f", "-p", self.keys / f"{name}.pub", "-s", key],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        if trust:
            with self.trusted.open("a") as file:
                file.write((self.keys / f"{name}.pub").read_text())
        return key

    def backup(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.host.backup(*arguments, **self.environment, **more)

    def restore(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.host.restore(name, "--without-safety-backup", *arguments, **self.environment)

    def make_set(self) -> Path:
        made = self.backup("create", "--json")
        assert made.returncode == 0, made.stderr
        return Path(json.loads(made.stdout)["path"])


@pytest.fixture(scope="module")
def signing(
    cluster: Cluster, prepared: PreparedSets, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SigningHost, Path]]:
    """A host with a key, and a signed set."""
    with make_backup_host(cluster, prepared, prefork, tmp_path_factory.mktemp("signatures")) as host:
        found = SigningHost(host)
        found.make_key()
        yield found, found.make_set()


def sign(target: Path, key: Path) -> None:
    subprocess.run(
        [MINISIGN, "-S", "-s", key, "-m", target / MANIFEST, "-x", target / SIGNATURE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )


def reseal(target: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of a set, and correct every checksum, as anybody can."""
    from tests.faults.test_corruptions import reseal as seal

    body = json.loads((target / MANIFEST).read_bytes())
    change(body)
    seal(target, body, verified=True)


def forged_dump(_: SigningHost, target: Path, other: Path) -> None:
    shutil.copy2(other / DUMP, target / DUMP)
    tables = json.loads((other / MANIFEST).read_bytes())["contents"]
    reseal(
        target,
        lambda body: body.update(
            contents=tables, files={name: file_facts(target / name).model_dump() for name in (DUMP, GLOBALS)}
        ),
    )


def signed_by_another(host: SigningHost, target: Path, __: Path) -> None:
    sign(target, host.make_key(trust=False, name="stranger"))


def signature_of_another_set(_: SigningHost, target: Path, __: Path) -> None:
    reseal(target, lambda body: body.update(image="another"))


def altered_signature(_: SigningHost, target: Path, __: Path) -> None:
    lines = (target / SIGNATURE).read_text().splitlines()
    lines[1] = lines[1][:40] + ("A" if lines[1][40] != "A" else "B") + lines[1][41:]
    (target / SIGNATURE).write_text("\n".join(lines) + "\n")


def altered_comment(_: SigningHost, target: Path, __: Path) -> None:
    text = (target / SIGNATURE).read_text()
    (target / SIGNATURE).write_text(text.replace(target.name, f"{target.name[:-1]}x"))


def empty_signature(_: SigningHost, target: Path, __: Path) -> None:
    (target / SIGNATURE).write_text("")


def linked_signature(host: SigningHost, target: Path, __: Path) -> None:
    (target / SIGNATURE).rename(host.keys / "away")
    (target / SIGNATURE).symlink_to(host.keys / "away")


FORGERIES = [
    forged_dump, signed_by_another, signature_of_another_set, altered_signature, altered_comment,
    empty_signature, linked_signature,
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_set_is_refused_whatever_the_options(
    signing: tuple[SigningHost, Path],
    prepared: PreparedSets,
    forge: Callable[[SigningHost, Path, Path], None],
) -> None:
    host, made = signing
    kept = host.keys / "kept"
    shutil.copytree(made, kept)
    before = host.host.fingerprint("public")
    try:
        forge(host, made, host.host.sets / prepared.old)
        for done in (
            host.backup("verify", made.name),
            host.backup("verify", made.name, "--unsigned"),
            host.restore(made.name),
            host.restore(made.name, "--unsigned"),
        ):
            assert done.returncode == ExitCode.DAMAGED, done.stdout + done.stderr
            assert made.name in done.stderr
            assert len(done.stderr.splitlines()) == 1
        assert host.host.fingerprint("public") == before
        assert host.host.databases() == {LIVE}
    finally:
        shutil.rmtree(made)
        kept.rename(made)


def test_the_intact_set_is_verified_and_restored(signing: tuple[SigningHost, Path]) -> None:
    host, made = signing
    assert stat.S_IMODE((made / SIGNATURE).stat().st_mode) == 0o600
    verified = host.backup("verify", made.name)
    assert verified.returncode == 0, verified.stderr
    restored = host.restore(made.name)
    assert restored.returncode == 0, restored.stderr


def test_a_set_without_a_signature_needs_the_option(
    signing: tuple[SigningHost, Path], prepared: PreparedSets
) -> None:
    host, _ = signing
    for done in (host.backup("verify", prepared.new), host.restore(prepared.new)):
        assert done.returncode == ExitCode.DAMAGED
        assert f"{prepared.new} is not signed" in done.stderr
        assert "--unsigned" in done.stderr
    assert host.host.states()[prepared.new] == "verified", "a missing signature is no damage"
    verified = host.backup("verify", prepared.new, "--unsigned")
    assert verified.returncode == 0, verified.stderr
    restored = host.restore(prepared.new, "--unsigned")
    assert restored.returncode == 0, restored.stderr


def test_sets_of_before_the_key_are_signed_on_request(
    signing: tuple[SigningHost, Path], prepared: PreparedSets
) -> None:
    host, made = signing
    before = tree(made)
    signed = host.backup("sign", "--json")
    assert signed.returncode == 0, signed.stderr
    assert json.loads(signed.stdout)["signed"] == [prepared.old, prepared.new]
    assert tree(made) == before
    assert host.backup("verify", prepared.old).returncode == 0
    for name in (prepared.old, prepared.new):
        (host.host.sets / name / SIGNATURE).unlink()


def test_a_rotated_key_stays_trusted_for_its_sets(signing: tuple[SigningHost, Path]) -> None:
    host, made = signing
    old = (host.keys / "key").read_bytes()
    host.make_key()
    assert (host.keys / "key").read_bytes() != old
    newer = host.make_set()
    for name in (made.name, newer.name):
        verified = host.backup("verify", name)
        assert verified.returncode == 0, verified.stderr
    # An operator who no longer trusts the old key removes its line.
    keys = host.trusted.read_text()
    host.trusted.write_text("\n".join(keys.splitlines()[2:]) + "\n")
    assert host.backup("verify", made.name).returncode == ExitCode.DAMAGED
    assert host.backup("verify", newer.name).returncode == 0
    host.trusted.write_text(keys)


def test_a_new_host_restores_with_the_public_keys_of_the_lost_one(
    signing: tuple[SigningHost, Path],
    cluster: Cluster,
    prepared: PreparedSets,
    prefork: Prefork,
    tmp_path: Path,
) -> None:
    lost, made = signing
    keys, copy = lost.trusted.read_text(), tmp_path / made.name
    shutil.copytree(made, copy)
    hosts.drop(cluster)
    with make_backup_host(cluster, prepared, prefork, tmp_path) as host:
        new = SigningHost(host)
        new.make_key()
        shutil.copytree(copy, host.sets / made.name)
        assert new.restore(made.name).returncode == ExitCode.DAMAGED
        with new.trusted.open("a") as file:
            file.write(keys)
        restored = new.restore(made.name)
        assert restored.returncode == 0, restored.stderr


def test_a_checkout_without_a_key_says_that_sets_are_not_signed(
    signing: tuple[SigningHost, Path], cluster: Cluster, prepared: PreparedSets
) -> None:
    host, _ = signing
    cluster.execute(f"DROP DATABASE IF EXISTS {LIVE} WITH (FORCE)")
    cluster.execute(f"CREATE DATABASE {LIVE} OWNER occupancy TEMPLATE {prepared.database}")
    grant(cluster, LIVE)
    made = host.host.backup("create")
    assert made.returncode == 0, made.stderr
    assert "not signed: there is no key" in made.stdout
    without = host.host.backup("create", **host.environment | {"PATH": cluster.bin})
    assert without.returncode == ExitCode.UNSUITABLE
    assert "there is no program minisign. Put it on PATH" in without.stderr
    assert host.host.unfinished() == []
    missing = host.host.backup("create", **host.environment | {"BACKUP_SIGNING_KEY": "/no/key"})
    assert missing.returncode == ExitCode.CONFIGURATION
    assert "the secret key that signs backup sets is missing" in missing.stderr


def test_no_secret_is_shown_in_arguments_or_output(signing: tuple[SigningHost, Path], tmp_path: Path) -> None:
    host, _ = signing
    secret = (host.keys / "key").read_text().splitlines()[1]
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "minisign"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/arguments\nenv >>{tmp_path}/arguments\nexec {MINISIGN} "$@"\n'
    )
    program.chmod(0o755)
    made = host.host.backup(
        "create", **host.environment | {"PATH": f"{directory}:{host.environment['PATH']}"}
    )
    assert made.returncode == 0, made.stderr
    shown = (tmp_path / "arguments").read_text()
    assert "-S" in shown
    assert secret not in shown + made.stdout + made.stderr
    assert VERIFIED in tree(sorted(host.host.sets.iterdir())[-1])
