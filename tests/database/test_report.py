"""The report: each number equals a recount in Python."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.driver import connect_driver
from occupancy_db.history import upkeep
from occupancy_db.report import home as homes
from occupancy_db.report import movements, occupancy, predictions, volume
from occupancy_db.report.home import Home
from tests.database.conftest import Database
from tests.database.recount import Model, end_of_hour, merged, periods
from tests.database.test_hours import NOW, ask
from tests.database.test_local_days import set_zone
from tests.database.test_occupied import ROOMS, compute_all, write, write_gap
from tests.database.test_occupied import ZONES as PLACES

ZONES = ("Europe/Berlin", "Asia/Kathmandu")
DAY = timedelta(days=1)
YEAR = 366


def changes(zone: ZoneInfo) -> list[datetime]:
    """The days of the last year on which the clocks of a zone change, and three others."""
    days = [NOW - number * DAY for number in range(300)]
    changed = [
        day for day in days if day.astimezone(zone).utcoffset() != (day + DAY).astimezone(zone).utcoffset()
    ]
    return [*changed, NOW, NOW - DAY, NOW - 8 * DAY]


def fill(database: Database, cursor: Cursor, zone: str) -> random.Random:
    """Readings, gaps and holds on a few days, those of changed clocks among them."""
    chance = random.Random(1)
    asyncio.run(upkeep.maintain(database.settings(), 1, months_back=11))
    set_zone(cursor, zone)
    cursor.execute(
        "INSERT INTO sensors (entity, since, room, zone, hold) "
        "VALUES ('binary_sensor.a', '-infinity', 'office', 'desk', '40 min')"
    )
    for day in changes(ZoneInfo(zone)):
        for _ in range(40):
            write(cursor, day - timedelta(hours=chance.uniform(0, 30)), chance)
        for _ in range(4):
            write_gap(cursor, day - timedelta(hours=chance.uniform(0, 30)), chance)
    # Nobody is there now: what is asked later is not more.
    cursor.execute(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "SELECT %s, room, zone, false, 'x' FROM unnest(%s) AS room CROSS JOIN unnest(%s) AS zone",
        [NOW, ROOMS, PLACES],
    )
    return chance


def reading(
    database: Database, question: Callable[[Any, Home], Awaitable[Any]], days: int = YEAR
) -> tuple[Home, Any]:
    """Ask a question as the report does."""

    async def run() -> tuple[Home, Any]:
        async with (
            connect_driver(database.settings(), "test", {"timezone": "UTC"}) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            home = await homes.find(connection, days)
            return home, await question(connection, home)

    return asyncio.run(run())


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("computed", [False, True])
def test_the_heat_map_equals_a_recount(database: Database, cursor: Cursor, zone: str, computed: bool) -> None:
    fill(database, cursor, zone)
    if computed:
        compute_all(cursor)
    home, found = reading(database, occupancy.heat)
    expected: dict[tuple[str, int, int], float] = defaultdict(float)
    firsts = dict(ask(cursor, "SELECT room, min(timestamp) FROM sensor_readings GROUP BY room"))
    for place, spans in Model(cursor).spans(home.now).items():
        for span in spans if len(place) == 1 else []:
            for since, until in periods(*span, lambda at: end_of_hour(at, home.zone)):
                local = since.astimezone(home.zone)
                expected[place[0], local.isoweekday(), local.hour] += (until - since).total_seconds()
    assert {key: pytest.approx(value, abs=0.1) for key, value in expected.items()} == {
        key: occupied for key, (occupied, _) in found.items() if occupied
    }
    for room, first in firsts.items():
        whole = sum(passed for (name, _, _), (_, passed) in found.items() if name == room)
        assert whole == pytest.approx((home.now - max(first, home.since)).total_seconds())
    assert {room for room, _, _ in found} == set(firsts)


def test_each_hour_of_a_changed_clock_counts() -> None:
    """In autumn, the hour that the clocks show twice has two hours; in spring, one has none."""
    zone = ZoneInfo("Europe/Berlin")
    for day, hours in ((date(2026, 10, 25), 2), (date(2026, 3, 29), 0)):
        now = datetime(day.year, day.month, day.day, 12, tzinfo=zone).astimezone(UTC)
        found = occupancy.passed(Home(zone, now, 1, {}), datetime.min.replace(tzinfo=UTC))
        assert found.get((7, 2), 0) == hours * 3600
        assert sum(found.values()) == (11 + hours) * 3600
        ticks = occupancy._ticks(
            Home(zone, now, 1, {}), now - timedelta(hours=11 + hours), now + timedelta(hours=12)
        )
        assert [hour for _, hour in ticks] == ["00", "06", "12", "18"]


@pytest.mark.parametrize("zone", ZONES)
def test_the_timeline_equals_a_recount_on_each_day(database: Database, cursor: Cursor, zone: str) -> None:
    fill(database, cursor, zone)
    for moment in changes(ZoneInfo(zone)):
        day = moment.astimezone(ZoneInfo(zone)).date()

        async def spans(connection: Any, home: Home, day: date = day) -> Any:
            since, until = home.midnight(day), min(home.midnight(day + DAY), home.now)
            return since, until, await occupancy.timeline(connection, since, until)

        home, (since, until, found) = reading(database, spans)
        expected = {
            place: [
                (max(begin, since), min(end, until)) for begin, end in parts if begin < until and end > since
            ]
            for place, parts in Model(cursor).live(home.now).items()
        }
        assert found == {place: merged(parts) for place, parts in expected.items() if parts}
        view = f"SELECT room, zone, occupied_seconds FROM occupied_zone_local_days WHERE day = '{day}'"
        seconds = {(room, name): value for room, name, value in ask(cursor, view)}
        assert {
            place: pytest.approx(sum((end - begin).total_seconds() for begin, end in parts), abs=60)
            for place, parts in found.items()
        } == seconds


def test_predictions_are_compared_with_the_recount(database: Database, cursor: Cursor) -> None:
    chance = fill(database, cursor, "Europe/Berlin")
    for number in range(400):
        moment = chance.choice(changes(ZoneInfo("Europe/Berlin"))) - timedelta(hours=chance.uniform(-1, 30))
        room, model = chance.choice(["office", "bedroom"]), f"m{number % 3}" if number % 3 else None
        kind: tuple[Any, ...] = ("occupancy", chance.random(), 15 + number % 2, None)
        if number % 4 == 0:
            kind = ("vacancy", None, None, chance.uniform(0, 90))
        cursor.execute(
            "INSERT INTO predictions (confidence, prediction_made_at, room, model_version, prediction_type, "
            "probability, horizon_minutes, expected_vacancy_minutes) VALUES (1, %s, %s, %s, %s, %s, %s, %s)",
            [moment, room, model, *kind],
        )
    compute_all(cursor)
    home, found = reading(database, predictions.find)
    assert isinstance(found, predictions.Scores)
    ((closed,),) = ask(cursor, "SELECT closed_before FROM hourly.watermark")
    spans = Model(cursor).spans(home.now)
    expected: dict[Any, list[Any]] = defaultdict(list)
    for model, room, type_, made, probability, horizon, minutes in ask(
        cursor,
        "SELECT coalesce(model_version, ''), room, prediction_type, prediction_made_at, probability, "
        "horizon_minutes, expected_vacancy_minutes FROM predictions",
    ):
        if made > home.now:
            continue
        moment = made + timedelta(minutes=horizon or 0)
        known = moment < closed
        following = [(begin, end) for begin, end in spans[room,] if end > moment]
        occupied = bool(following) and following[0][0] <= moment
        if type_ == "occupancy":
            expected[model, room, horizon].append((known, occupied, probability))
        else:
            # Of hours that are not stored yet, the report does not know.
            known = known and bool(following) and following[0][0] < closed
            error = abs(minutes - max((following[0][0] - moment).total_seconds() / 60, 0)) if known else None
            expected[model, room].append((known, error))
    assert found.occupancy.keys() == {key for key in expected if len(key) == 3}
    for key, score in found.occupancy.items():
        outcomes = [(occupied, probability) for known, occupied, probability in expected[key] if known]
        assert (score.made, score.known) == (len(expected[key]), len(outcomes))
        assert score.occupied == sum(occupied for occupied, _ in outcomes)
        assert score.right == sum(occupied == (probability >= 0.5) for occupied, probability in outcomes)
        assert score.squares == pytest.approx(sum((p - occupied) ** 2 for occupied, p in outcomes))
    assert sum(score.known for score in found.tenths.values()) == sum(
        s.known for s in found.occupancy.values()
    )
    for model, room, made, known, error in found.vacancy:
        errors = sorted(error for known_, error in expected[model, room] if known_)
        assert (made, known) == (len(expected[model, room]), len(errors))
        middle = (errors[(len(errors) - 1) // 2] + errors[len(errors) // 2]) / 2
        assert error == pytest.approx(middle, abs=1e-3)


def test_volume_and_transitions_equal_a_recount(database: Database, cursor: Cursor) -> None:
    chance = fill(database, cursor, "Asia/Kathmandu")
    for _ in range(60):
        values = (NOW - timedelta(hours=chance.uniform(0, 900)), chance.choice(["office", None]), "bedroom")
        cursor.execute(
            "INSERT INTO room_transitions (timestamp, from_room, to_room, transition_duration_seconds) "
            "VALUES (%s, %s, %s, 7)",
            values,
        )
    compute_all(cursor)
    write(cursor, NOW, chance)  # an hour that is not summed up
    cursor.execute("SELECT hourly.forget('-infinity', %s)", [NOW - 100 * DAY])
    before = changes(ZoneInfo("Asia/Kathmandu"))
    home, found = reading(database, volume.find, 28)
    times = [moment for (moment,) in ask(cursor, "SELECT timestamp FROM sensor_readings")]
    assert isinstance(found, volume.Volume)
    assert sum(found.readings.values()) == 40 * len(before) + len(ROOMS) * len(PLACES) + 1
    for month, number in found.readings.items():
        if datetime(month.year, month.month, 1, tzinfo=UTC) > NOW - 100 * DAY:
            assert number == sum((moment.year, moment.month) == (month.year, month.month) for moment in times)
    hours: dict[datetime, int] = defaultdict(int)
    for moment in times:
        hours[end_of_hour(moment, home.zone) - timedelta(hours=1)] += 1
    assert found.hours == {hour: number for hour, number in hours.items() if hour >= volume.first_hour(home)}
    _, rows = reading(database, movements.find, 28)
    counted = ask(
        cursor,
        "SELECT from_room, to_room, count(*) FROM room_transitions WHERE timestamp >= "
        f"'{home.since.isoformat()}' GROUP BY 1, 2",
    )
    assert sorted(map(str, counted)) == sorted(str((one.origin, one.target, one.number)) for one in rows)
    assert {one.seconds for one in rows} == {7}


def test_the_forecast_grows_by_the_readings_of_a_day_until_retention_holds_it() -> None:
    months = {date(2026, 10, 1): 30_000_000, date(2026, 11, 1): 30_000_000, date(2027, 1, 1): 100_000}
    found = volume.Volume(70_000_000, dict.fromkeys(list(months)[:2], 100_000), months, 3000, {})
    assert found.forecast(100, None) == 70_000_000 + 300_000 * 300
    kept = found.forecast(365, 3)
    assert kept == pytest.approx(70_000_000 + (3000 * 365.25 / 12 * 4 - 200_000) * 300)
    assert volume.Volume(70_000_000, {date(2026, 10, 1): 9}, months, 3000, {}).forecast(30, None) is None
