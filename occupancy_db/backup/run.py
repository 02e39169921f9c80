"""A run's phases: said as they end, and left as metrics."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from occupancy_db.backup.sets import DUMP, State, Store, replace
from occupancy_db.errors import ExitCode, explain

METRICS = ".backup.prom"
"""In the directory of the sets; occupancy-job brings it to where Prometheus looks."""

Say = Callable[[str], None]


class Run:
    """One backup, from its beginning to its end.

    Attributes:
        phases: Seconds by phase, those that have ended.
    """

    def __init__(self, store: Store, database: str, say: Say) -> None:
        """Args: store: the sets; database: whose; say: what takes a line for a person."""
        self.phases: dict[str, float] = {}
        self._store = store
        self._database = database
        self._say = say
        self._began = datetime.now(UTC)

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Time a phase and say how it went; what the block puts into the list is said too."""
        began = time.monotonic()
        notes: list[str] = []
        try:
            yield notes
        except BaseException:
            self._say(f"{name}: failed after {time.monotonic() - began:.1f} s")
            raise
        self.phases[name] = round(time.monotonic() - began, 3)
        self._say(f"{name}: {', '.join([f'{self.phases[name]:.1f} s', *notes])}")

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Leave metrics when the block ends, however it ends."""
        try:
            yield
        except BaseException as error:
            known = explain(error)
            with suppress(OSError):  # what led here is worth more than what follows from it
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
            *_metric("sets", "Sets by state.", {state: states[state] for state in State}, "state"),
            *_metric("free_bytes", "Free disk space for sets.", free),
        ]
        verified = [(one, one.manifest, one.verified) for one in sets if one.manifest and one.verified]
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
