"""The verdict on machines whose disk or kernel cannot carry the server, or whose checkout cannot be used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

ROOT = Path(__file__).parents[2]

HOSTS: list[tuple[dict[str, Any], str]] = [
    ({"file_system": "exfat"}, "/var/lib/occupancy is on exfat"),
    ({"file_system": "cifs"}, "/var/lib/occupancy is on cifs"),
    ({"file_system": "9p"}, "/var/lib/occupancy is on 9p, which has no owners"),  # /mnt/c in WSL
    ({"file_system": "fuseblk"}, "is on fuseblk, which is served by a program"),
    ({"file_system": "fuse.sshfs"}, "is on fuse.sshfs, which is served by a program"),
    ({"file_system": "tmpfs"}, "is on tmpfs, which is memory"),
    ({"file_system": "ramfs"}, "is on ramfs, which is memory"),
    ({"file_system": "overlay", "kernel": {"container": "", "settings": {}}}, "raspi-config switches it off"),
    ({"file_system": "nfs4", "mount_options": "rw,vers=4.2,softerr,proto=tcp"}, "Mount it with hard"),
    ({"file_system": "nfs", "mount_options": "rw,soft"}, "Mount it with hard"),
    ({"memory_controller": False}, "add cgroup_enable=memory to the kernel's command line"),
]


@pytest.mark.parametrize(("host", "says"), HOSTS)
def test_a_host_that_cannot_carry_the_server_is_refused(host: dict[str, Any], says: str) -> None:
    (said,) = problems(host=host)
    assert says in said


@pytest.mark.parametrize(
    "host",
    [
        *({"file_system": name} for name in ("ext4", "xfs", "btrfs", "zfs", "f2fs", "virtiofs", "ceph", "")),
        {"file_system": "overlay", "kernel": {"container": "docker", "settings": {}}},
        {"file_system": "nfs4", "mount_options": "rw,relatime,vers=4.2,hard,proto=tcp"},
    ],
    ids=lambda host: host["file_system"],
)
def test_other_file_systems_are_accepted(host: dict[str, Any]) -> None:
    assert problems(host=host) == []


@pytest.mark.parametrize(("mode", "refused"), [(0o755, False), (0o775, False), (0o777, True)])
def test_a_checkout_that_every_user_can_write_to_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    tmp_path.chmod(mode)
    done = subprocess.run(
        ["make", "--dry-run", "up"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) is refused, done.stdout + done.stderr
    assert ("chmod o-w ." in done.stderr and "in WSL" in done.stderr) is refused
    assert ("ansible-playbook" in done.stdout) is not refused
