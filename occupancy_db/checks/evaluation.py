"""All checks of the list, evaluated."""

from collections.abc import Sequence
from dataclasses import replace

from occupancy_db.checks import of_backups, of_host, of_jobs, of_notifications, of_readings, of_server
from occupancy_db.checks.evidence import Evaluate, Evidence
from occupancy_db.checks.model import Check, Result, Status

EVALUATIONS: dict[str, Evaluate] = {
    **of_server.EVALUATIONS,
    **of_host.EVALUATIONS,
    **of_readings.EVALUATIONS,
    **of_jobs.EVALUATIONS,
    **of_backups.EVALUATIONS,
    **of_notifications.EVALUATIONS,
}
"""How each check is made, by its name."""


def evaluate(checks: Sequence[Check], evidence: Evidence, name: str, release: str) -> Status:
    """Return the results of checks.

    Args:
        checks: The list, with the thresholds that apply.
        evidence: What they decide by.
        name: Name of the host, where the collector does not tell.
        release: Release of the product.
    """
    before = {one.name: one for one in evidence.previous.results} if evidence.previous else {}
    results = [
        _since(EVALUATIONS[check.name](check, evidence), before.get(check.name), evidence) for check in checks
    ]
    host = evidence.host
    return Status(
        evidence.now, host.host if host else name, release, tuple(results), host.interval if host else 300
    )


def _since(found: Result, before: Result | None, evidence: Evidence) -> Result:
    """When the level began: now, or when it began in the document before."""
    if before is None:
        return found if evidence.previous is None else replace(found, since=evidence.now)
    return replace(found, since=before.since if before.level == found.level else evidence.now)
