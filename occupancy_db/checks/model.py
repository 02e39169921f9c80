"""What a check is, what it found, and the document with the results of all checks."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

STALE_INTERVALS = 3
"""A document that is older than so many intervals of its job says nothing about now."""


class Level(StrEnum):
    """The result of a check, from the best to the worst."""

    SKIPPED = "skipped"
    """Not checked, because it does not apply here; the summary says why."""
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"

    @property
    def rank(self) -> int:
        """The place in this order: a higher one is worse."""
        return list(Level).index(self)


@dataclass(frozen=True)
class Check:
    """One check of the list.

    Attributes:
        name: Identifier, as in ``backup_age``: of metrics, alerts and variables.
        title: What is checked, in a few words.
        unit: Unit of the value and its thresholds: seconds, days, percent or count; "" if it has none.
        warning: The value from which the result is a warning; None if there is none.
        bad: The value from which it is bad; None if there is none. Lower than the warning: low values
            are bad.
        reason: Why it matters.
        action: The command that helps.
        page: The page of the documentation, relative to docs/, with an anchor where there is one.
    """

    name: str
    title: str
    unit: str
    warning: float | None
    bad: float | None
    reason: str
    action: str
    page: str


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        name: Name of the check.
        level: How good it is.
        summary: What was found, in one sentence for a message: no names of rooms, zones or sensors, no SQL.
        details: More of it, for the host's own screens: may name them.
        value: What was measured, in the unit of the check; None if it has none.
        since: When the level began, as far as the earlier documents tell; None if unknown.
    """

    name: str
    level: Level
    summary: str
    details: tuple[str, ...] = ()
    value: float | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Status:
    """The results of all checks at one moment.

    Attributes:
        time: When they were made, in UTC.
        host: Name of the host.
        release: Release of the product.
        results: One for each check of the list, in its order.
        interval: Seconds between two runs of the job that writes the document.
    """

    time: datetime
    host: str
    release: str
    results: tuple[Result, ...]
    interval: int = 300

    @property
    def level(self) -> Level:
        """The worst level; good if nothing was checked."""
        return max((one.level for one in self.results), key=lambda level: level.rank, default=Level.GOOD)

    def as_read(self, now: datetime | None = None) -> "Status":
        """Return the document with the check ``checks`` as it is at this moment.

        Args:
            now: The moment of reading; default: now.

        Returns:
            The same, or with a bad result of ``checks`` if the job that writes it has missed its runs: the
            other results say how it was.
        """
        now = now or datetime.now(UTC)
        age = (now - self.time).total_seconds()
        if abs(age) <= STALE_INTERVALS * self.interval:
            return self
        when = f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        summary = f"the job has not run since {when}: what follows is as old"
        if age < 0:
            summary = f"the last run was at {when}, which is in the future: the clock is or was wrong"
        stale = Result(
            "checks", Level.BAD, summary, value=age, since=self.time + timedelta(seconds=self.interval)
        )
        others = tuple(one for one in self.results if one.name != stale.name)
        return replace(self, results=(stale, *others))

    def to_json(self) -> str:
        """Return the document, as it is written to ``status.json``."""
        document: dict[str, Any] = {
            "time": self.time.isoformat(),
            "host": self.host,
            "release": self.release,
            "interval": self.interval,
            "level": self.level,
            "checks": [
                asdict(one) | {"since": one.since.isoformat() if one.since else None} for one in self.results
            ],
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> "Status":
        """Read a document that `to_json` wrote.

        Raises:
            ValueError: It is no such document.
        """
        try:
            document = json.loads(text)
            return cls(
                datetime.fromisoformat(document["time"]),
                document["host"],
                document["release"],
                tuple(_result(one) for one in document["checks"]),
                int(document["interval"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a document of check results: {error!r}") from error


def _result(one: dict[str, Any]) -> Result:
    return Result(
        one["name"],
        Level(one["level"]),
        one["summary"],
        tuple(one["details"]),
        one["value"],
        datetime.fromisoformat(one["since"]) if one["since"] else None,
    )
