"""The phases of a backup, restore or deployment: timed, announced and written as metrics."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from occupancy_db.backup.files import replace
from occupancy_db.backup.manifest import DUMP
from occupancy_db.backup.sets import AHEAD, SetState, Store
from occupancy_db.errors import ExitCode, explain

METRICS = ".backup.prom"
"""File in the directory of the sets; occupancy-job copies it to the directory that Prometheus reads.

That of another database than the product's is `.backup-<database>.prom`.
"""

Announce = Callable[[str], None]
"""A function that takes a line for the operator."""


class Progress:
    """The progress of one backup, restore or deployment.

    Attributes:
        phases: Seconds by phase; the phases that have ended.
    """

    def __init__(self, store: Store, database: str, announce: Announce) -> None:
        """Args: store: the sets; database: name of the database; say: takes a line for the operator."""
        self.phases: dict[str, float] = {}
        self._store = store
        self._database = database
        self._announce = announce
        self._began = datetime.now(UTC)

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Time a phase, and announce its end with the notes that the block appends to the list."""
        began = time.monotonic()
        notes: list[str] = []
        try:
            yield notes
        except BaseException:
            self._announce(f"{name}: failed after {time.monotonic() - began:.1f} s")
            raise
        self.phases[name] = round(time.monotonic() - began, 3)
        self._announce(f"{name}: {', '.join([f'{self.phases[name]:.1f} s', *notes])}")

    @contextmanager
    def measured(self, *, other: bool = False) -> Iterator[None]:
        """Write the metrics when the block ends, with its exit code if it fails.

        Args:
            other: Whether it is another database than the product's: its metrics have the label ``database``.
        """
        try:
            yield
        except BaseException as error:
            known = explain(error)
            with suppress(OSError):  # a second error must not hide the first
                self._leave_metrics(known.code if known else ExitCode.FAILED, other)
            raise
        self._leave_metrics(ExitCode.OK, other)

    def _leave_metrics(self, code: int, other: bool) -> None:
        name = f".backup-{self._database}.prom" if other else METRICS
        text = self._metrics(code, {"database": self._database} if other else {})
        replace(self._store.directory / name, text.encode())

    def _metrics(self, code: int, labels: dict[str, str]) -> str:
        metric = partial(_metric, labels)
        sets = self._store.sets(self._database)
        states = Counter(backup.state for backup in sets)
        free = shutil.disk_usage(self._store.directory).free
        lines = [
            *metric("last_attempt_timestamp_seconds", "When the last run began.", self._began.timestamp()),
            *metric("last_exit_code", "How the last run ended.", code),
            *metric("phase_duration_seconds", "How long the last run's phases took.", self.phases, "phase"),
            *metric("sets", "Sets by state.", {state: states[state] for state in SetState}, "state"),
            *metric("free_bytes", "Free disk space for sets.", free),
        ]
        # Times of a clock that was ahead would hide for long that backups have ended.
        now = datetime.now(UTC) + AHEAD
        verified = [
            (one, one.manifest, one.verified)
            for one in sets
            if one.manifest and one.verified and max(one.made_at, one.verified.verified_at) <= now
        ]
        if verified:
            newest, manifest, _ = verified[-1]
            last = max(seal.verified_at for _, _, seal in verified).timestamp()
            made = newest.made_at.timestamp()
            lines += [
                *metric("last_success_timestamp_seconds", "When the newest verified set was made.", made),
                *metric("last_verified_timestamp_seconds", "When a set was last rehearsed.", last),
                *metric("size_bytes", "The newest verified set's dump.", manifest.files[DUMP].bytes),
                *metric("rows", "Rows in the newest verified set.", manifest.contents.rows),
            ]
        return "\n".join(lines) + "\n"


def _metric(
    labels: dict[str, str], name: str, about: str, value: float | Mapping[str, float], label: str = ""
) -> list[str]:
    name = f"occupancy_backup_{name}"
    values = value if isinstance(value, Mapping) else {"": value}
    samples = []
    for key, number in values.items():
        pairs = labels | ({label: key} if label else {})
        text = ",".join(f'{one}="{its}"' for one, its in pairs.items())
        samples.append(f"{name}{{{text}}} {number:.15g}" if text else f"{name} {number:.15g}")
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", *samples]
