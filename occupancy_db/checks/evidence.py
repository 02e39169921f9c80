"""What the checks decide by."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from occupancy_db.checks.facts import Facts
from occupancy_db.checks.host import Host
from occupancy_db.checks.judging import result, skipped
from occupancy_db.checks.model import Check, Level, Result, Status

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """The input of all checks.

    Attributes:
        now: The moment of the evaluation, in UTC.
        host: The document of the collector; None on a machine without one.
        facts: What the server has answered.
        previous: The results of the last run of the job; None if there are none.
        scheduled: Whether this evaluation is that of the job.
    """

    now: datetime
    host: Host | None
    facts: Facts
    previous: Status | None = None
    scheduled: bool = False

    def age(self, moment: datetime) -> float:
        """Seconds since a moment."""
        return (self.now - moment).total_seconds()


Evaluate = Callable[[Check, Evidence], Result]


def of_host(evaluate: Callable[[Check, Evidence, Host], Result]) -> Evaluate:
    """A check of the collector's document, which is skipped where there is none."""

    def with_host(check: Check, evidence: Evidence) -> Result:
        if evidence.host is None:
            return skipped(check, "this machine has no collector: see it on the host")
        return evaluate(check, evidence, evidence.host)

    return with_host


def of_fact(name: str, evaluate: Callable[[Check, Evidence, T], Result]) -> Evaluate:
    """A check of one fact of the server. A fact that was refused is a warning: nobody looks otherwise.

    It is skipped in a checkout, whose user may have fewer rights than `occupancy_monitor`.

    Args:
        name: The attribute of `Facts`.
        evaluate: The check; it gets the fact.
    """

    def with_fact(check: Check, evidence: Evidence) -> Result:
        fact: T | None = getattr(evidence.facts, name)
        if fact is not None:
            return evaluate(check, evidence, fact)
        if problem := evidence.facts.problems.get(name):
            level = Level.WARNING if evidence.host else Level.SKIPPED
            return result(check, level, f"could not be checked: {problem}")
        return skipped(check, "the server does not answer")

    return with_fact
