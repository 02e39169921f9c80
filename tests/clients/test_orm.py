"""Clients with SQLAlchemy's ORM: rooms as strings and as enumerations, with asyncpg and psycopg 3."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import and_, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.clients.conftest import Database
from tests.clients.models import NAMES, STRINGS, VALUES, VARCHAR, Kind, Room, Tables
from tests.clients.server import Login

NOW = datetime.now(UTC)
Sessions = async_sessionmaker[AsyncSession]

LOOP = 12
"""More than the five executions after which PostgreSQL may choose a generic plan."""


@pytest.fixture(params=["asyncpg", "psycopg"])
async def sessions(request: pytest.FixtureRequest, application: Login) -> AsyncIterator[Sessions]:
    """The sessions of a client; its objects expire with a commit, as is SQLAlchemy's default."""
    driver: str = request.param
    engine = create_async_engine(application.url(driver), connect_args=application.connect_args(driver))
    yield async_sessionmaker(engine)
    await engine.dispose()


def reading(tables: Tables, room: Any, **changes: Any) -> Any:
    values = {"timestamp": NOW, "zone": "desk", "state": True, "source_entity": "binary_sensor.fp2_desk"}
    return tables.SensorReading(room=room, **{**values, **changes})


ROOMS: dict[str, tuple[Tables, Any, Any]] = {
    "strings": (STRINGS, "office", "bedroom"),
    "values of an enumeration": (VALUES, Room.OFFICE, Room.BEDROOM),
    "an enumeration as varchar": (VARCHAR, Room.OFFICE, Room.BEDROOM),
}
CLIENTS = pytest.mark.parametrize(("tables", "room", "other"), ROOMS.values(), ids=ROOMS)


@CLIENTS
async def test_create_commit_and_refresh_in_a_loop(
    sessions: Sessions, tables: Tables, room: Any, other: Any
) -> None:
    """One session for all: refresh() reads the row by its id, and begins the next transaction."""
    async with sessions() as session:
        seen = set()
        for number in range(LOOP):
            one = reading(tables, room, timestamp=NOW - timedelta(minutes=number))
            session.add(one)
            await session.commit()
            await session.refresh(one)
            assert (one.room, one.confidence, one.timestamp) == (room, 1.0, NOW - timedelta(minutes=number))
            assert one.created_at >= NOW - timedelta(minutes=10)
            seen.add(one.id)
        assert len(seen) == LOOP
        last = one.id
        one.room = other
        await session.commit()
        one = await session.get_one(tables.SensorReading, last)
        assert one.room == other
        await session.delete(one)
        await session.commit()
        assert await session.scalar(select(func.count()).select_from(tables.SensorReading)) == LOOP - 1


@CLIENTS
async def test_filters_on_rooms(sessions: Sessions, tables: Tables, room: Any, other: Any) -> None:
    """The filters of a repository: a room and a range of time, IN, inequality, the newest."""
    table = tables.SensorReading
    async with sessions() as session:
        session.add_all(
            reading(tables, room if number % 2 else other, timestamp=NOW - timedelta(hours=number))
            for number in range(60)
        )
        await session.commit()
        for _ in range(LOOP):
            day = select(table).where(
                and_(table.room == room, table.timestamp >= NOW - timedelta(hours=24), table.timestamp < NOW)
            )
            found = (await session.scalars(day.order_by(table.timestamp))).all()
            assert [one.timestamp for one in found] == [NOW - timedelta(hours=n) for n in range(23, 0, -2)]
            newest = select(table).where(table.room == other).order_by(table.timestamp.desc()).limit(1)
            assert (await session.scalars(newest)).one().timestamp == NOW
        counts = {
            "in": table.room.in_([room, other]),
            "one in": table.room.in_([room]),
            "none in": table.room.in_([]),
            "not in": table.room.not_in([room]),
            "not": table.room != room,
        }
        counted = {
            name: await session.scalar(select(func.count()).where(what)) for name, what in counts.items()
        }
        assert counted == {"in": 60, "one in": 30, "none in": 0, "not in": 30, "not": 30}
        groups = select(table.room, func.count()).group_by(table.room).order_by(table.room)
        assert dict((await session.execute(groups)).tuples().all()) == {room: 30, other: 30}


