"""A server and tools whose clock is shifted while they run, and a host with readings and backup sets."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from types import MappingProxyType
from typing import Any

import psycopg2.extensions

from occupancy_db.errors import ExitCode
from occupancy_db.months import MARGIN, TOLERANCE
from tests.database.backup_host import BackupHost
from tests.database.cluster import CONFIGURATION, Cluster
from tests.database.conftest import Database
from tests.waiting import wait_for

ZONE = "Europe/Berlin"
"""The time zone of the server's sessions and of the tools: it has two changes a year."""

Row = tuple[datetime, str, str, bool, float]
"""Timestamp, room, zone, state and confidence of a reading."""

READINGS = """
    INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity)
    SELECT moment, room, 'desk', extract(hour FROM moment)::int %% 2 = 0, 0.25, 'binary_sensor.desk'
    FROM generate_series(now() - %s::interval, now() - interval '1 minute', interval '3 hours') AS moment,
        unnest(ARRAY['office', 'bedroom']) AS room
"""


class FakedCluster(Cluster):
    """A server that reads the shift of its clock from a file, at each look at the clock."""

    configuration: Mapping[str, str] = MappingProxyType({**CONFIGURATION, "timezone": ZONE})

    def __init__(self, library: Path) -> None:
        """Args: library: libfaketime."""
        super().__init__()
        self.offset = timedelta()
        file = self.directory / "clock"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": ZONE,
        }
        self._file = file
        self.shift(timedelta())

    def shift(self, offset: timedelta) -> None:
        """Set the clock of the server and the tools, from the right time."""
        self.offset = offset
        new = self._file.with_suffix(".new")
        new.write_text(f"{int(offset.total_seconds()):+d}\n")
        new.chmod(0o644)
        new.rename(self._file)

    def now(self) -> datetime:
        """What the shifted clock says."""
        return datetime.now(UTC) + self.offset


@dataclass(frozen=True)
class FakedDatabase(Database):
    """A database whose commands have the shifted clock."""

    def environment(self, **changes: Any) -> dict[str, str]:
        return {**super().environment(**changes), **self.cluster.environment}


