"""Pools: their size, their error when they are exhausted, and the recovery after a restart."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from occupancy_db import connection
from occupancy_db.errors import ExitCode, explain
from occupancy_db.settings import Environment, SslMode
from tests.database.conftest import Database
from tests.waiting import LIMIT, wait_for_async

Make = Callable[..., AsyncEngine]


@pytest.fixture
async def make(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Create an engine with a profile, shorter times and additional settings."""
    engines = []

    def make(environment: Environment = Environment.PRODUCTION, /, **changes: int) -> AsyncEngine:
        times = {name: changes.pop(name) for name in ("pool_timeout", "pool_recycle") if name in changes}
        profile = dict(connection._PROFILES[environment]) | times
        monkeypatch.setitem(connection._PROFILES, environment, profile)
        settings = database.settings().model_copy(
            update={"environment": environment, "postgres_sslmode": SslMode.DISABLE, **changes}
        )
        engines.append(connection.create_engine(settings, application_name="pool"))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.dispose()


async def pid(engine: AsyncEngine) -> int:
    async with engine.connect() as session:
        return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)


async def exhaust(engine: AsyncEngine, most: int) -> str:
    """Open connections until one is refused, and return the error."""
    async with AsyncExitStack() as stack:
        for _ in range(most):
            await stack.enter_async_context(engine.connect())
        with pytest.raises(exc.TimeoutError) as refused:
            await stack.enter_async_context(engine.connect())
    return str(refused.value)


@pytest.mark.parametrize(
    ("environment", "sizes", "most"),
    [
        (Environment.DEVELOPMENT, {}, 15),
        (Environment.PRODUCTION, {}, 5),
        (Environment.PRODUCTION, {"postgres_pool_size": 2, "postgres_max_overflow": 1}, 3),
        (Environment.DEVELOPMENT, {"postgres_pool_size": 1, "postgres_max_overflow": 0}, 1),
    ],
)
async def test_a_pool_has_its_size_and_reports_when_it_is_exhausted(
    make: Make, environment: Environment, sizes: dict[str, int], most: int
) -> None:
    engine = make(environment, pool_timeout=0, **sizes)
    said = await exhaust(engine, most)
    assert "QueuePool limit of size" in said
    assert "connection timed out" in said
    assert await pid(engine)  # returned connections are used again


async def test_waiting_for_a_connection_ends_after_the_ten_seconds_of_the_profile(make: Make) -> None:
    engine = make(postgres_pool_size=1)
    start = time.monotonic()
    assert "timeout 10.00" in await exhaust(engine, 1)
    assert time.monotonic() - start > 9.9


async def test_old_connections_are_recycled_and_young_ones_are_not(make: Make) -> None:
    young = make(pool_recycle=3600)
    assert await pid(young) == await pid(young)
    old = make(pool_recycle=1)
    first = await pid(old)
    start = time.monotonic()
    while await pid(old) == first:
        assert time.monotonic() - start < LIMIT, "the connection was not replaced"
        await asyncio.sleep(0.1)
    # SQLAlchemy compares with the time at which the connection was made, which is before `start`.
    assert time.monotonic() - start > 0.5


async def test_a_dead_connection_is_replaced_without_an_error(make: Make, database: Database) -> None:
    engine = make()
    first = await pid(engine)
    database.cluster.execute(f"SELECT pg_terminate_backend({first}, 5000)")
    assert await pid(engine) != first


async def test_a_restart_under_load_fails_only_the_running_statements(
    make: Make, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RESTART_PATIENCE", LIMIT)  # a busy machine restarts the server slowly
    engine = make()
    workers, ended = 8, asyncio.Event()  # more than the pool has, so some wait in it
    failures: list[list[Exception]] = [[] for _ in range(workers)]
    successes = [0] * workers

    async def work(number: int) -> None:
        while not ended.is_set():
            try:
                async with engine.connect() as session:
                    await session.execute(text("SELECT pg_sleep(0.02)"))
                successes[number] += 1
            except exc.DBAPIError as error:
                failures[number].append(error)

    tasks = [asyncio.create_task(work(number)) for number in range(workers)]
    await wait_for_async(lambda: min(successes) > 0, "a success of each worker", explain=lambda: failures)
    await asyncio.to_thread(database.cluster.restart, pause=1)
    await asyncio.to_thread(database.cluster.wait)
    before = list(successes)
    await wait_for_async(
        lambda: all(now > then + 5 for now, then in zip(successes, before, strict=True)),
        "further successes of each worker",
        explain=lambda: failures,
    )
    ended.set()
    await asyncio.gather(*tasks)

    assert [failed for failed in failures if len(failed) > 1] == []  # at most the running statement
    lost = [error for failed in failures for error in failed]
    assert 1 <= len(lost) <= 5
    for error in lost:  # asyncpg has several messages for this
        known = explain(error)
        assert known is not None, repr(error)
        assert known.code is ExitCode.UNREACHABLE, repr(error)


async def test_a_server_that_does_not_return_is_reported_in_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RESTART_PATIENCE", 0.5)
    engine = make(postgres_port=1)
    start = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        await pid(engine)
    assert time.monotonic() - start >= 0.5
