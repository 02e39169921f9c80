"""occupancy-offsite: what happens to the tokens that rclone renews. molecule/backup has the copies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provisioning.variables import ROLES

SCRIPT = ROLES / "backup/files/occupancy-offsite.sh"
GIVEN = '[store]\ntype = box\ntoken = {"refresh_token":"token-0"}\n'

RCLONE = """#!/bin/sh
# As rclone 1.60 saves a token: a new file, which replaces the former one
set -e
echo "$@" >>"$LOG"
env >>"$LOG"
[ "$1" = mkdir ] || exit 0
number=$(sed -n 's/.*"token-\\([0-9]*\\)".*/\\1/p' "$RCLONE_CONFIG")
sed "s/token-$number/token-$((number + 1))/" "$RCLONE_CONFIG" >"$RCLONE_CONFIG.123"
chmod 600 "$RCLONE_CONFIG.123"
mv "$RCLONE_CONFIG" "$RCLONE_CONFIG.old"
mv "$RCLONE_CONFIG.123" "$RCLONE_CONFIG"
rm "$RCLONE_CONFIG.old"
[ ! -e "$FAIL" ] || kill -9 $PPID
"""


class Offsite:
    """A host's directory, the script, and a stub in place of rclone that renews its token in each run."""

    def __init__(self, place: Path) -> None:
        self.opt, self.log, self.failing = place / "opt", place / "log", place / "fail"
        self.given, self.own = self.opt / "rclone.conf", self.opt / "rclone"
        self._programs = place / "bin"
        for directory in (self.opt, self._programs, place / "data/backups"):
            directory.mkdir(parents=True)
        (self.opt / ".env").write_text(
            f"OCCUPANCY_DATA_DIR={place}/data\nOCCUPANCY_OPS_UID=10001\nOCCUPANCY_DATABASE=occupancy\n"
        )
        self.write(GIVEN)
        self._script = place / "occupancy-offsite"
        self._script.write_text(SCRIPT.read_text().replace("/opt/occupancy", str(self.opt)))
        for name, text in {"rclone": RCLONE, "setpriv": '#!/bin/sh\nshift 3\nexec "$@"\n'}.items():
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)

    def write(self, text: str) -> None:
        """Write the file as Ansible does."""
        self.given.write_text(text)
        self.given.chmod(0o600)

    def run(self) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "FAIL": str(self.failing),
        }
        command = ["bash", str(self._script), "store:homes/one", "48", "age1x"]
        return subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False, umask=0o22
        )

    def token(self) -> str:
        return (self.own / "rclone.conf").read_text().split('"')[3]


@pytest.fixture
def offsite(tmp_path: Path) -> Offsite:
    return Offsite(tmp_path)


def test_the_next_run_has_the_token_that_rclone_has_renewed(offsite: Offsite) -> None:
    for number in (1, 2, 3):
        done = offsite.run()
        assert done.returncode == 0, done.stderr
        assert offsite.token() == f"token-{number}"
    assert offsite.given.read_text() == GIVEN  # the playbook sees no change
    modes = {path.name: path.stat().st_mode & 0o777 for path in (offsite.own, *offsite.own.iterdir())}
    assert modes == {"rclone": 0o700, "rclone.conf": 0o600, "of": 0o644}
    assert (
        "token-" not in offsite.log.read_text() + done.stdout + done.stderr
    )  # arguments, environment, output


def test_a_run_that_is_killed_keeps_the_token(offsite: Offsite) -> None:
    offsite.failing.touch()
    assert offsite.run().returncode == -9
    assert offsite.token() == "token-1"
    offsite.failing.unlink()
    assert offsite.run().returncode == 0
    assert offsite.token() == "token-2"


def test_a_changed_configuration_of_the_inventory_wins(offsite: Offsite) -> None:
    offsite.run()
    offsite.write(GIVEN.replace("token-0", "token-50"))
    assert offsite.run().returncode == 0
    assert offsite.token() == "token-51"
    assert offsite.run().returncode == 0
    assert offsite.token() == "token-52"


def test_an_interrupted_change_is_repeated(offsite: Offsite) -> None:
    offsite.run()
    (offsite.own / "of").unlink()  # the copy was made, and not yet named
    (offsite.own / "new").write_text("half")
    assert offsite.run().returncode == 0
    assert offsite.token() == "token-1"
    (offsite.own / "rclone.conf").unlink()
    assert offsite.run().returncode == 0
    assert offsite.token() == "token-1"