class ClockHost:
    """A host in use: it counts what is lost.

    Attributes:
        host: The live database and the directories of its backups.
        stored: Every reading that was ever stored.
        lost: Number of readings and sets that are missing although they are not due.
        confirmed: How often an operator had to confirm the clock.
    """

    def __init__(self, host: BackupHost) -> None:
        self.host = host
        self.database = host.database
        assert isinstance(host.cluster, FakedCluster)
        self.cluster: FakedCluster = host.cluster
        self.lost = self.confirmed = 0
        self.stored = self.rows()
        self.sets = self.published()

    def rows(self) -> set[Row]:
        """All readings; none before the first migration."""
        if self.host.query("SELECT to_regclass('sensor_readings')", self.name) == [(None,)]:
            return set()
        return set(
            self.host.query("SELECT timestamp, room, zone, state, confidence FROM sensor_readings", self.name)
        )

    def published(self) -> set[str]:
        """The names of the sets."""
        return {path.name for path in self.host.sets.iterdir() if path.name.startswith(self.name)}

    @property
    def name(self) -> str:
        return self.database.name

    def connect(self) -> psycopg2.extensions.connection:
        return self.database.connect()

    def write(self, *moments: datetime, zone: str = "desk", state: bool = True) -> None:
        """Store a reading for each time, as a client."""
        connection = self.connect()
        with connection.cursor() as cursor:
            for moment in moments:
                cursor.execute(
                    "INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity) "
                    "VALUES (%s, 'office', %s, %s, 0.75, 'client')",
                    [moment, zone, state],
                )
                self.stored.add((moment, "office", zone, state, 0.75))
        connection.close()

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command as its user on a host."""
        if arguments[0] in ("backup", "restore", "restore-cleanup", "restore-rollback"):
            # More than a case makes: retention has no reason to remove a set.
            return self.host.cli(*arguments, BACKUP_KEEP_LAST=20)
        return self.database.cli(*arguments)

    def expect(self, code: int, *arguments: str) -> CompletedProcess[str]:
        done = self.run(*arguments)
        assert done.returncode == code, (arguments, done)
        return done

    def contradicts(self) -> bool:
        """Whether the checks find the shift, if the last of them had the right clock."""
        return not -TOLERANCE < self.cluster.offset < MARGIN

    def assert_nothing_lost(self, months: int = 12) -> None:
        """Compare the readings and the backup sets with what was stored, as the right clock says."""
        cutoff = datetime.now(UTC) - timedelta(days=months * 31) - MARGIN
        missing = {row for row in self.stored - self.rows() if row[0] >= cutoff}
        gone = self.sets - self.published()
        self.lost += len(missing) + len(gone)
        assert (missing, gone) == (set(), set())
        self.assert_views()

    def assert_views(self) -> None:
        """Compare the views with counts of the rows: the statistics of all that was ever stored."""
        self.stored |= self.rows()
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT room, hour, reading_count, active_zones, round(avg_confidence::numeric, 6)::float, "
                "first_reading, last_reading FROM sensor_reading_stats"
            )
            found = set(cursor.fetchall())
            assert found == statistics(self.stored)
            cursor.execute(
                "SELECT statement_timestamp(), array_agg(ARRAY[room, occupancy_status, total_zones::text, "
                "active_zones::text, extract(epoch FROM last_update)::text]) FROM room_occupancy_status"
            )
            ((moment, shown),) = cursor.fetchall()
        connection.close()
        status = {(*words[:2], *map(float, words[2:])) for words in shown or ()}
        assert status == present(self.rows(), moment)

    def make_right(self) -> None:
        """Set the clock right; the operator confirms it where the jobs ask for that. Then all jobs run."""
        self.cluster.shift(timedelta())
        first = self.run("partitions", "maintain")
        if first.returncode == ExitCode.CLOCK:
            self.confirm()
        else:
            assert first.returncode == 0, first
        made = self.run("backup", "create", "--json")
        if made.returncode == ExitCode.CLOCK:
            self.confirm()
            self.wait_for_next_second()
            made = self.run("backup", "create", "--json")
        assert made.returncode == 0, made
        for command in (
            ("partitions", "maintain"),
            ("cleanup", "--months", "12", "--no-dry-run"),
            ("backup", "prune"),
            ("restore-cleanup",),
            ("clock", "status"),
        ):
            self.expect(0, *command)
        latest = json.loads(self.expect(0, "backup", "show", "latest", "--json").stdout)
        assert latest["id"] == json.loads(made.stdout)["id"]
        self.sets = self.published()  # a right clock has removed what was due
        behind = self.host.query("SELECT closed_before <= now() FROM hourly.watermark", self.name)
        assert behind == [(True,)]
        self.assert_nothing_lost()

    def confirm(self) -> None:
        assert self.confirmed == 0, "one command must suffice"
        self.confirmed += 1
        self.expect(0, "clock", "confirm", "--by", "Ada")

    def wait_for_next_second(self) -> None:
        """IDs of sets contain the time in seconds."""
        second = datetime.now(UTC).replace(microsecond=0)
        wait_for(lambda: datetime.now(UTC).replace(microsecond=0) > second, "the next second")

    def shifted_during(
        self, offset: timedelta, reached: Callable[[], object], release: Callable[[], object], *job: str
    ) -> CompletedProcess[str]:
        """Run a job, and shift the clock when it has reached a point.

        Args:
            offset: How far the clock is from the right time then.
            reached: Returns whether the job has reached the point.
            release: Lets the job go on.
            job: The command.
        """
        done: list[CompletedProcess[str]] = []
        thread = threading.Thread(target=lambda: done.append(self.run(*job)))
        thread.start()
        try:
            wait_for(lambda: done or reached(), f"the middle of {job}")
            assert not done, ("the job has ended before its middle", done)
            self.cluster.shift(offset)
        finally:
            release()
            thread.join()
        return done[0]

    @contextmanager
    def holding(self, statement: str) -> Any:
        """A transaction of another session; yields the function that ends it."""
        connection = self.connect()
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute(statement)
        yield connection.rollback
        connection.close()


def statistics(rows: Iterable[Row]) -> set[tuple[Any, ...]]:
    """What sensor_reading_stats should answer."""
    hours: dict[tuple[str, datetime], list[Row]] = {}
    for row in rows:
        hour = row[0].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hours.setdefault((row[1], hour), []).append(row)
    return {
        (
            room,
            hour,
            len(found),
            len({row[2] for row in found}),
            round(sum(row[4] for row in found) / len(found), 6),
            min(row[0] for row in found),
            max(row[0] for row in found),
        )
        for (room, hour), found in hours.items()
    }


def present(rows: Iterable[Row], moment: datetime) -> set[tuple[Any, ...]]:
    """What room_occupancy_status should answer at a time."""
    newest: dict[tuple[str, str], Row] = {}
    for row in sorted(row for row in rows if row[0] <= moment):
        newest[row[1], row[2]] = row
    rooms: dict[str, list[Row]] = {}
    for row in newest.values():
        rooms.setdefault(row[1], []).append(row)
    return {
        (
            room,
            "occupied" if any(row[3] for row in found) else "vacant",
            len(found),
            sum(row[3] for row in found),
            max(row[0] for row in found).timestamp(),
        )
        for room, found in rooms.items()
    }
