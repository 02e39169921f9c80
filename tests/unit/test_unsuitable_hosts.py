"""Preflight's verdict on machines whose disk or kernel cannot carry the server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

HOSTS: list[tuple[dict[str, Any], str]] = [
    ({"file_system": "exfat"}, "/var/lib/occupancy is on exfat"),
    ({"file_system": "cifs"}, "/var/lib/occupancy is on cifs"),
    ({"memory_controller": False}, "add cgroup_enable=memory to the kernel's command line"),
]


@pytest.mark.parametrize(("host", "says"), HOSTS)
def test_a_host_that_cannot_carry_the_server_is_refused(host: dict[str, Any], says: str) -> None:
    (said,) = problems(host=host)
    assert says in said


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "zfs", "overlay", ""])
def test_other_file_systems_are_accepted(name: str) -> None:
    assert problems(host={"file_system": name}) == []
