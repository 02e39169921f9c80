"""Occupied time: after every sequence of changes, the views equal a recount of the events in Python."""

import asyncio
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.history import erase
from occupancy_db.history.selection import Selection
from tests.database.conftest import Database
from tests.database.recount import DAY, HOUR, Model, assert_occupied, utc_hour
from tests.database.test_commands import answer
from tests.database.test_hours import NOW, ask, sum_up
from tests.database.test_local_days import set_zone

ROOMS = ["bedroom", "office"]
ZONES = ["desk", "bed"]
ENTITIES = ["binary_sensor.a", "binary_sensor.b"]


def write(cursor: Cursor, moment: datetime, chance: random.Random, table: str = "sensor_readings") -> None:
    cursor.execute(
        f"INSERT INTO {table} (timestamp, room, zone, state, source_entity) VALUES (%s, %s, %s, %s, %s)",
        [moment, chance.choice(ROOMS), chance.choice(ZONES), chance.random() < 0.6, chance.choice(ENTITIES)],
    )


def write_gap(cursor: Cursor, moment: datetime, chance: random.Random) -> None:
    cursor.execute(
        "INSERT INTO sensor_gaps (timestamp, room, zone, source_entity) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        [moment, chance.choice(ROOMS), chance.choice(ZONES), chance.choice(ENTITIES)],
    )


def compute_all(cursor: Cursor) -> None:
    sum_up(cursor)
    while ask(cursor, "SELECT hourly.refresh_occupied(30)") != [(0,)]:
        pass


class Steps:
    """Changes of a database and of its model."""

    def __init__(self, cursor: Cursor, chance: random.Random) -> None:
        self.cursor, self.chance, self.model = cursor, chance, Model(cursor)
        self.days = [NOW - timedelta(days=n * 17, minutes=n * 7) for n in range(8)]
        self.cutoff = self.days[-1] - 5 * DAY

    def some(self) -> datetime:
        moment = self.chance.choice(self.days) - timedelta(minutes=self.chance.uniform(0, 60 * 40))
        return moment.replace(microsecond=0) if self.chance.random() < 0.5 else moment

    def insert(self) -> None:
        for _ in range(3):
            write(self.cursor, self.some(), self.chance)

    def insert_many(self) -> None:
        at = self.some()
        for n in range(12):
            write(self.cursor, at + timedelta(minutes=17 * n), self.chance)

    def insert_now(self) -> None:
        write(self.cursor, datetime.now(UTC) - timedelta(seconds=self.chance.uniform(0, 3)), self.chance)

    def insert_ahead(self) -> None:
        write(self.cursor, datetime.now(UTC) + timedelta(hours=self.chance.uniform(0, 3)), self.chance)

    def tie(self) -> None:
        """Events of one moment in one zone."""
        rows = ask(self.cursor, "SELECT timestamp FROM sensor_readings ORDER BY random() LIMIT 1")
        for (moment,) in rows:
            write(self.cursor, moment, self.chance)
            write_gap(self.cursor, moment, self.chance)

    def gap(self) -> None:
        write_gap(self.cursor, self.some(), self.chance)

    def change_gaps(self) -> None:
        self.cursor.execute("UPDATE sensor_gaps SET timestamp = timestamp + interval '97 minutes'")

    def remove_gaps(self) -> None:
        if self.chance.random() < 0.3:
            self.cursor.execute("TRUNCATE sensor_gaps")
        self.cursor.execute("DELETE FROM sensor_gaps WHERE extract(minute FROM timestamp)::int % 2 = 0")

    def switch(self) -> None:
        self.cursor.execute(
            "UPDATE sensor_readings SET state = NOT state WHERE id %% 4 = %s", [self.chance.randrange(4)]
        )

    def move(self) -> None:
        self.cursor.execute(
            "UPDATE sensor_readings SET timestamp = timestamp - interval '61 minutes' "
            "WHERE id = (SELECT max(id) FROM sensor_readings)"
        )

    def delete(self) -> None:
        self.cursor.execute("DELETE FROM sensor_readings WHERE id %% 5 = %s", [self.chance.randrange(5)])

    def truncate(self) -> None:
        month = f"sensor_readings_{self.chance.choice(self.days):%Y_%m}"
        if self.chance.random() < 0.2:
            month = "sensor_readings"
        if ask(self.cursor, f"SELECT to_regclass('{month}') IS NOT NULL")[0][0]:
            self.cursor.execute(f"TRUNCATE {month}")

    def hold(self) -> None:
        """Set a longest time, from some time on."""
        self.cursor.execute(
            "INSERT INTO sensors (entity, since, room, zone, hold) VALUES (%s, %s, 'office', 'desk', %s) "
            "ON CONFLICT (entity, since) DO UPDATE SET hold = excluded.hold",
            [
                self.chance.choice(ENTITIES),
                self.chance.choice([self.some(), datetime(2010, 1, 1, tzinfo=UTC)]),
                self.chance.choice([None, HOUR / 3, 5 * HOUR, 1.5 * DAY]),
            ],
        )

    def remove_hold(self) -> None:
        self.cursor.execute(
            "DELETE FROM sensors WHERE entity = %s AND since > '2020-01-01'", [self.chance.choice(ENTITIES)]
        )

    def close(self) -> None:
        self.cursor.execute("SELECT hourly.close(%s)", [self.some()])

    def count(self) -> None:
        self.cursor.execute("SELECT hourly.refresh(%s)", [self.chance.choice([1, 5, 500])])

    def refresh(self) -> None:
        self.cursor.execute("SELECT hourly.refresh_occupied(%s)", [self.chance.choice([1, 7, 500])])

    def sum_up(self) -> None:
        compute_all(self.cursor)

    def forget(self) -> None:
        """Retention reaches a later time, in the middle of an hour."""
        later = [moment for moment in (self.some() for _ in range(5)) if self.cutoff < moment < self.days[1]]
        if not later:
            return
        self.cutoff = min(later)
        self.model.forget(datetime.min.replace(tzinfo=UTC), self.cutoff)
        self.cursor.execute("SELECT hourly.forget('-infinity', %s)", [self.cutoff])

    def forget_month(self) -> None:
        """Retention drops the next whole month."""
        first = self.cutoff.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = (first + 32 * DAY).replace(day=1)
        month = f"sensor_readings_{first:%Y_%m}"
        exists = ask(self.cursor, f"SELECT to_regclass('{month}') IS NOT NULL")[0][0]
        if following > self.days[1] or not exists:
            return
        self.model.forget(first, following)
        self.cutoff = following
        summed = self.chance.random() < 0.5
        if summed:
            compute_all(self.cursor)
        self.cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {month}")
        self.cursor.execute(f"SELECT hourly.forget_month('{month}', {summed})")
        self.days = [day for day in self.days if day - 2 * DAY > following]


