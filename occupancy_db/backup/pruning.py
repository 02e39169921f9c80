"""Which sets are kept: decided from verified sets and UTC alone, and never so that a backup is missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.sets import AHEAD, BackupSet, State
from occupancy_db.errors import DatabaseError, ExitCode

GAP = timedelta(days=35)
"""A set that is newer than the one before it by more than this: was it the clock, or was the host off?"""

_SLOTS: list[tuple[str, Callable[[datetime], object]]] = [
    ("hourly", lambda at: (at.date(), at.hour)),
    ("daily", lambda at: at.date()),
    ("weekly", lambda at: at.isocalendar()[:2]),
    ("monthly", lambda at: (at.year, at.month)),
]


@dataclass(frozen=True)
class Verdict:
    """What becomes of a set.

    Attributes:
        backup: The set.
        keep: Whether it stays.
        why: For a person.
    """

    backup: BackupSet
    keep: bool
    why: str


def plan(sets: Sequence[BackupSet], keep: BackupSettings, now: datetime) -> list[Verdict]:
    """What retention does with each set of one database.

    The newest verified set of an hour, a day, an ISO week and a month (UTC) fills that slot, and as many of
    the latest filled slots are kept as the settings say; so are the ``keep_last`` newest verified sets.
    Pinned and damaged sets always stay, unverified ones until a newer set is verified.

    Args:
        sets: All sets of the database.
        keep: How many of each kind of slot.
        now: The present, with a time zone.

    Raises:
        DatabaseError: the clock has jumped, as far as the sets can tell: nothing may be removed.
    """
    sets = sorted(sets, key=lambda backup: (backup.made_at, backup.id))
    verified = [backup for backup in sets if backup.state is State.VERIFIED]
    _require_steady_clock(sets, verified, now)
    reasons: dict[str, list[str]] = {backup.id: [] for backup in sets}
    for backup in verified[-keep.keep_last :]:
        reasons[backup.id].append("last")
    for kind, slot_of in _SLOTS:
        newest = {slot_of(backup.made_at): backup for backup in verified}
        count = getattr(keep, f"keep_{kind}")
        for backup in list(newest.values())[-count:] if count else []:
            reasons[backup.id].append(kind)
    for backup in sets:
        if backup.pinned is not None:
            reasons[backup.id].append("pinned")
        if backup.state is State.DAMAGED:
            reasons[backup.id].append("damaged: yours to look at")
        if backup.state is State.UNVERIFIED and not (verified and verified[-1].made_at > backup.made_at):
            reasons[backup.id].append("nothing newer is verified")
    return [
        Verdict(backup, bool(why), ", ".join(why) or f"{backup.state}, and no slot is left for it")
        for backup in sets
        for why in [reasons[backup.id]]
    ]


def _require_steady_clock(sets: Sequence[BackupSet], verified: Sequence[BackupSet], now: datetime) -> None:
    what = None
    if ahead := [backup.id for backup in sets if backup.made_at > now + AHEAD]:
        what = f"the clock says {now:%Y-%m-%d %H:%M} UTC, and {ahead[-1]} was made later"
    elif len(verified) > 1 and verified[-1].made_at - verified[-2].made_at > GAP:
        days = (verified[-1].made_at - verified[-2].made_at).days
        what = f"{verified[-1].id} is {days} days newer than the set before it"
    if what:
        raise DatabaseError(
            ExitCode.CLOCK,
            f"the clock may have jumped: {what}",
            "No set was removed. If the clock is right now, remove the sets with a wrong time by hand; "
            "after a real pause the next run goes on by itself.",
        )
