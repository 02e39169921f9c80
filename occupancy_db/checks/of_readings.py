"""The checks of the readings. Their summaries are sent in messages: no names."""

from occupancy_db.checks.evidence import Evaluate, Evidence, of_fact
from occupancy_db.checks.facts import Ingest, Silent
from occupancy_db.checks.judging import counted, duration, judge, skipped
from occupancy_db.checks.model import Check, Result

FEW = 20
"""An hour in which fewer readings are usual says nothing: they come by chance."""


def _ingest(check: Check, evidence: Evidence, found: Ingest) -> Result:
    del evidence
    rows = counted(found.rows, "reading")
    if found.usual is None:
        return skipped(check, f"{rows} in the last hour; what is usual is known after a week")
    if found.usual < FEW:
        return skipped(
            check, f"{rows} in the last hour, in which {found.usual:.0f} are usual: too few to tell"
        )
    percent = 100 * found.rows / found.usual
    return judge(check, percent, f"{rows} in the last hour, {percent:.0f} % of the usual {found.usual:,.0f}")


def _silent(check: Check, evidence: Evidence, found: Silent) -> Result:
    del evidence
    if not found.count:
        return judge(check, 0, "every sensor has sent as expected")
    longest = "one has never sent" if found.longest is None else f"the longest for {duration(found.longest)}"
    return judge(check, found.count, f"{counted(found.count, 'sensor')} silent, {longest}")


def _stale(check: Check, evidence: Evidence, count: int) -> Result:
    del evidence
    if not count:
        return judge(check, 0, "every zone has a reading of the last day")
    return judge(check, count, f"{counted(count, 'zone')} without a reading for more than a day")


EVALUATIONS: dict[str, Evaluate] = {
    "ingest": of_fact("ingest", _ingest),
    "silent_sensors": of_fact("silent", _silent),
    "stale_zones": of_fact("stale_zones", _stale),
}
