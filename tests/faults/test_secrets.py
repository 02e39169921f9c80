"""Passwords are not visible in processes, files or output during and after a backup and a restore."""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.database.backup_host import LIVE
from tests.database.users import NAMES, ODD, PASSWORD, password
from tests.faults.environment import FaultEnvironment, Process

pytestmark = pytest.mark.fault

SECRETS = [form.encode() for form in (ODD, ODD.replace("\\", "\\\\").replace(":", "\\:"), PASSWORD)]
"""The passwords, and their forms in a pgpass file."""


PROGRAMS = ("pg_dump", "pg_restore", "postgres")
# Each of PostgreSQL's programs waits, with its arguments and environment, until the test has read them.
WRAPPER = """#!/bin/sh
name=$(basename "$0")
touch {directory}/started-$name-$$
until [ -e {directory}/seen-$name-$$ ]; do sleep 0.02; done
exec {programs}/$name "$@"
"""


class Watch(threading.Thread):
    """Reads the command lines and environments of a command and of its processes until the command ends."""

    def __init__(self, process: Process, temporary: Path, marks: Path) -> None:
        super().__init__()
        self.process = process
        self.temporary = temporary
        self.marks = marks
        self.seen: dict[str, bytes] = {}
        self.programs: set[str] = set()
        self.password_files: set[int] = set()

    def run(self) -> None:
        while self.process.process.poll() is None:
            waiting = list(self.marks.glob("started-*"))
            for pid, name in {self.process.process.pid: "itself", **self.process.children()}.items():
                self._read(pid, name)
            for file in self.temporary.glob("*/pgpass"):
                with suppress(OSError):
                    self.password_files.add(stat.S_IMODE(file.stat().st_mode))
            for mark in waiting:
                _, name, number = mark.name.split("-")
                self._read(int(number), name)
                self.programs.add(name)
                mark.rename(mark.with_name(f"seen-{name}-{number}"))

    def _read(self, pid: int, name: str) -> None:
        for kind in ("cmdline", "environ"):
            with suppress(OSError):  # it has ended
                self.seen[f"{name} {pid} {kind}"] = Path(f"/proc/{pid}/{kind}").read_bytes()


def install_wrappers(fault_env: FaultEnvironment) -> Path:
    """Write the wrappers, and return the directory of the programs and of their marks."""
    directory = fault_env.host.directory / "watched"
    directory.mkdir()
    directory.chmod(0o1777)  # the server of a rehearsal runs as another user where the tests run as root
    for name in PROGRAMS:
        (directory / name).write_text(
            WRAPPER.format(directory=directory, programs=fault_env.host.cluster.bin)
        )
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("command", [("backup", "create"), ("restore", "latest", "--confirm", LIVE)])
def test_no_password_is_visible(fault_env: FaultEnvironment, command: tuple[str, ...]) -> None:
    backup_host = fault_env.host
    marks = install_wrappers(fault_env)
    path = f"{marks}{os.pathsep}{backup_host.changes('occupancy_backup')['PATH']}"
    process = fault_env.start(*command, environment={"PATH": path})
    watch = Watch(process, backup_host.temporary, marks)
    watch.start()
    ended = process.finish()
    watch.join()
    assert ended.returncode == 0, ended.stderr

    # The test has read every program while it ran.
    assert watch.programs == set(PROGRAMS)
    assert any(key.startswith("itself ") for key in watch.seen)
    assert watch.password_files == {0o600}
    everywhere = {
        **watch.seen,
        **{str(path): path.read_bytes() for path in backup_host.directory.rglob("*") if path.is_file()},
        "the server's log": (backup_host.cluster.directory / "log").read_bytes(),
        "the output": (ended.stdout + ended.stderr).encode(),
    }
    found = {place for place, content in everywhere.items() if any(secret in content for secret in SECRETS)}
    assert found == {str(backup_host.secrets / name) for name in NAMES}
    assert all(password(name).encode() in everywhere[str(backup_host.secrets / name)] for name in NAMES)
    assert backup_host.unfinished() == []
