"""ingest() in the transaction of its caller, and beside other transactions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import asyncpg
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import text

from occupancy_db.connection import dispose_engine, get_async_session, get_engine
from occupancy_db.errors import DatabaseError
from occupancy_db.models import RoomTransition
from occupancy_db.readings import InvalidReadings, Reading, ingest
from tests.database.conftest import Database
from tests.database.users import grant, password
from tests.waiting import wait_for_async

NOW = datetime.now(UTC).replace(microsecond=123456)
GOOD = Reading(NOW, "office", "desk", True, "binary_sensor.desk", 0.25)
ROWS = "SELECT count(*) FROM sensor_readings"
TRANSITIONS = "SELECT count(*) FROM room_transitions"


@pytest.fixture(autouse=True)
async def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """This process, as the application in production."""
    grant(database.cluster, database.name)
    environment = database.environment(
        POSTGRES_USER="occupancy_app", POSTGRES_PASSWORD=password("occupancy_app")
    )
    for name, value in environment.items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("POSTGRES_SSLMODE", "disable")
    yield
    await dispose_engine()


def one(cursor: Cursor, query: str) -> int:
    cursor.execute(query)
    (value,) = cursor.fetchone() or (0,)
    return int(value)


def transition() -> RoomTransition:
    return RoomTransition(timestamp=NOW, to_room="office")


async def test_readings_and_a_transition_are_one_transaction(cursor: Cursor) -> None:
    async with get_async_session() as session:
        session.add(transition())
        assert await ingest([GOOD], session=session) == 1
        assert one(cursor, ROWS) == 0
        await session.rollback()
    assert (one(cursor, ROWS), one(cursor, TRANSITIONS)) == (0, 0)
    async with get_async_session() as session:
        assert await ingest([GOOD], session=session) == 1
        session.add(transition())
        await session.commit()
    assert (one(cursor, ROWS), one(cursor, TRANSITIONS)) == (1, 1)


async def test_a_failure_leaves_the_transaction_usable(cursor: Cursor) -> None:
    async with get_async_session() as session:
        session.add(transition())
        await session.flush()
        with pytest.raises(InvalidReadings):
            await ingest([replace(GOOD, room="attic")], session=session)
        with pytest.raises(DatabaseError, match="no partition for readings of 2024-02"):
            await ingest([GOOD, replace(GOOD, timestamp=datetime(2024, 2, 29, tzinfo=UTC))], session=session)
        cursor.execute("INSERT INTO rooms (room, retired_at) VALUES ('bedroom', %s)", [NOW])
        with pytest.raises(InvalidReadings, match="room 'bedroom' was retired"):
            await ingest([GOOD, replace(GOOD, room="bedroom")], session=session)
        assert await ingest([GOOD], session=session) == 1
        await session.commit()
    assert (one(cursor, ROWS), one(cursor, TRANSITIONS)) == (1, 1)


async def test_tasks_with_a_session_each_need_one_connection_each(cursor: Cursor) -> None:
    """As many tasks as the pool has connections, which a second connection for ingest() would exhaust."""
    pool = (await get_engine()).pool
    most = pool.size() + pool._max_overflow  # type: ignore[attr-defined]
    together = asyncio.Barrier(most)

    async def work(number: int) -> int:
        async with get_async_session() as session:
            await session.execute(text("SELECT 1"))
            await together.wait()
            written = await ingest([replace(GOOD, zone=f"zone {number}")], session=session)
            await session.commit()
            return written

    assert await asyncio.gather(*(work(number) for number in range(most))) == [1] * most
    assert one(cursor, ROWS) == most


async def test_a_reading_of_an_open_transaction_is_waited_for(cursor: Cursor) -> None:
    """The second transaction stores it if the first one is rolled back, and leaves it out otherwise."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'occupancy_app' AND wait_event_type = 'Lock'"
    )
    for commit, written, many in ((False, 1, 1), (True, 0, 1), (True, 0, 100), (False, 100, 100)):
        cursor.execute("DELETE FROM sensor_readings")
        batch = [replace(GOOD, timestamp=NOW - timedelta(seconds=number)) for number in range(many)]
        async with get_async_session() as session:
            assert await ingest(batch, session=session) == many
            second = asyncio.create_task(ingest(batch))
            await wait_for_async(lambda: one(cursor, waiting), "the second transaction")
            await (session.commit() if commit else session.rollback())
        assert await second == written
        assert one(cursor, ROWS) == many


