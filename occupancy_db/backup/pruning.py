"""The retention of backup sets, which depends on verified sets and UTC only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.manifest import Verified
from occupancy_db.backup.sets import AHEAD, BackupSet, SetState
from occupancy_db.errors import DatabaseError, ExitCode

GAP = timedelta(days=35)
"""A larger distance between two sets means that the clock may have jumped, or that the host was off."""

FORESEEN = timedelta(days=3 * 366)
"""How far ahead the removal of sets is calculated."""

_PERIODS: list[tuple[str, Callable[[datetime], object]]] = [
    ("hourly", lambda at: (at.date(), at.hour)),
    ("daily", lambda at: at.date()),
    ("weekly", lambda at: at.isocalendar()[:2]),
    ("monthly", lambda at: (at.year, at.month)),
]


@dataclass(frozen=True)
class Verdict:
    """Whether a set is kept.

    Attributes:
        backup: The set.
        keep: Whether it is kept.
        why: The reason, for the operator.
    """

    backup: BackupSet
    keep: bool
    why: str


def plan(
    sets: Sequence[BackupSet], keep: BackupSettings, now: datetime, confirmed_at: datetime | None = None
) -> list[Verdict]:
    """Return which sets of one database are kept.

    The newest verified set of an hour, a day, an ISO week and a month (UTC) represents that period. The
    settings say for how many of the latest periods of each kind that set is kept. The ``keep_last`` newest
    verified sets are kept as well. Pinned and damaged sets are always kept, unverified sets until a newer set
    is verified. Sets that were made while the clock was ahead are kept and do not count.

    Args:
        sets: All sets of the database.
        keep: For how many periods of each kind sets are kept.
        now: The current time, with a time zone.
        confirmed_at: When the operator confirmed the clock, if nothing contradicts it since then.

    Raises:
        DatabaseError: the clock contradicts the sets; then nothing may be removed.
    """
    sets = sorted(sets, key=lambda backup: (backup.made_at, backup.id))
    ahead = [backup for backup in sets if backup.ahead or (confirmed_at and is_ahead(backup, now))]
    verified = [backup for backup in sets if backup.state is SetState.VERIFIED and backup not in ahead]
    _require_steady_clock([backup for backup in sets if backup not in ahead], verified, now, confirmed_at)
    reasons: dict[str, list[str]] = {backup.id: [] for backup in sets}
    for backup in ahead:
        reasons[backup.id].append("made while the clock was ahead: not counted")
    for backup in verified[-keep.keep_last :]:
        reasons[backup.id].append("last")
    for kind, period_of in _PERIODS:
        newest = {period_of(backup.made_at): backup for backup in verified}
        count = getattr(keep, f"keep_{kind}")
        for backup in list(newest.values())[-count:] if count else []:
            reasons[backup.id].append(kind)
    for backup in sets:
        if backup.pinned is not None:
            reasons[backup.id].append("pinned")
        if backup.state is SetState.DAMAGED:
            reasons[backup.id].append("damaged: to be inspected")
        if backup.state is SetState.UNVERIFIED and not (verified and verified[-1].made_at > backup.made_at):
            reasons[backup.id].append("nothing newer is verified")
    return [
        Verdict(backup, bool(why), ", ".join(why) or f"{backup.state}, and no slot is left for it")
        for backup in sets
        for why in [reasons[backup.id]]
    ]


def is_ahead(backup: BackupSet, now: datetime) -> bool:
    """Return whether the name of a set says a time in the future."""
    return backup.made_at > now + AHEAD


def _require_steady_clock(
    sets: Sequence[BackupSet], verified: Sequence[BackupSet], now: datetime, confirmed_at: datetime | None
) -> None:
    what = None
    if ahead := [backup.id for backup in sets if is_ahead(backup, now)]:
        what = f"the clock says {now:%Y-%m-%d %H:%M} UTC, and {ahead[-1]} was made later"
    elif (
        len(verified) > 1
        and verified[-1].made_at - verified[-2].made_at > GAP
        and not (confirmed_at and confirmed_at > verified[-2].made_at)
    ):
        days = (verified[-1].made_at - verified[-2].made_at).days
        what = f"{verified[-1].id} is {days} days newer than the set before it"
    if what:
        raise DatabaseError(
            ExitCode.CLOCK,
            f"the clock may have jumped: {what}",
            "No set was removed. If the clock is right now, run 'occupancy-db clock confirm'; "
            "otherwise correct the clock.",
        )


def expiry(sets: Sequence[BackupSet], keep: BackupSettings, now: datetime) -> dict[str, datetime | None]:
    """Return when each set is removed at the latest, if a set is made and verified every day from now on.

    Args:
        sets: All sets of the database.
        keep: For how many periods of each kind sets are kept.
        now: The current time, with a time zone.

    Returns:
        By id; None for a set that is kept until somebody decides, or for more than FORESEEN.

    Raises:
        DatabaseError: the clock contradicts the sets.
    """
    wanted = {backup.id for backup in sets}
    ends: dict[str, datetime | None] = dict.fromkeys(wanted)
    left, at = list(sets), now
    # An hourly set would take the place of another one sooner.
    while at < now + FORESEEN and any(_will_go(backup) for backup in left if backup.id in wanted):
        left.append(_later_set(at))
        kept = {verdict.backup.id for verdict in plan(left, keep, at, confirmed_at=now) if verdict.keep}
        ends |= {backup.id: at for backup in left if backup.id in wanted and backup.id not in kept}
        left = [backup for backup in left if backup.id in kept]
        at += timedelta(days=1)
    return ends


def _will_go(backup: BackupSet) -> bool:
    return backup.pinned is None and backup.state is not SetState.DAMAGED and not backup.ahead


def _later_set(at: datetime) -> BackupSet:
    """A verified set that will be made."""
    verified = Verified(manifest="0" * 64, verified_at=at, seconds=0, rows=0)
    return BackupSet(Path(f"later-{at:%Y%m%dT%H%M%SZ}"), "", at, None, verified, None, None)