@CLIENTS
async def test_many_rows_at_once_are_inserted(
    sessions: Sessions, tables: Tables, room: Any, other: Any
) -> None:
    """SQLAlchemy casts each parameter of such a statement (INSERT ... SELECT FROM VALUES)."""
    async with sessions() as session:
        many = [reading(tables, (room, other)[number % 2], zone=f"zone {number}") for number in range(250)]
        session.add_all(many)
        await session.commit()
        for one in many[::50]:
            await session.refresh(one)
        assert len({one.id for one in many[::50]}) == 5
        table = tables.SensorReading
        assert await session.scalar(select(func.count()).where(table.room == room)) == 125
        moved = await session.execute(update(table).where(table.room == room).values(room=other))
        assert moved.rowcount == 125  # type: ignore[attr-defined]  # an UPDATE has a CursorResult


@CLIENTS
async def test_transitions_with_and_without_an_origin(
    sessions: Sessions, tables: Tables, room: Any, other: Any
) -> None:
    table = tables.RoomTransition
    async with sessions() as session:
        for origin in (None, other, other):
            one = table(timestamp=NOW, from_room=origin, to_room=room, transition_duration_seconds=4.5)
            session.add(one)
            await session.commit()
            await session.refresh(one)
            assert (one.from_room, one.to_room) == (origin, room)
        first = await session.scalars(select(table).where(table.from_room.is_(None)))
        assert len(first.all()) == 1
        pairs = select(table.from_room, table.to_room, func.count()).where(table.from_room == other)
        found = await session.execute(pairs.group_by(table.from_room, table.to_room))
        assert [tuple(row) for row in found] == [(other, room, 2)]


@CLIENTS
async def test_predictions_of_all_horizons(sessions: Sessions, tables: Tables, room: Any, other: Any) -> None:
    """Every minute of three hours."""
    table = tables.Prediction
    occupancy: Any = "occupancy" if tables is STRINGS else Kind.OCCUPANCY
    async with sessions() as session:
        session.add_all(
            table(
                room=(room, other)[minutes % 2], prediction_made_at=NOW, prediction_type=occupancy,
                confidence=0.8, horizon_minutes=minutes, probability=0.4, model_version="v1",
            )
            for minutes in range(1, 181)
        )  # fmt: skip
        await session.commit()
        latest = select(table).where(
            table.room == room, table.prediction_type == occupancy, table.horizon_minutes.in_([30, 60, 180])
        )
        found = (await session.scalars(latest.order_by(table.horizon_minutes))).all()
        assert [one.horizon_minutes for one in found] == [30, 60, 180]
        assert {one.prediction_type for one in found} == {occupancy}
        assert {one.probability_distribution for one in found} == {None}


@pytest.mark.parametrize("minutes", [0, -15])
async def test_a_horizon_that_is_not_in_the_future_is_refused(sessions: Sessions, minutes: int) -> None:
    async with sessions() as session:
        session.add(
            STRINGS.Prediction(
                room="office", prediction_made_at=NOW, prediction_type="occupancy", confidence=0.8,
                horizon_minutes=minutes, probability=0.4,
            )
        )  # fmt: skip
        with pytest.raises(DBAPIError, match="ck_predictions_horizon_minutes"):
            await session.commit()


@pytest.mark.parametrize(
    ("tables", "room"), [(tables, room) for tables, room, _ in ROOMS.values()], ids=ROOMS
)
async def test_distributions_are_lists_of_objects(sessions: Sessions, tables: Tables, room: Any) -> None:
    vacancy: Any = "vacancy" if tables is STRINGS else Kind.VACANCY
    distribution = [{"minutes": 30, "probability": 0.2}, {"minutes": 45.5, "probability": 0.8}]
    async with sessions() as session:
        for document in (distribution, [], None):
            one = tables.Prediction(
                room=room, prediction_made_at=NOW, prediction_type=vacancy, confidence=0.8,
                expected_vacancy_minutes=45.5, probability_distribution=document,
            )  # fmt: skip
            session.add(one)
            await session.commit()
            await session.refresh(one)
            assert one.probability_distribution == document
            assert (one.room, one.prediction_type) == (room, vacancy)


@pytest.mark.own_database
async def test_generated_predictions_are_read_as_clients_write_them(
    sessions: Sessions, database: Database
) -> None:
    """`seed` writes what a client validates: a list of objects with minutes and probability."""
    database.server.cli("seed", "--days", "1", database=database.name, ENVIRONMENT="development")
    table = VALUES.Prediction
    async with sessions() as session:
        vacancies = await session.scalars(
            select(STRINGS.Prediction).where(STRINGS.Prediction.prediction_type == "vacancy")
        )
        found = vacancies.all()
        assert found
        for one in found:
            assert all(set(part) == {"minutes", "probability"} for part in one.probability_distribution)
            assert one.expected_vacancy_minutes in {part["minutes"] for part in one.probability_distribution}
        offices = select(func.count()).where(
            table.room == Room.OFFICE, table.prediction_type == Kind.OCCUPANCY
        )
        assert await session.scalar(offices)


