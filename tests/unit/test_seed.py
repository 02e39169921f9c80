"""Invented data must be the same for the same arguments, consistent in itself, and within its time."""

import json
import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from occupancy_db.history.seed import COLUMNS, LONGEST_WALK, Rows, generate
from occupancy_db.models import RoomType

UNTIL = datetime(2026, 3, 1, 12, tzinfo=UTC)

lives = st.builds(
    lambda days, seed, until: (days, seed, until),
    st.integers(1, 10),
    st.integers(0, 2**32),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)


@settings(max_examples=15)
@given(lives)
def test_equal_arguments_give_equal_rows(life: tuple[int, int, datetime]) -> None:
    assert generate(*life) == generate(*life)


def test_another_seed_is_another_life() -> None:
    assert generate(2, 1, UNTIL) != generate(2, 2, UNTIL)


@settings(max_examples=25)
@given(lives)
def test_rows_are_within_their_time_and_obey_the_constraints(life: tuple[int, int, datetime]) -> None:
    days, _, until = life
    rows = generate(*life)
    for table, found in vars(rows).items():
        assert all(len(row) == len(COLUMNS[table]) for row in found)
        assert all(until - timedelta(days=days) <= row[0] <= until for row in found)
        assert [row[0] for row in found] == sorted(row[0] for row in found)
    assert all(0 <= row[2] <= 1 and len(row[5]) <= 50 and len(row[6]) <= 100 for row in rows.sensor_readings)
    assert all(row[2] is None or 0 <= row[2] <= LONGEST_WALK.total_seconds() for row in rows.room_transitions)
    for _, _, confidence, probability, minutes, horizon, _, kind, _, distribution in rows.predictions:
        assert 0 <= confidence <= 1
        if kind == "occupancy":
            assert 0 <= probability <= 1
            assert horizon in (15, 120)
        else:
            assert minutes >= 0
        parts = json.loads(distribution)
        assert parts
        assert all(part["minutes"] >= 0 and 0 <= part["probability"] <= 1 for part in parts)
        if kind == "vacancy":  # as the client reads it: a list of objects, whose probabilities add up to 1
            assert math.isclose(sum(part["probability"] for part in parts), 1)
            assert minutes in {part["minutes"] for part in parts}


@settings(max_examples=15)
@given(lives)
def test_a_transition_joins_two_rooms_that_the_readings_know(life: tuple[int, int, datetime]) -> None:
    rows = generate(*life)
    on: dict[RoomType, set[datetime]] = defaultdict(set)
    off: dict[RoomType, set[datetime]] = defaultdict(set)
    for timestamp, _, _, room, state, _, _ in rows.sensor_readings:
        (on if state else off)[room].add(timestamp)
    for arrived, _, seconds, _, origin, room in rows.room_transitions:
        assert arrived in on[room]
        if origin is not None:
            assert origin is not room
            assert arrived - timedelta(seconds=seconds) in off[origin]


def week() -> Rows:
    return generate(7, 42, UNTIL)


def test_nights_are_quiet_and_spent_in_the_bedroom() -> None:
    night = [row for row in week().sensor_readings if 1 <= row[0].hour < 5 and row[2] > 0.5]
    day = [row for row in week().sensor_readings if 9 <= row[0].hour < 21 and row[2] > 0.5]
    assert len(night) / 4 < len(day) / 12 / 2
    rooms = [row[3] for row in night]
    assert rooms.count(RoomType.BEDROOM) > len(rooms) / 3


def test_the_cat_is_short_and_doubtful() -> None:
    blips = [row for row in week().sensor_readings if row[2] <= 0.4]
    assert len(blips) > 7 * 2 * 5
    begun: dict[str, datetime] = {}
    for timestamp, _, confidence, _, state, zone, _ in blips:
        key = f"{zone} {confidence}"
        if state:
            begun[key] = timestamp
        else:
            assert timestamp - begun.pop(key) <= timedelta(minutes=1)
    assert begun == {}


def test_predictions_of_both_kinds_are_better_than_chance() -> None:
    rows = week()
    kinds = {(row[7], row[5]) for row in rows.predictions}
    assert kinds == {("occupancy", 15), ("occupancy", 120), ("vacancy", None)}
    assert {row[6] for row in rows.predictions} == set(RoomType)
    likely = [row for row in rows.predictions if row[3] is not None and row[3] > 0.5]
    assert 0.02 < len(likely) / len(rows.predictions) < 0.5
