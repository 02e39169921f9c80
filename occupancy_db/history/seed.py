"""Development data that look real: one person and a cat for some days; equal for equal arguments.

The person walks from room to room in the rhythm of a day; everything else follows from these stays: the
readings of the zones, the transitions between rooms, and predictions that are right more often than not.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from occupancy_db.models import PredictionType, RoomType

ZONES: dict[RoomType, tuple[str, ...]] = {
    RoomType.BEDROOM: ("bed", "wardrobe"),
    RoomType.BATHROOM: ("sink", "shower"),
    RoomType.SMALL_BATHROOM: ("sink",),
    RoomType.OFFICE: ("desk", "armchair"),
    RoomType.LIVING_KITCHEN: ("sofa", "table", "kitchen"),
    RoomType.GUEST_BEDROOM: ("bed",),
}
"""The first zone of a room is where people spend their time."""

AWAY = None
"""Nobody is at home."""

HORIZONS = (15, 120)
"""Minutes: cooling and heating."""

QUANTILES = ((0.5, 0.2), (1, 0.5), (2, 0.3))
"""Of the distribution of a vacancy: multiples of the expected minutes, and how likely each is."""

PREDICT_EVERY = timedelta(minutes=30)

# A transition joins two stays; a longer silence is an absence, and the next detection is a first one.
LONGEST_WALK = timedelta(minutes=1)

CAT_VISITS_A_DAY = 12


class Habit(NamedTuple):
    """How likely a place is next (weight), and for how long on average (minutes)."""

    weight: float
    minutes: float


NIGHT: dict[RoomType | None, Habit] = {
    RoomType.BEDROOM: Habit(20, 300),
    RoomType.BATHROOM: Habit(2, 4),
    RoomType.SMALL_BATHROOM: Habit(1, 4),
    RoomType.LIVING_KITCHEN: Habit(1, 6),
}
MORNING: dict[RoomType | None, Habit] = {
    RoomType.BATHROOM: Habit(6, 12),
    RoomType.LIVING_KITCHEN: Habit(8, 20),
    RoomType.BEDROOM: Habit(3, 8),
    RoomType.OFFICE: Habit(2, 20),
}
DAY: dict[RoomType | None, Habit] = {
    RoomType.OFFICE: Habit(10, 55),
    RoomType.LIVING_KITCHEN: Habit(7, 18),
    RoomType.SMALL_BATHROOM: Habit(3, 4),
    RoomType.BEDROOM: Habit(1, 6),
    AWAY: Habit(2, 120),
}
EVENING: dict[RoomType | None, Habit] = {
    RoomType.LIVING_KITCHEN: Habit(12, 50),
    RoomType.SMALL_BATHROOM: Habit(3, 4),
    RoomType.OFFICE: Habit(2, 25),
    RoomType.BEDROOM: Habit(2, 10),
    RoomType.GUEST_BEDROOM: Habit(1, 15),
    AWAY: Habit(1, 90),
}


@dataclass(frozen=True)
class Stay:
    """The person is in one room."""

    room: RoomType
    arrived: datetime
    left: datetime


@dataclass(frozen=True)
class Rows:
    """Rows of the three tables, ready for COPY: tuples in the order of the column lists."""

    sensor_readings: list[tuple[Any, ...]]
    room_transitions: list[tuple[Any, ...]]
    predictions: list[tuple[Any, ...]]


COLUMNS = {
    "sensor_readings": (
        "timestamp",
        "created_at",
        "confidence",
        "room",
        "state",
        "zone",
        "source_entity",
    ),
    "room_transitions": (
        "timestamp",
        "created_at",
        "transition_duration_seconds",
        "confidence",
        "from_room",
        "to_room",
    ),
    "predictions": (
        "prediction_made_at",
        "created_at",
        "confidence",
        "probability",
        "expected_vacancy_minutes",
        "horizon_minutes",
        "room",
        "prediction_type",
        "model_version",
        "probability_distribution",
    ),
}


def generate(days: int, seed: int, until: datetime) -> Rows:
    """The rows of the last days before a moment; equal arguments give equal rows.

    Args:
        days: How many days.
        seed: Which life.
        until: The end, with a time zone; all rows are earlier, and whoever is in then stays in.
    """
    random = Random(seed)  # noqa: S311  # repeatable is the point
    start = until - timedelta(days=days)
    stays = list(_stays(random, start, until))
    readings = [row for stay in stays for row in _readings(random, stay)]
    readings += _cat(random, stays[:-1], days)
    return Rows(
        sorted(row for row in readings if row[0] < until),
        list(_transitions(random, stays)),
        list(_predictions(random, stays, start, until)),
    )


def _rhythm(moment: datetime) -> dict[RoomType | None, Habit]:
    match moment.hour:
        case hour if hour >= 23 or hour < 7:
            return NIGHT
        case hour if hour < 9:
            return MORNING
        case hour if hour < 18:
            return DAY
        case _:
            return EVENING


def _stays(random: Random, start: datetime, until: datetime) -> Iterator[Stay]:
    room: RoomType | None = AWAY
    now = start + timedelta(seconds=random.uniform(1, 60))
    while now < until:
        habits = {place: habit for place, habit in _rhythm(now).items() if place is not room}
        places = list(habits)
        room = random.choices(places, [habits[place].weight for place in places])[0]
        left = now + timedelta(minutes=max(1.0, random.gammavariate(2, habits[room].minutes / 2)))
        if room is not AWAY:
            yield Stay(room, _milliseconds(now), _milliseconds(left))
        now = left + timedelta(seconds=random.uniform(2, 20))


def _readings(random: Random, stay: Stay) -> Iterator[tuple[Any, ...]]:
    """The person moves between the zones of the room; a zone is on while they are in it."""
    zones = ZONES[stay.room]
    now, zone = stay.arrived, zones[0]
    while True:
        confidence = round(random.uniform(0.85, 1.0), 3)
        yield _reading(now, confidence, stay.room, True, zone)
        share = random.uniform(0.5, 1.3) if zone == zones[0] else random.uniform(0.02, 0.2)
        left = _milliseconds(now + (stay.left - now) * share)
        if len(zones) == 1 or left > stay.left - timedelta(seconds=30):
            yield _reading(stay.left, confidence, stay.room, False, zone)
            return
        yield _reading(left, confidence, stay.room, False, zone)
        now = _milliseconds(left + timedelta(seconds=random.uniform(1, 5)))
        zone = random.choice(zones[1:]) if zone == zones[0] else zones[0]


def _cat(random: Random, stays: list[Stay], days: int) -> Iterator[tuple[Any, ...]]:
    """Short detections of low confidence in a room where the person is not."""
    long_stays = [stay for stay in stays if stay.left - stay.arrived > timedelta(minutes=3)]
    for stay in random.sample(long_stays, min(len(long_stays), CAT_VISITS_A_DAY * days)):
        room = random.choice([room for room in RoomType if room is not stay.room])
        zone = random.choice(ZONES[room])
        seconds = (stay.left - stay.arrived).total_seconds()
        begin = _milliseconds(stay.arrived + timedelta(seconds=random.uniform(0, seconds - 120)))
        end = _milliseconds(begin + timedelta(seconds=random.uniform(3, 60)))
        confidence = round(random.uniform(0.1, 0.4), 3)
        yield _reading(begin, confidence, room, True, zone)
        yield _reading(end, confidence, room, False, zone)


def _reading(
    timestamp: datetime, confidence: float, room: RoomType, state: bool, zone: str
) -> tuple[Any, ...]:
    entity = f"binary_sensor.fp2_{room}_{zone}"
    return (timestamp, timestamp, confidence, room, state, f"{room}_{zone}", entity)


def _transitions(random: Random, stays: list[Stay]) -> Iterator[tuple[Any, ...]]:
    before: Stay | None = None
    for stay in stays:
        walk = stay.arrived - before.left if before else None
        confidence = round(random.uniform(0.8, 1.0), 3)
        if before and walk and walk <= LONGEST_WALK:
            origin, seconds = before.room, walk.total_seconds()
        else:
            origin, seconds = None, None
        yield (stay.arrived, stay.arrived, seconds, confidence, origin, stay.room)
        before = stay


def _predictions(
    random: Random, stays: list[Stay], start: datetime, until: datetime
) -> Iterator[tuple[Any, ...]]:
    arrivals = [stay.arrived for stay in stays]

    def present(moment: datetime) -> Stay | None:
        index = bisect_right(arrivals, moment) - 1
        return stays[index] if index >= 0 and stays[index].left > moment else None

    moment = start
    while moment < until:
        here = present(moment)
        for room in RoomType:
            for horizon in HORIZONS:
                then = present(moment + timedelta(minutes=horizon))
                expected = 0.8 if then and then.room is room else 0.12
                probability = round(min(1.0, max(0.0, random.gauss(expected, 0.1 + horizon / 1200))), 3)
                distribution = [{"minutes": horizon, "probability": probability}]
                yield (
                    moment,
                    moment,
                    round(random.uniform(0.6, 0.95), 3),
                    probability,
                    None,
                    horizon,
                    room,
                    PredictionType.OCCUPANCY,
                    "seed-1",
                    json.dumps(distribution),
                )
        if here is not None:
            left = (here.left - moment).total_seconds() / 60
            median = round(max(1.0, random.gauss(left, left / 5)), 1)
            distribution = [
                {"minutes": round(median * times, 1), "probability": share} for times, share in QUANTILES
            ]
            yield (
                moment,
                moment,
                round(random.uniform(0.5, 0.9), 3),
                None,
                median,
                None,
                here.room,
                PredictionType.VACANCY,
                "seed-1",
                json.dumps(distribution),
            )
        moment += PREDICT_EVERY


def _milliseconds(moment: datetime) -> datetime:
    """Sensors report no finer."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
