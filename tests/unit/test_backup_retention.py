"""Retention of backup sets, for arbitrary sets: which sets are kept, and which are never removed."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.manifest import Verified
from occupancy_db.backup.pruning import GAP, plan
from occupancy_db.backup.sets import AHEAD, BackupSet, SetState
from occupancy_db.errors import DatabaseError, ExitCode

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
SEAL = Verified(manifest="0" * 64, verified_at=NOW, seconds=1, rows=1)
SLOTS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}
"""The kinds of BackupSettings, each with the format of the period that a set represents."""
KINDS = tuple(SLOTS)


def backup_set(
    made_at: datetime, state: SetState = SetState.VERIFIED, pinned: str | None = None
) -> BackupSet:
    return BackupSet(
        path=Path(f"house-{made_at:%Y%m%dT%H%M%SZ}-{random.Random(made_at.timestamp()).randbytes(3).hex()}"),
        database="house",
        made_at=made_at,
        manifest=None,
        verified=SEAL if state is SetState.VERIFIED else None,
        problem="damaged" if state is SetState.DAMAGED else None,
        pinned=pinned,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[BackupSet]:
    """Sets of one database, the oldest first, all before NOW and each of another second."""
    gaps = st.sampled_from([1, 600, 3600, 7200, 86_400, 3 * 86_400, 8 * 86_400, 34 * 86_400])
    at, sets = NOW, []
    for seconds in draw(st.lists(gaps, max_size=40)):
        at -= timedelta(seconds=seconds)
        state = draw(st.sampled_from([SetState.VERIFIED] * 4 + [SetState.UNVERIFIED, SetState.DAMAGED]))
        sets.append(backup_set(at, state, draw(st.sampled_from([None] * 5 + ["for the auditor"]))))
    return sets[::-1]


COUNT = st.integers(0, 8)
keeps = st.builds(
    lambda last, *counts: BackupSettings(
        keep_last=last, **{f"keep_{kind}": count for kind, count in zip(KINDS, counts, strict=True)}
    ),
    st.integers(1, 6), COUNT, COUNT, COUNT, COUNT,
)  # fmt: skip


def jumped(sets: list[BackupSet]) -> bool:
    """Whether the distance of the newest two verified sets is larger than retention accepts."""
    verified = [one.made_at for one in sets if one.state is SetState.VERIFIED]
    return len(verified) > 1 and verified[-1] - verified[-2] > GAP


def kept(sets: list[BackupSet], keep: BackupSettings, now: datetime = NOW) -> list[BackupSet]:
    return [verdict.backup for verdict in plan(sets, keep, now) if verdict.keep]


def reference(sets: list[BackupSet], keep: BackupSettings) -> set[str]:
    """Return the sets to keep, by another algorithm: from the newest set back, count the free slots."""
    stay = {one.id for one in sets if one.pinned is not None or one.state is SetState.DAMAGED}
    verified = [one for one in sets if one.state is SetState.VERIFIED]
    for one in sets:
        newer = any(other.made_at > one.made_at for other in verified)
        if one.state is SetState.UNVERIFIED and not newer:
            stay.add(one.id)
    last = keep.keep_last
    free = {kind: getattr(keep, f"keep_{kind}") for kind in KINDS}
    filled: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for one in reversed(verified):
        if last:
            last -= 1
            stay.add(one.id)
        for kind in KINDS:
            slot = one.made_at.strftime(SLOTS[kind])
            if slot not in filled[kind] and len(filled[kind]) < free[kind]:
                filled[kind].add(slot)
                stay.add(one.id)
    return stay


@given(histories().filter(lambda sets: not jumped(sets)), keeps)
@settings(max_examples=300)
def test_sets_are_kept_according_to_the_slots(sets: list[BackupSet], keep: BackupSettings) -> None:
    assert {one.id for one in kept(sets, keep)} == reference(sets, keep)


@given(histories().filter(lambda sets: not jumped(sets)), keeps)
@settings(max_examples=200)
def test_pinned_damaged_and_latest_sets_are_kept(sets: list[BackupSet], keep: BackupSettings) -> None:
    stay = kept(sets, keep)
    verified = [one for one in sets if one.state is SetState.VERIFIED]
    assert verified[-keep.keep_last :] == [one for one in stay if one in verified[-keep.keep_last :]]
    assert all(one in stay for one in sets if one.pinned is not None or one.state is SetState.DAMAGED)
    if not verified:
        assert stay == sets


@given(histories().filter(lambda sets: not jumped(sets)), keeps)
@settings(max_examples=200)
def test_planning_again_removes_nothing(sets: list[BackupSet], keep: BackupSettings) -> None:
    stay = kept(sets, keep)
    if not jumped(stay):
        assert kept(stay, keep) == stay


@given(histories().filter(lambda sets: not jumped(sets)), keeps)
@settings(max_examples=200)
def test_sets_that_were_not_verified_fill_no_slot(sets: list[BackupSet], keep: BackupSettings) -> None:
    verified = [one for one in sets if one.state is SetState.VERIFIED]
    assert [one for one in kept(sets, keep) if one in verified] == kept(verified, keep)


@given(histories().filter(bool), keeps, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_order_does_not_matter(sets: list[BackupSet], keep: BackupSettings, chance: Any) -> None:
    mixed = list(sets)
    chance.shuffle(mixed)
    outcome = [outcome_of(order, keep) for order in (sets, mixed)]
    assert outcome[0] == outcome[1]


def outcome_of(sets: list[BackupSet], keep: BackupSettings) -> Any:
    try:
        return {one.id for one in kept(sets, keep)}
    except DatabaseError as error:
        return error.code


@given(
    histories().filter(bool),
    keeps,
    st.sampled_from([SetState.VERIFIED, SetState.UNVERIFIED, SetState.DAMAGED]),
)
@settings(max_examples=100)
def test_no_set_is_removed_while_the_clock_is_behind_a_set(
    sets: list[BackupSet], keep: BackupSettings, state: SetState
) -> None:
    ahead = backup_set(NOW + AHEAD + timedelta(seconds=1), state)
    with pytest.raises(DatabaseError) as raised:
        plan([*sets, ahead], keep, NOW)
    assert raised.value.code is ExitCode.CLOCK
    assert ahead.id in raised.value.what


@given(histories().filter(lambda sets: any(one.state is SetState.VERIFIED for one in sets)), keeps)
@settings(max_examples=100)
def test_no_set_is_removed_after_a_set_that_is_much_newer(
    sets: list[BackupSet], keep: BackupSettings
) -> None:
    later = NOW + GAP + timedelta(seconds=1)
    with pytest.raises(DatabaseError) as raised:
        plan([*sets, backup_set(later)], keep, later)
    assert raised.value.code is ExitCode.CLOCK


@given(histories().filter(lambda sets: not jumped(sets)), keeps, st.integers(1, 5))
@settings(max_examples=100)
def test_sets_from_the_future_are_kept_and_not_counted_once_the_clock_is_confirmed(
    sets: list[BackupSet], keep: BackupSettings, number: int
) -> None:
    ahead = [backup_set(NOW + AHEAD + timedelta(days=36_500, hours=hour)) for hour in range(1, number + 1)]
    verdicts = plan([*sets, *ahead], keep, NOW, NOW)
    assert {one.backup.id for one in verdicts if one.keep} == reference(sets, keep) | {
        one.id for one in ahead
    }
    # They are marked then, and stay out of the count when their time has come.
    marked = [replace(one, ahead="made while the clock was ahead") for one in ahead]
    later = [one for one in plan([*sets, *marked], keep, ahead[-1].made_at) if one.keep]
    assert {one.backup.id for one in later} == reference(sets, keep) | {one.id for one in ahead}


def test_a_pause_of_the_backups_is_accepted_after_a_confirmation() -> None:
    keep = BackupSettings(keep_last=1, keep_hourly=0, keep_daily=0, keep_weekly=0, keep_monthly=0)
    sets = [backup_set(NOW - 2 * GAP), backup_set(NOW)]
    with pytest.raises(DatabaseError):
        plan(sets, keep, NOW, NOW - 3 * GAP)
    assert [one.backup for one in plan(sets, keep, NOW, NOW - timedelta(hours=1)) if one.keep] == sets[1:]


def test_a_set_slightly_in_the_future_and_a_long_pause_are_accepted() -> None:
    keep = BackupSettings(keep_last=1, keep_hourly=0, keep_daily=0, keep_weekly=0, keep_monthly=0)
    sets = [backup_set(NOW - GAP + AHEAD), backup_set(NOW + AHEAD)]
    assert kept(sets, keep) == sets[1:]


def test_slots_are_periods_of_utc_and_iso_weeks() -> None:
    """The newest set of a slot is kept: for a week the last of Sunday, for a month the last of its days."""
    keep = BackupSettings(keep_last=1, keep_hourly=0, keep_daily=0, keep_weekly=2, keep_monthly=2)
    sunday, monday = datetime(2026, 1, 4, 23, 59, 59, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)
    december = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)
    sets = [backup_set(at) for at in (december - timedelta(hours=1), december, sunday, monday)]
    verdicts = {verdict.backup.made_at: verdict for verdict in plan(sets, keep, monday)}
    assert [at for at, verdict in verdicts.items() if verdict.keep] == [december, sunday, monday]
    assert verdicts[december].why == "monthly"
    assert verdicts[sunday].why == "weekly"
    assert verdicts[monday].why == "last, weekly, monthly"
    assert verdicts[december - timedelta(hours=1)].why == "verified, and no slot is left for it"