WEIGHTS = {
    "insert": 9, "count": 4, "insert_many": 5, "insert_now": 4, "insert_ahead": 1, "tie": 3, "gap": 5,
    "change_gaps": 1, "remove_gaps": 1, "switch": 3, "move": 3, "delete": 1, "truncate": 0.5, "hold": 3,
    "remove_hold": 1,
    "close": 3, "refresh": 5, "sum_up": 3, "forget": 5, "forget_month": 1,
}  # fmt: skip
HOMES = ["UTC", "Asia/Kathmandu", "Europe/Berlin", "Asia/Kolkata"]


@pytest.mark.parametrize("seed", range(8))
def test_occupied_time_equals_a_recount_after_every_step(cursor: Cursor, seed: int) -> None:
    chance = random.Random(seed)
    steps = Steps(cursor, chance)
    home = HOMES[seed % len(HOMES)]
    set_zone(cursor, home)
    cursor.execute("SET timezone = 'America/St_Johns'")
    done = []
    for number in range(60):
        (step,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        done.append(step)
        getattr(steps, step)()
        try:
            assert_occupied(cursor, steps.model, home if number % 6 == 5 else None)
        except AssertionError as error:
            raise AssertionError(f"after {done}: {error}") from None


def keep_writing(database: Database, seed: int, stop: threading.Event, failures: list[Exception]) -> None:
    """Change the events of the last two days, at random."""
    chance, connection = random.Random(seed), database.connect()
    changes = [
        "UPDATE sensor_readings SET state = NOT state WHERE id = (SELECT max(id) FROM sensor_readings)",
        "DELETE FROM sensor_readings WHERE id = (SELECT min(id) FROM sensor_readings)",
    ]
    try:
        with connection.cursor() as cursor:
            while not stop.is_set():
                moment = NOW - timedelta(minutes=chance.uniform(0, 60 * 50))
                write(cursor, moment, chance)
                write_gap(cursor, moment + timedelta(minutes=chance.uniform(1, 90)), chance)
                cursor.execute(chance.choice(changes))
    except Exception as error:
        failures.append(error)
    finally:
        connection.close()


def test_occupied_time_is_exact_beside_writers(database: Database, cursor: Cursor) -> None:
    model, stop, failures = Model(cursor), threading.Event(), list[Exception]()
    writers = [
        threading.Thread(target=keep_writing, args=(database, seed, stop, failures)) for seed in range(2)
    ]
    for writer in writers:
        writer.start()
    try:
        for number in range(10):
            cursor.execute("SELECT hourly.close(%s)", [NOW - timedelta(hours=chance_of(number))])
            cursor.execute("SELECT hourly.refresh_occupied(%s)", [3 * number + 1])
            assert_occupied(cursor, model)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failures
    compute_all(cursor)
    assert ask(cursor, "SELECT count(*) FROM hourly.occupied_marks WHERE since < now()") == [(0,)]
    assert_occupied(cursor, model)


def chance_of(number: int) -> float:
    """Hours before now until which hours are closed; the watermark also returns."""
    return [50, 30, 40, 1, 20, 0, 10, 0, 5, 0][number]


def send(cursor: Cursor, minutes: float, state: bool | None, zone: str = "desk", entity: str = "x") -> None:
    """An event so many minutes after the beginning of a past day; None is a gap."""
    moment = utc_hour(NOW) - 3 * DAY + timedelta(minutes=minutes)
    if state is None:
        cursor.execute("INSERT INTO sensor_gaps VALUES (%s, 'office', %s, %s)", [moment, zone, entity])
    else:
        cursor.execute(
            "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
            "VALUES (%s, 'office', %s, %s, %s)",
            [moment, zone, state, entity],
        )


def seconds_of(cursor: Cursor, view: str = "occupied_room_hours") -> list[float]:
    return [row[0] for row in ask(cursor, f"SELECT occupied_seconds FROM {view} ORDER BY hour")]


def test_a_state_holds_until_the_next_event_or_for_the_longest_time(
    database: Database, cursor: Cursor
) -> None:
    answer(database, "sensors", "set", "short", "--room", "office", "--zone", "bed", "--hold", "10 min")
    for computed in range(2):
        if computed:
            compute_all(cursor)
        else:
            send(cursor, 0, True)
            send(cursor, 15, False)
            send(cursor, 20, True)
            send(cursor, 30, None)  # a gap
            send(cursor, 50, False)
            send(cursor, 10, True, "bed", "short")
            send(cursor, 100, True, "bed", "short")  # until 110
        assert seconds_of(cursor, "occupied_zone_hours WHERE zone = 'bed'") == [600, 600]
        assert seconds_of(cursor) == [30 * 60, 600]  # 0 to 20, 20 to 30
    send(cursor, 25, None)  # late
    assert seconds_of(cursor, "occupied_zone_hours WHERE zone = 'desk'") == [20 * 60]
    compute_all(cursor)
    cursor.execute("DELETE FROM sensor_gaps WHERE extract(minute FROM timestamp AT TIME ZONE 'UTC') = 25")
    assert seconds_of(cursor, "occupied_zone_hours WHERE zone = 'desk'") == [25 * 60]
    answer(database, "sensors", "set", "short", "--hold", "0")
    # The default: 24 hours. The first state ends with the second.
    assert sum(seconds_of(cursor, "occupied_zone_hours WHERE zone = 'bed'")) == 90 * 60 + DAY.total_seconds()
    compute_all(cursor)
    assert sum(seconds_of(cursor, "occupied_zone_hours WHERE zone = 'bed'")) == 90 * 60 + DAY.total_seconds()


def test_closed_hours_are_answered_from_the_stored_spans(cursor: Cursor) -> None:
    send(cursor, 0, True)
    send(cursor, 30, False)
    compute_all(cursor)
    cursor.execute("UPDATE hourly.occupied SET spans = '{}'")
    assert seconds_of(cursor) == []


def test_a_dump_restores_with_its_occupied_time(database: Database, cursor: Cursor, empty: Database) -> None:
    steps = Steps(cursor, random.Random(1))
    set_zone(cursor, "Asia/Kathmandu")
    for step in (*["insert_many", "gap", "hold"] * 6, "sum_up", "forget", "forget", "insert"):
        getattr(steps, step)()
    assert_occupied(cursor, steps.model, "Asia/Kathmandu")
    empty.psql(database.dump())
    connection = empty.connect()
    with connection.cursor() as restored:
        steps.model.cursor = restored
        assert_occupied(restored, steps.model, "Asia/Kathmandu")
    connection.close()


TABLES = ["sensor_gaps", "hourly.occupied", "hourly.occupied_history", "hourly.carried"]


@pytest.mark.parametrize(
    ("selected", "left"),
    [
        ({"room": "office"}, "room <> 'office'"),
        ({"zone": "desk"}, "zone IS DISTINCT FROM 'desk'"),
        ({"entity": "binary_sensor.a"}, None),
    ],
)
def test_an_erasure_removes_occupied_time(
    database: Database, cursor: Cursor, selected: dict[str, str], left: str | None
) -> None:
    answer(database, "sensors", "set", "binary_sensor.a", "--room", "office", "--zone", "desk")
    steps = Steps(cursor, random.Random(2))
    for step in [*["insert_many", "gap"] * 15, "sum_up"]:
        getattr(steps, step)()
    # Retention stops when an event of the place is a second old.
    ((cutoff,),) = ask(
        cursor,
        "SELECT percentile_disc(0.7) WITHIN GROUP (ORDER BY timestamp) + interval '1 second' "
        "FROM sensor_readings WHERE (room, zone, source_entity) = ('office', 'desk', 'binary_sensor.a')",
    )
    steps.model.forget(datetime.min.replace(tzinfo=UTC), cutoff)
    cursor.execute("SELECT hourly.forget('-infinity', %s)", [cutoff])
    assert all(ask(cursor, f"SELECT count(*) > 0 FROM {table}")[0][0] for table in TABLES)
    before = ask(cursor, "SELECT count(*) FROM hourly.occupied_history WHERE zone IS NULL")
    done = asyncio.run(erase.erase(database.settings(), Selection(**selected)))
    assert done["hourly.occupied_history"]
    if left:
        for table in TABLES:
            assert ask(cursor, f"SELECT DISTINCT {left} FROM {table}") in ([(True,)], [])
    # What is left of rooms has nothing of what was removed.
    assert ask(cursor, "SELECT count(*) FROM hourly.occupied_history WHERE zone IS NULL") < before
    more = "SELECT sum(occupied_seconds) FROM occupied_{}_hours WHERE room = 'bedroom'"
    zones, rooms = (ask(cursor, more.format(kind))[0][0] or 0 for kind in ("zone", "room"))
    assert rooms <= zones + 1e-6
    model = Model(cursor)
    model.forgotten = steps.model.forgotten
    carried = "SELECT room, zone, timestamp, state, source_entity FROM hourly.carried"
    for room, zone, moment, state, entity in ask(cursor, carried):
        model.carried[room, zone] = (moment, -2, state, entity)
    cursor.execute("DELETE FROM hourly.occupied_history")
    assert_occupied(cursor, model)


def test_an_erasure_works_in_a_database_of_an_earlier_revision(database: Database, cursor: Cursor) -> None:
    """As the one that a restore has replaced."""
    answer(database, "rollback", "--revision", "004_hourly_sums", "--lose-data")
    for selected in ({"entity": "binary_sensor.a"}, {"zone": "desk"}, {"room": "office"}):
        write(cursor, NOW, random.Random(1))
        erased = asyncio.run(erase.erase(database.settings(), Selection(**selected)))
        assert "sensor_readings" in erased
        assert "sensors" not in erased
    assert ask(cursor, "SELECT count(*) FROM sensor_readings WHERE room = 'office'") == [(0,)]
