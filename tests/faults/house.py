"""A site with a fault in it: commands held where the fault belongs, and what must be true afterwards."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.database.site import LIVE, Site, Stock, tree, user_of
from tests.database.users import ROOT

PROGRAM = Path(__file__).with_name("program.py")
CONFIRMED = ("--confirm", LIVE, "--without-safety-backup")
KEEP_ONE = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
    "BACKUP_KEEP_LAST": 1
}
"""With these a run that succeeds removes every set but its own; one that fails must remove none."""

LIMIT = 60.0
"""Seconds after which what is waited for will not come."""


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)


class Process:
    """A command that runs beside the test, and can be held where a fault belongs."""

    def __init__(
        self, site: Site, *arguments: str, environment: Mapping[str, Any] | None = None, **fault: Any
    ) -> None:
        directory = Path(tempfile.mkdtemp(dir=site.database.directory))
        self._files = {name: directory / name for name in ("reached", "go", "stdout", "stderr")}
        changes = site.changes(
            user_of(arguments),
            FAULT=json.dumps({**fault, "directory": str(directory)}),
            PYTHONPATH=ROOT,
            **(environment or {}),
        )
        with self._files["stdout"].open("w") as stdout, self._files["stderr"].open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, PROGRAM, *arguments],
                env=site.database.environment(**changes),
                cwd=site.database.directory,
                stdout=stdout,
                stderr=stderr,
            )
        self._held = "hold" in fault

    def reach(self) -> None:
        """Wait until it is where it is to be held."""
        if self._held:
            wait_for(lambda: self._files["reached"].exists() or self.process.poll() is not None, "the place")
            assert self._files["reached"].exists(), self.end().stderr

    def go(self) -> None:
        self._files["go"].touch()

    def end(self) -> CompletedProcess[str]:
        """Let it go on to its end."""
        self.go()
        code = self.process.wait(LIMIT)
        return CompletedProcess(
            [], code, self._files["stdout"].read_text(), self._files["stderr"].read_text()
        )

    def children(self) -> dict[int, str]:
        """The processes that it has made, and those that these have made."""
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
        """The first of its processes with this name."""
        wait_for(lambda: name in self.children().values(), name)
        return min(pid for pid, found in self.children().items() if found == name)


def alive(pids: dict[int, str]) -> dict[int, str]:
    """Those that still run, zombies apart."""
    found = {}
    for pid, name in pids.items():
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found[pid] = name
    return found


class House:
    """A site, and what was there before the fault."""

    def __init__(self, site: Site, stock: Stock) -> None:
        self.site = site
        self.started: list[Process] = []
        self.stock = stock
        self.sets = {name: tree(site.sets / name) for name in (stock.old, stock.new)}
        self.live = self.look()

    def start(self, *arguments: str, environment: Mapping[str, Any] | None = None, **fault: Any) -> "Process":
        """A command beside the test: see program.py for the fault."""
        process = Process(self.site, *arguments, environment=environment, **fault)
        self.started.append(process)
        process.reach()
        return process

    def close(self) -> None:
        """Leave nothing behind, not even of a test that failed."""
        for process in self.started:
            for pid in [process.process.pid, *process.children()] if process.process.poll() is None else []:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.process.wait(LIMIT)

    def look(self) -> tuple[Any, ...]:
        """The very database that is live, and its rows."""
        oid = self.site.ask(f"SELECT oid FROM pg_database WHERE datname = '{LIVE}'", "postgres")
        return oid, self.site.fingerprint()

    def untouched(self) -> None:
        """Nothing that was there before has changed in the least."""
        assert {name: tree(self.site.sets / name) for name in self.sets} == self.sets
        assert self.look() == self.live

    def survived(self, proof: str = "verify") -> None:
        """What is true after every fault: sets and database are what they were, and the last set is good."""
        self.untouched()
        states = self.site.states()
        assert all(states[name] == "verified" for name in self.sets), states
        if proof == "restore":
            self.restores()
        else:
            done = self.site.backup("verify", self.stock.new)
            assert done.returncode == 0, done.stderr
        if proof == "create":
            self.works()

    def works(self) -> None:
        """A run like any other."""
        done = self.site.backup("create", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["state"] == "verified"
        # What a killed process had in its own temporary directory goes with its container.
        left = [path for path in self.site.unfinished() if not path.startswith(str(self.site.temporary))]
        assert left == []

    def restores(self) -> None:
        """The last verified set takes the live database's place."""
        cleaned = self.site.cli("restore-cleanup")
        assert cleaned.returncode == 0, cleaned.stderr
        assert self.site.databases() <= {LIVE, f"{LIVE}_replaced"}
        done = self.site.restore(self.stock.new, "--without-safety-backup")
        assert done.returncode == 0, done.stderr
        rows = self.site.fingerprint("public")
        assert rows.items() <= self.live[1].items()
        assert rows


def unverified(house: House) -> list[str]:
    return [name for name, state in house.site.states().items() if state == "unverified"]


# Where a command can be held: what is called there, and with what.
CREATING = {
    "check": ("occupancy_db.backup.create:run", "--schema-only"),
    "decode": ("occupancy_db.backup.create:run", "--file=/dev/null', .*db.dump"),
    "publish": ("occupancy_db.backup.sets:sync", r"\.partial-"),
    "published": ("occupancy_db.backup.create:rehearse", ""),
    "rehearse, restoring": ("occupancy_db.backup.rehearsal:fill", ""),
    "rehearse, comparing": ("occupancy_db.backup.rehearsal:compare", ""),
    "write it down": ("occupancy_db.backup.sets:sync", r"\.verified\.json\.new"),
}
RESTORING = {
    "before anything": ("occupancy_db.backup.restore:_restore_aside", ""),
    "restore": ("occupancy_db.backup.restore:fill", ""),
    "compare": ("occupancy_db.backup.restore:compare", ""),
    "prepare": ("occupancy_db.backup.restore:_grant", ""),
    "try": ("occupancy_db.schema.privileges:prove", "occupancy_readonly"),
    "before the exchange": ("occupancy_db.backup.restore:_exchange", ""),
    # Both names have been changed in a transaction that is then not committed.
    "in the exchange": ("sqlalchemy.ext.asyncio:AsyncConnection.exec_driver_sql", "replaced at"),
}


@contextmanager
def changed(site: Site, change: str, back: str) -> Iterator[None]:
    """Something that belongs to the whole server."""
    site.cluster.execute(change)
    try:
        yield
    finally:
        site.cluster.execute(back)


WAITING_DUMP = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pg_ts_template%'"
)


@contextmanager
def dump_that_waits(
    house: House, *arguments: str, environment: Mapping[str, Any] | None = None
) -> Iterator[Process]:
    """A pg_dump at work, which waits until the block ends for a catalog that only it reads."""
    process = house.start(
        *(arguments or ("backup", "create")), environment=environment,
        hold="occupancy_db.backup.create:run", when="--snapshot=",
    )  # fmt: skip
    blocker = house.site.cluster.connect(LIVE)
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE pg_ts_template IN ACCESS EXCLUSIVE MODE")
    process.go()
    wait_for(lambda: house.site.ask(WAITING_DUMP, "postgres"), "pg_dump")
    try:
        yield process
    finally:
        blocker.close()
        process.process.wait(LIMIT)
