"""Commands that are paused at the place of a fault, and assertions about the state after the fault."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.database.backup_host import LIVE, BackupHost, PreparedSets, tree, user_of
from tests.database.users import ROOT
from tests.waiting import LIMIT, wait_for

PROGRAM = Path(__file__).with_name("program.py")
CONFIRMED = ("--confirm", LIVE, "--without-safety-backup")
KEEP_ONE = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
    "BACKUP_KEEP_LAST": 1
}
"""With these variables, a successful run removes all earlier sets; a failed run must remove none."""


class Process:
    """A command in a separate process, which can be paused at a place in its code."""

    def __init__(
        self,
        backup_host: BackupHost,
        *arguments: str,
        environment: Mapping[str, Any] | None = None,
        **fault: Any,
    ) -> None:
        directory = Path(tempfile.mkdtemp(dir=backup_host.database.directory))
        self._files = {name: directory / name for name in ("reached", "go", "stdout", "stderr")}
        changes = backup_host.changes(
            user_of(arguments),
            FAULT=json.dumps({**fault, "directory": str(directory)}),
            PYTHONPATH=ROOT,
            **(environment or {}),
        )
        with self._files["stdout"].open("w") as stdout, self._files["stderr"].open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, *arguments],
                env=backup_host.database.environment(**changes),
                cwd=backup_host.database.directory,
                stdout=stdout,
                stderr=stderr,
            )
        self._held = "hold" in fault

    def wait_until_held(self) -> None:
        """Wait until the command has reached its place, and is paused."""
        if self._held:
            wait_for(
                lambda: self._files["reached"].exists() or self.process.poll() is not None,
                "the command at the place of the fault",
                explain=self._files["stderr"].read_text,
            )
            assert self._files["reached"].exists(), self.finish().stderr

    def resume(self) -> None:
        self._files["go"].touch()

    def finish(self) -> CompletedProcess[str]:
        """Resume the command, and wait for its end."""
        self.resume()
        code = self.process.wait(LIMIT)
        return CompletedProcess(
            [], code, self._files["stdout"].read_text(), self._files["stderr"].read_text()
        )

    def children(self) -> dict[int, str]:
        """All descendants of the process, by process ID."""
        parents, found = {}, {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                name, rest = status.read_text().split("(", 1)[1].rsplit(")", 1)
                parents[int(status.parent.name)] = int(rest.split()[1]), name
        family = {self.process.pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
            family |= more
            found.update({pid: parents[pid][1] for pid in more})
        return found

    def child(self, name: str) -> int:
        """The process ID of the first descendant with this name."""
        wait_for(lambda: name in self.children().values(), name)
        return min(pid for pid, found in self.children().items() if found == name)


def alive(pids: dict[int, str]) -> dict[int, str]:
    """Return the processes that still run, without zombies."""
    found = {}
    for pid, name in pids.items():
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found[pid] = name
    return found


class FaultEnvironment:
    """A BackupHost, and the state of its sets and its database before the fault."""

    def __init__(self, backup_host: BackupHost, prepared: PreparedSets) -> None:
        self.host = backup_host
        self.started: list[Process] = []
        self.prepared = prepared
        self.sets = {name: tree(backup_host.sets / name) for name in (prepared.old, prepared.new)}
        self.live = self.read_live()

    def start(self, *arguments: str, environment: Mapping[str, Any] | None = None, **fault: Any) -> "Process":
        """Start a command in a separate process, with a fault as described in program.py."""
        process = Process(self.host, *arguments, environment=environment, **fault)
        self.started.append(process)
        process.wait_until_held()
        return process

    def close(self) -> None:
        """End all processes, also those of a test that failed."""
        for process in self.started:
            for pid in [process.process.pid, *process.children()] if process.process.poll() is None else []:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.process.wait(LIMIT)

    def read_live(self) -> tuple[Any, ...]:
        """The OID of the live database, and a fingerprint of its rows."""
        oid = self.host.query(f"SELECT oid FROM pg_database WHERE datname = '{LIVE}'", "postgres")
        return oid, self.host.fingerprint()

    def assert_unchanged(self) -> None:
        """Assert that the backup sets and the live database have not changed."""
        assert {name: tree(self.host.sets / name) for name in self.sets} == self.sets
        assert self.read_live() == self.live

    def assert_survived(self, proof: str = "verify") -> None:
        """Assert that sets and database have not changed, and that the last set can be used.

        Args:
            proof: How to use the last set or the commands: verify, restore or create.
        """
        self.assert_unchanged()
        states = self.host.states()
        assert all(states[name] == "verified" for name in self.sets), states
        if proof == "restore":
            self.assert_restore_works()
        else:
            done = self.host.backup("verify", self.prepared.new)
            assert done.returncode == 0, done.stderr
        if proof == "create":
            self.assert_backup_works()

    def assert_backup_works(self) -> None:
        """Assert that a new backup is created and verified, and leaves no temporary files."""
        done = self.host.backup("create", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["state"] == "verified"
        # A container is removed with its temporary directory, so files there may remain.
        left = [path for path in self.host.unfinished() if not path.startswith(str(self.host.temporary))]
        assert left == []

    def assert_restore_works(self) -> None:
        """Assert that the last verified set can be restored."""
        cleaned = self.host.cli("restore-cleanup")
        assert cleaned.returncode == 0, cleaned.stderr
        assert self.host.databases() <= {LIVE, f"{LIVE}_replaced"}
        done = self.host.restore(self.prepared.new, "--without-safety-backup")
        assert done.returncode == 0, done.stderr
        rows = self.host.fingerprint("public")
        assert rows.items() <= self.live[1].items()
        assert rows


def unverified(fault_env: FaultEnvironment) -> list[str]:
    return [name for name, state in fault_env.host.states().items() if state == "unverified"]


# Places where a command can be paused: the function that is called, and a pattern of its arguments.
CREATING = {
    "check": ("occupancy_db.backup.create:run_program", "--schema-only"),
    "decode": ("occupancy_db.backup.create:run_program", "--file=/dev/null', .*db.dump"),
    "publish": ("occupancy_db.backup.sets:sync", r"\.partial-"),
    "published": ("occupancy_db.backup.create:rehearse", ""),
    "rehearse, restoring": ("occupancy_db.backup.rehearsal:restore_copy", ""),
    "rehearse, comparing": ("occupancy_db.backup.rehearsal:compare", ""),
    "record the verification": ("occupancy_db.backup.files:sync", r"\.verified\.json\.new"),
}
RESTORING = {
    "before anything": ("occupancy_db.backup.restore:_restore_beside_live", ""),
    "restore": ("occupancy_db.backup.copying:run_program", "--exit-on-error"),
    "compare": ("occupancy_db.backup.restore:compare", ""),
    "prepare": ("occupancy_db.backup.restore:grant", ""),
    "try": ("occupancy_db.schema.privileges:verify_privileges", "occupancy_readonly"),
    "before the exchange": ("occupancy_db.backup.restore:exchange", ""),
    # Both databases have been renamed in a transaction that is then not committed.
    "in the exchange": ("sqlalchemy.ext.asyncio:AsyncConnection.exec_driver_sql", "replaced at"),
}


@contextmanager
def changed(backup_host: BackupHost, change: str, back: str) -> Iterator[None]:
    """Change something of the whole server, and revert the change at the end of the block."""
    backup_host.cluster.execute(change)
    try:
        yield
    finally:
        backup_host.cluster.execute(back)


WAITING_DUMP = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pg_ts_template%'"
)


@contextmanager
def dump_that_waits(
    fault_env: FaultEnvironment, *arguments: str, environment: Mapping[str, Any] | None = None
) -> Iterator[Process]:
    """Start a pg_dump that waits, until the block ends, for a lock on a catalog that only pg_dump reads."""
    process = fault_env.start(
        *(arguments or ("backup", "create")), environment=environment,
        hold="occupancy_db.backup.create:run_program", when="--snapshot=",
    )  # fmt: skip
    blocker = fault_env.host.cluster.connect(LIVE)
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE pg_ts_template IN ACCESS EXCLUSIVE MODE")
    process.resume()
    wait_for(lambda: fault_env.host.query(WAITING_DUMP, "postgres"), "pg_dump")
    try:
        yield process
    finally:
        blocker.close()
        process.process.wait(LIMIT)
