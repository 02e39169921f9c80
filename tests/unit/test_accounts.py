"""Who has the ids of the containers' users on a host, and how others are kept out of a directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioning import accounts
from provisioning.variables import ROLES

WANTED = [{"name": "occupancy-server", "uid": "999"}, {"name": "occupancy-tools", "uid": "10001"}]
OURS = {"999": "occupancy-server", "10001": "occupancy-tools"}
NOBODY = {"999": "", "10001": ""}


@pytest.mark.parametrize(
    ("host", "missing", "foreign"),
    [
        ({"accounts": NOBODY, "subuid": "me:100000:65536\n"}, ["occupancy-server", "occupancy-tools"], {}),
        ({"accounts": OURS, "subuid": ""}, [], {}),
        (
            {"accounts": NOBODY | {"999": "systemd-coredump"}, "subuid": ""},
            ["occupancy-tools"],
            {"999": "systemd-coredump"},
        ),
        (
            {"accounts": NOBODY, "subuid": "odd\nme:10000:65536\n"},
            ["occupancy-server"],
            {"10001": "me (/etc/subuid)"},
        ),
        ({"accounts": NOBODY, "subuid": "me:9999:2\n"}, ["occupancy-server", "occupancy-tools"], {}),
    ],
)
def test_free_ids_are_kept_and_others_are_named(
    host: dict[str, Any], missing: list[str], foreign: dict[str, str]
) -> None:
    assert [each["name"] for each in accounts.missing(host, WANTED)] == missing
    assert accounts.foreign(host, WANTED) == foreign


def keep_out(*arguments: str | Path) -> str:
    program = ROLES / "occupancy/files/keep_out.py"
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_id_is_kept_out_of_a_directory_whatever_it_owns_there(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    try:
        os.setxattr(directory, "user.probe", b"1")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    assert keep_out(directory, "check", "999") == "changed"
    assert keep_out(directory, "write", "999", "10001") == "changed"
    assert keep_out(directory, "write", "10001", "999") == ""
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert keep_out(directory, "write", "999") == "changed"
