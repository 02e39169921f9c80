"""Readings that are sent again after cancellations, timeouts and restarts are stored exactly once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from occupancy_db.connection import dispose_engine, get_async_session
from occupancy_db.models import RoomTransition
from occupancy_db.readings import Reading, ingest
from tests.database.conftest import Database
from tests.database.conftest import database as database
from tests.database.users import grant, password

NOW = datetime.now(UTC).replace(microsecond=0)
TASKS = 4
READINGS = 150
BATCHES = 24

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    DBAPIError,
    PendingRollbackError,
    OSError,
)
"""What a sender sees of a server that stops, and of a session that is ended."""


@dataclass
class Sent:
    """What the senders of one case have done.

    Attributes:
        written: Sum of the results of ``ingest``.
        attempts: Number of calls.
        interrupted: Calls whose result the sender did not get.
    """

    written: int = 0
    attempts: int = 0
    interrupted: int = 0
    failures: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
async def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """This process, as the application in production, on a server that keeps what it has confirmed."""
    grant(database.cluster, database.name)
    database.cluster.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = on")
    environment = database.environment(
        POSTGRES_USER="occupancy_app", POSTGRES_PASSWORD=password("occupancy_app")
    )
    for name, value in environment.items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("POSTGRES_SSLMODE", "disable")
    yield database
    await dispose_engine()


def readings() -> list[Reading]:
    """Readings of two months, with equal times and neighbours of a microsecond."""
    times = [NOW - timedelta(days=day, microseconds=step) for day in (0, 0, 1, 32) for step in range(40)]
    return [
        Reading(moment, "office", f"zone {number % 3}", number % 2 == 0, "binary_sensor.desk")
        for number, moment in enumerate(times)
    ][:READINGS]


async def send(batch: list[Reading], with_session: bool) -> int:
    """Send a batch as applications do: by itself, or in the transaction of a transition."""
    if not with_session:
        return await ingest(batch)
    async with get_async_session() as session:
        written = await ingest(batch, session=session)
        session.add(RoomTransition(timestamp=NOW, to_room="office", confidence=1.0))
        await session.commit()
        return written


async def send_until_confirmed(batch: list[Reading], chance: random.Random, sent: Sent) -> None:
    """Send a batch until a call returns. Some calls are cancelled, or run into a time limit."""
    patience = 0.002
    while True:
        sent.attempts += 1
        limit = chance.uniform(0, patience) if chance.random() < 0.7 else None
        patience *= 1.5
        try:
            sent.written += await asyncio.wait_for(send(batch, chance.random() < 0.3), limit)
            return
        except (TimeoutError, *FAILURES) as error:
            sent.interrupted += 1
            sent.failures.append(type(error).__name__)


def stored(database: Database) -> list[tuple[datetime, str, bool]]:
    with database.connect().cursor() as cursor:
        cursor.execute("SELECT timestamp, zone, state FROM sensor_readings ORDER BY 1, 2, 3")
        return cursor.fetchall()


async def nothing(database: Database) -> None:
    """Leave the server alone: calls are cancelled, or run into their time limit."""


async def sessions_end(database: Database) -> None:
    for _ in range(10):
        database.cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'occupancy_app'"
        )
        await asyncio.sleep(0.02)  # the senders go on meanwhile


async def server_restarts(database: Database) -> None:
    await asyncio.to_thread(database.cluster.restart)
    await asyncio.to_thread(database.cluster.wait)


async def server_is_killed(database: Database) -> None:
    for _ in range(2):
        await asyncio.to_thread(database.cluster.crash)
        await asyncio.to_thread(database.cluster.run)


DISTURBANCES = (nothing, sessions_end, server_restarts, server_is_killed)
SEEDS = range(12)


@pytest.mark.retries
@pytest.mark.parametrize("disturb", DISTURBANCES)
@pytest.mark.parametrize("seed", SEEDS)
async def test_each_reading_is_stored_exactly_once(
    database: Database,
    disturb: Callable[[Database], Awaitable[None]],
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(f"{seed} {disturb.__name__}")
    all_readings, sent = readings(), Sent()
    # Each reading is in some batches, and some batches have a reading twice.
    batches = [chance.choices(all_readings, k=chance.choice((1, 3, 40, 90))) for _ in range(BATCHES)]
    batches.append(list(all_readings))
    waiting = iter(batches)

    async def sender() -> None:
        for batch in waiting:
            await send_until_confirmed(batch, chance, sent)

    senders = [asyncio.create_task(sender()) for _ in range(TASKS)]
    await disturb(database)
    await asyncio.gather(*senders)

    expected = sorted((one.timestamp, one.zone, one.state) for one in all_readings)
    found = stored(database)
    record_property("retries", sent.interrupted)
    record_property("duplicates", len(found) - len(set(found)))
    record_property("losses", len(set(expected) - set(found)))
    wanted, present = Counter[object](expected), Counter[object](found)
    assert not wanted - present, f"lost; {sent}"
    assert not present - wanted, f"stored twice; {sent}"
    assert sent.written <= len(expected)
    assert sent.interrupted, "no call was interrupted"
