"""The phases of a backup, restore or deployment: timed, announced and written as metrics."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from occupancy_db.backup.files import replace
from occupancy_db.backup.manifest import DUMP
from occupancy_db.backup.sets import AHEAD, SetState, Store
from occupancy_db.errors import ExitCode, explain

METRICS = ".backup.prom"
"""File in the directory of the sets; occupancy-job copies it to the directory that Prometheus reads."""

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
    def measured(self) -> Iterator[None]:
        """Write the metrics when the block ends, with its exit code if it fails."""
        try:
            yield
        except BaseException as error:
            known = explain(error)
            with suppress(OSError):  # a second error must not hide the first
                self._leave_metrics(known.code if known else ExitCode.FAILED)
            raise
        self._leave_metrics(ExitCode.OK)

    def _leave_metrics(self, code: int) -> None:
        replace(self._store.directory / METRICS, self._metrics(code).encode())

    def _metrics(self, code: int) -> str:
        sets = self._store.sets(self._database)
        states = Counter(backup.state for backup in sets)
        free = shutil.disk_usage(self._store.directory).free
        lines = [
            *_metric("last_attempt_timestamp_seconds", "When the last run began.", self._began.timestamp()),
            *_metric("last_exit_code", "How the last run ended.", code),
            *_metric("phase_duration_seconds", "How long the last run's phases took.", self.phases, "phase"),
            *_metric("sets", "Sets by state.", {state: states[state] for state in SetState}, "state"),
            *_metric("free_bytes", "Free disk space for sets.", free),
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
                *_metric("last_success_timestamp_seconds", "When the newest verified set was made.", made),
                *_metric("last_verified_timestamp_seconds", "When a set was last rehearsed.", last),
                *_metric("size_bytes", "The newest verified set's dump.", manifest.files[DUMP].bytes),
                *_metric("rows", "Rows in the newest verified set.", manifest.contents.rows),
            ]
        return "\n".join(lines) + "\n"


def _metric(name: str, about: str, value: float | Mapping[str, float], label: str = "") -> list[str]:
    name = f"occupancy_backup_{name}"
    samples = (
        [f'{name}{{{label}="{key}"}} {number:.15g}' for key, number in value.items()]
        if isinstance(value, Mapping)
        else [f"{name} {value:.15g}"]
    )
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", *samples]
