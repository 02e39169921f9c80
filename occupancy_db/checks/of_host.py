"""The checks of the host: containers, disks, certificates, clock, images."""

from datetime import datetime

from occupancy_db.checks.evidence import Evaluate, Evidence, of_host
from occupancy_db.checks.host import Disk, Host
from occupancy_db.checks.judging import counted, duration, judge, result, skipped
from occupancy_db.checks.model import Check, Level, Result
from occupancy_db.months import TOLERANCE

SERVER = "occupancy-postgres-1"
"""The container of the server."""

_DAY = 86400
_FOREVER = 3650
"""Days after which it does not matter when a disk is full."""

ENOUGH_HISTORY = _DAY
"""Seconds of samples from which on a trend is calculated."""


def _container(check: Check, evidence: Evidence, host: Host) -> Result:
    del evidence
    if host.engine:
        return result(check, Level.BAD, f"the Docker Engine does not answer: {host.engine}")
    server = next((one for one in host.containers if one.name == SERVER), None)
    if server is None:
        return result(check, Level.BAD, f"there is no container {SERVER}")
    state = server.health if server.state == "running" and server.health else server.state
    details = [f"{one.name}: {one.state} {one.health}".rstrip() for one in host.containers]
    if state not in ("running", "healthy", "starting"):
        return result(check, Level.BAD, f"{SERVER} is {state}", *details)
    level = Level.WARNING if state == "starting" else Level.GOOD
    restarts = f", started again {counted(server.restarts, 'time')}" if server.restarts else ""
    return result(check, level, f"{SERVER} is {state}{restarts}", *details)


def _free(check: Check, evidence: Evidence, host: Host) -> Result:
    del evidence
    shares = {disk.path: 100 * disk.free / disk.size for disk in host.disks if disk.size}
    if not shares:
        return skipped(check, "the disks could not be read")
    worst = min(shares, key=lambda path: shares[path])
    disk = next(one for one in host.disks if one.path == worst)
    details = [f"{path}: {share:.0f} % free" for path, share in shares.items()]
    return judge(
        check, shares[worst], f"{shares[worst]:.0f} % ({disk.free / 1e9:.1f} GB) free at {worst}", *details
    )


def days_left(disk: Disk, now: datetime) -> float | None:
    """Days until a disk is full, by a line of least squares through its samples.

    Returns:
        None without enough samples, or if the free space does not become less.
    """
    points = [((one.time - now).total_seconds(), float(one.free)) for one in disk.history if one.time <= now]
    points.append((0.0, float(disk.free)))
    if -points[0][0] < ENOUGH_HISTORY:
        return None
    mean_time = sum(time for time, _ in points) / len(points)
    mean_free = sum(free for _, free in points) / len(points)
    spread = sum((time - mean_time) ** 2 for time, _ in points)
    slope = sum((time - mean_time) * (free - mean_free) for time, free in points) / spread
    return disk.free / -slope / _DAY if slope < 0 else None


def _full(check: Check, evidence: Evidence, host: Host) -> Result:
    left = {disk.path: days_left(disk, evidence.now) for disk in host.disks}
    known = {path: days for path, days in left.items() if days is not None and days < _FOREVER}
    if known:
        worst = min(known, key=lambda path: known[path])
        return judge(
            check, known[worst], f"{worst} is full in {known[worst]:.0f} days if it goes on like this"
        )
    if all(evidence.age(disk.history[0].time) < ENOUGH_HISTORY for disk in host.disks if disk.history):
        return skipped(check, "is known after a day")
    return judge(check, _FOREVER, "no disk fills up")


def _ends(check: Check, evidence: Evidence, host: Host) -> Result:
    end = host.certificates.get("server" if check.name == "certificate" else "ca")
    if end is None:
        return result(check, Level.BAD, "could not be read")
    days = -evidence.age(end) / _DAY
    if days < 0:
        return judge(check, days, f"ended on {end:%Y-%m-%d}")
    return judge(check, days, f"valid until {end:%Y-%m-%d}, {counted(int(days), 'day')} left")


def _clock(check: Check, evidence: Evidence) -> Result:
    """What is recorded, then the host's own synchronisation."""
    host, state = evidence.host, evidence.facts.clock
    if state and state.contradiction:
        return result(check, Level.BAD, state.contradiction)
    future = [
        job.name
        for job in (host.jobs if host else ())
        if job.last_start and job.last_start - evidence.now > TOLERANCE
    ]
    if future:
        return result(
            check, Level.BAD, f"the clock says an earlier time than at the last run of {', '.join(future)}"
        )
    if problem := evidence.facts.problems.get("clock"):
        return result(check, Level.WARNING, f"could not be checked: {problem}")
    if host and host.synchronised is False:
        return result(check, Level.WARNING, "the host's clock is not synchronised")
    if state is None and host is None:
        return skipped(check, "the server does not answer")
    known = host is not None and host.synchronised
    return result(check, Level.GOOD, "nothing contradicts it" + (", and it is synchronised" if known else ""))


def _images(check: Check, evidence: Evidence, host: Host) -> Result:
    if not host.images:
        return skipped(check, "the images could not be read")
    ages = {one.name: evidence.age(one.created) / _DAY for one in host.images}
    oldest = max(ages, key=lambda name: ages[name])
    details = [f"{name}: {duration(age * _DAY)}" for name, age in ages.items()]
    return judge(
        check, max(0.0, ages[oldest]), f"the older one was made {duration(ages[oldest] * _DAY)} ago", *details
    )


EVALUATIONS: dict[str, Evaluate] = {
    "container": of_host(_container),
    "disk_free": of_host(_free),
    "disk_full": of_host(_full),
    "certificate": of_host(_ends),
    "ca": of_host(_ends),
    "clock": _clock,
    "image_age": of_host(_images),
}
