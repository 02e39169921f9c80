"""The check of the messages that wait."""

from occupancy_db.checks.evidence import Evaluate, Evidence, of_host
from occupancy_db.checks.host import Host
from occupancy_db.checks.judging import counted, duration, judge, skipped
from occupancy_db.checks.model import Check, Result


def _notifications(check: Check, evidence: Evidence, host: Host) -> Result:
    """How long the oldest message waits, or the heartbeat has failed."""
    if host.notify is None:
        return skipped(check, "nobody gets messages: occupancy_notify is not set, or nothing was sent yet")
    found = host.notify
    if not found.pending or found.oldest_pending is None:
        return judge(check, 0, "no message waits")
    age = abs(evidence.age(found.oldest_pending))
    waits = f"{counted(found.pending, 'message')} for {duration(age)}"
    return judge(check, age, f"waiting: {waits}; {found.last_error or 'not tried yet'}")


EVALUATIONS: dict[str, Evaluate] = {"notifications": of_host(_notifications)}