async def test_other_readings_are_not_waited_for(cursor: Cursor) -> None:
    async with get_async_session() as session:
        assert await ingest([GOOD], session=session) == 1
        assert await ingest([replace(GOOD, timestamp=NOW - timedelta(milliseconds=1))]) == 1
        await session.commit()
    assert one(cursor, ROWS) == 2


async def test_readings_far_apart_among_many_are_stored_once(cursor: Cursor) -> None:
    cursor.execute(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "SELECT %s - step * interval '1 second', 'office', 'desk', true, 'binary_sensor.desk' "
        "FROM generate_series(1, 500) AS step",
        [NOW],
    )
    batch = [replace(GOOD, timestamp=NOW - timedelta(seconds=seconds)) for seconds in (0, 250, 250.5, 500)]
    assert await ingest(batch) == 2
    assert await ingest(batch) == 0
    assert one(cursor, ROWS) == 502


async def test_readings_that_were_stored_twice_by_other_means_stay(cursor: Cursor) -> None:
    for _ in range(2):
        cursor.execute(
            "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
            "VALUES (%s, %s, %s, %s, %s)",
            [GOOD.timestamp, GOOD.room, GOOD.zone, GOOD.state, GOOD.source_entity],
        )
    assert await ingest([GOOD, replace(GOOD, state=False)]) == 1
    assert one(cursor, ROWS) == 3


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"])
async def test_a_transaction_that_does_not_see_others_is_refused(cursor: Cursor, level: str) -> None:
    async with get_async_session() as session:
        await session.connection(execution_options={"isolation_level": level})
        expected = "autocommit" if level == "AUTOCOMMIT" else f"isolation level is {level.lower()}"
        with pytest.raises(DatabaseError, match=expected):
            await ingest([GOOD], session=session)
    assert one(cursor, ROWS) == 0


@pytest.mark.parametrize("environment", ["development", "testing", "production"])
async def test_ingest_goes_on_after_its_connections_were_ended(
    database: Database, cursor: Cursor, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("POSTGRES_DB", "other" if environment == "testing" else database.name)
    monkeypatch.setenv("POSTGRES_TEST_DB", database.name if environment == "testing" else "other")
    for number in range(3):
        assert await ingest([replace(GOOD, zone=f"zone {number}")]) == 1
        database.cluster.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = 'occupancy_app'"
        )
    assert one(cursor, ROWS) == 3


class Interruption:
    """Cancels the task that makes a certain call to the driver, once the call has been sent.

    Attributes:
        left: Number of calls until then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        for name in ("execute", "fetch", "fetchval", "copy_records_to_table"):
            monkeypatch.setattr(asyncpg.Connection, name, self._counted(getattr(asyncpg.Connection, name)))

    def _counted(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(original)
        async def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and (task := asyncio.current_task()):
                task.cancel()
            return await original(*arguments, **options)

        return call


@pytest.mark.parametrize(
    ("readings", "call"), [(1, call) for call in range(1, 4)] + [(65, call) for call in range(1, 10)]
)
async def test_a_connection_stays_usable_after_a_cancellation(
    cursor: Cursor, monkeypatch: pytest.MonkeyPatch, readings: int, call: int
) -> None:
    """The next readings must not become part of a transaction that nobody commits."""
    assert await ingest([GOOD]) == 1
    interruption = Interruption(monkeypatch, call)
    with pytest.raises(asyncio.CancelledError):
        await ingest([replace(GOOD, zone=f"cancelled {number}") for number in range(readings)])
    assert interruption.left <= 0
    assert await ingest([replace(GOOD, zone="next")]) == 1
    cursor.execute("SELECT count(*) FROM sensor_readings WHERE zone = 'next'")
    assert cursor.fetchone() == (1,)
    open_transactions = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
    await wait_for_async(lambda: not one(cursor, open_transactions), "the end of the transactions")