async def test_rooms_are_text_in_expressions(sessions: Sessions) -> None:
    table, moves = STRINGS.SensorReading, STRINGS.RoomTransition
    async with sessions() as session:
        session.add_all([reading(STRINGS, "office"), reading(STRINGS, "living_kitchen")])
        session.add_all(
            moves(timestamp=NOW, from_room=origin, to_room="bedroom", transition_duration_seconds=1.0)
            for origin in ("office", None)
        )
        await session.commit()
        for _ in range(LOOP):
            like = select(table.room).where(table.room.like("%kitchen"))
            assert (await session.scalars(like)).all() == ["living_kitchen"]
            upper = select(func.upper(table.room)).where(func.length(table.room) == 6)
            assert (await session.scalars(upper)).all() == ["OFFICE"]
            origin = func.coalesce(moves.from_room, "initial").label("origin")
            found = await session.execute(select(origin, func.count()).group_by("origin"))
            assert set(found.tuples()) == {("initial", 1), ("office", 1)}
            joined = select(table.room + "/" + table.zone).where(table.room.contains("off"))
            assert (await session.scalars(joined)).all() == ["office/desk"]


@pytest.mark.parametrize("tables", [STRINGS, VARCHAR], ids=["strings", "an enumeration as varchar"])
async def test_an_unknown_room_is_found_nowhere_and_refused_by_the_type(
    sessions: Sessions, tables: Tables
) -> None:
    """The message is the enumeration's own."""
    unknown: Any = "kitchen" if tables is STRINGS else Room.LIVING_KITCHEN
    async with sessions() as session:
        session.add(reading(tables, "office" if tables is STRINGS else Room.OFFICE))
        await session.commit()
        nowhere = select(tables.SensorReading).where(tables.SensorReading.room == unknown)
        assert (await session.scalars(nowhere)).all() == []
    async with sessions() as session:
        session.add(reading(STRINGS, "kitchen"))
        with pytest.raises(DBAPIError, match='invalid input value for enum room_type: "kitchen"'):
            await session.commit()
        await session.rollback()
        session.add(reading(STRINGS, "office"))
        await session.commit()


@pytest.mark.own_database
async def test_a_home_may_list_the_names_of_an_enumeration_as_its_rooms(
    sessions: Sessions, database: Database, owner: Cursor
) -> None:
    """A client that writes names ("BEDROOM") works where they are rooms; elsewhere the type refuses them."""
    async with sessions() as session:
        session.add(reading(NAMES, Room.BEDROOM))
        with pytest.raises(DBAPIError, match='invalid input value for enum room_type: "BEDROOM"'):
            await session.commit()
    database.server.cli("rooms", "add", *(room.name for room in Room), database=database.name)
    async with sessions() as session:
        for room in Room:
            one = reading(NAMES, room)
            session.add(one)
            await session.commit()
            await session.refresh(one)
            assert one.room is room
        table = NAMES.SensorReading
        for _ in range(LOOP):
            found = await session.scalars(select(table).where(table.room == Room.OFFICE))
            assert [one.room for one in found] == [Room.OFFICE]
            both = select(func.count()).where(table.room.in_([Room.OFFICE, Room.BEDROOM]))
            assert await session.scalar(both) == 2
    owner.execute("SELECT array_agg(room ORDER BY room) FROM sensor_readings")
    assert owner.fetchone() == (["BEDROOM", "LIVING_KITCHEN", "OFFICE"],)


@pytest.mark.own_database
async def test_a_room_is_added_beside_an_open_client(sessions: Sessions, owner: Cursor) -> None:
    """Its connections and their prepared statements stay as they are."""
    async with sessions() as session:
        for _ in range(LOOP):
            session.add(reading(STRINGS, "office"))
            await session.commit()
        owner.execute("ALTER TYPE room_type ADD VALUE IF NOT EXISTS 'kitchen'")
        for _ in range(LOOP):
            one = reading(STRINGS, "kitchen")
            session.add(one)
            await session.commit()
            await session.refresh(one)
            assert one.room == "kitchen"
        kitchen = select(func.count()).where(STRINGS.SensorReading.room == "kitchen")
        assert await session.scalar(kitchen) == LOOP
