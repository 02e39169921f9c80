"""The checks of the backup sets, from the metrics that backups leave."""

from datetime import datetime

from occupancy_db.checks.evidence import Evaluate, Evidence, of_host
from occupancy_db.checks.host import Host
from occupancy_db.checks.judging import counted, duration, judge, level_of, result, skipped
from occupancy_db.checks.model import Check, Level, Result

_PREFIX = "occupancy_backup_"


def newest_set(host: Host) -> datetime | None:
    """When the newest verified set of the product's own database was made; None if there is none."""
    return host.moment(f"{_PREFIX}last_success_timestamp_seconds")


def _moments(host: Host, metric: str) -> dict[str, datetime | None]:
    """A time for each database; the metrics of the product's own have no label."""
    own, *others = host.databases or ("",)
    found = {own: host.moment(_PREFIX + metric)}
    return found | {name: host.moment(_PREFIX + metric, database=name) for name in others}


def _age(check: Check, evidence: Evidence, host: Host) -> Result:
    if host.job("backup") is None:
        return result(check, Level.WARNING, "no backups are scheduled")
    ages = {}
    for name, made in _moments(host, "last_success_timestamp_seconds").items():
        since = made or host.installed
        ages[name] = (evidence.age(since) if since else 0.0, made)
    worst = max(ages, key=lambda name: ages[name][0])
    age, made = ages[worst]
    of = f" of {worst}" if len(ages) > 1 else ""
    if made is None:
        level = max(Level.WARNING, level_of(check, age), key=lambda level: level.rank)
        return result(check, level, f"there is no verified set{of} yet", value=round(age))
    return judge(check, age, f"made {duration(age)} ago{of}: a loss now costs {_loss(evidence, host)}")


def _loss(evidence: Evidence, host: Host) -> str:
    made = newest_set(host)
    time = duration(evidence.age(made)) if made else "everything"
    rows = evidence.facts.rows_since
    return time if rows is None else f"{time}, {counted(rows, 'reading')}"


def _verified(check: Check, evidence: Evidence, host: Host) -> Result:
    found = _moments(host, "last_verified_timestamp_seconds")
    if not any(found.values()):
        return skipped(check, "there is no verified set yet")
    ages = {name: evidence.age(moment) for name, moment in found.items() if moment}
    worst = max(ages, key=lambda name: ages[name])
    of = f" of {worst}" if len(found) > 1 else ""
    return judge(check, ages[worst], f"a set{of} was restored and compared {duration(ages[worst])} ago")


def _damaged(check: Check, evidence: Evidence, host: Host) -> Result:
    del evidence
    counts = [host.metric(f"{_PREFIX}sets", state="damaged")]
    counts += [host.metric(f"{_PREFIX}sets", database=name, state="damaged") for name in host.databases[1:]]
    known = [int(count) for count in counts if count is not None]
    if not known:
        return skipped(check, "no backup has run yet")
    damaged = sum(known)
    return judge(check, damaged, counted(damaged, "damaged set") if damaged else "none is damaged")


def _offsite(check: Check, evidence: Evidence, host: Host) -> Result:
    if not host.offsite:
        return skipped(check, "no copies elsewhere are configured (backup_offsite_remote)")
    last = host.moment("occupancy_offsite_last_copy_timestamp_seconds")
    since = last or host.installed
    age = evidence.age(since) if since else 0.0
    if last is None:
        level = max(Level.WARNING, level_of(check, age), key=lambda level: level.rank)
        return result(check, level, "there is no copy yet", value=round(age))
    return judge(check, age, f"copied {duration(age)} ago")


EVALUATIONS: dict[str, Evaluate] = {
    "backup_age": of_host(_age),
    "backup_verified": of_host(_verified),
    "backup_damaged": of_host(_damaged),
    "offsite": of_host(_offsite),
}
