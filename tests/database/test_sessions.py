"""Engines and sessions as the application uses them."""

import asyncio
import logging
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, insert, select, text

from occupancy_db.connection import connect, create_engine, dispose_engine, get_async_session
from occupancy_db.models import RoomTransition, RoomType
from occupancy_db.settings import Environment, SslMode
from tests.database.conftest import Database


@pytest.fixture
def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """This process, with the environment of an application of the database."""
    for name, value in database.environment().items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    return database


ONE = insert(RoomTransition).values(timestamp=func.now(), to_room=RoomType.OFFICE)
COUNT = select(func.count()).select_from(RoomTransition)


@pytest.mark.usefixtures("application")
async def test_a_session_is_rolled_back_unless_committed() -> None:
    async with get_async_session() as session:
        await session.execute(ONE)
    with pytest.raises(ZeroDivisionError):
        async with get_async_session() as session:
            await session.execute(ONE)
            raise ZeroDivisionError
    async with get_async_session() as session:
        assert await session.scalar(COUNT) == 0
        await session.execute(ONE)
        await session.commit()
    async with get_async_session() as session:
        assert await session.scalar(COUNT) == 1
    await dispose_engine()


@pytest.mark.usefixtures("application")
async def test_objects_stay_readable_after_the_commit() -> None:
    async with get_async_session() as session:
        transition = RoomTransition(
            timestamp=await session.scalar(select(func.now())), to_room=RoomType.OFFICE
        )
        session.add(transition)
        await session.commit()
    assert transition.to_room is RoomType.OFFICE
    assert transition.id == 1


def test_each_event_loop_has_its_own_connections_and_closes_them(application: Database) -> None:
    async def ask() -> None:
        async with get_async_session() as session:
            assert await session.scalar(COUNT) == 0

    for _ in range(3):
        asyncio.run(ask())
    with application.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'occupancy'")
        assert cursor.fetchone() == (0,)
    connection.close()


@pytest.mark.usefixtures("application")
async def test_sessions_have_an_application_name() -> None:
    async with get_async_session() as session:
        assert await session.scalar(text("SHOW application_name")) == "occupancy"


@pytest.mark.parametrize(("environment", "kept"), [("development", 1), ("testing", 0), ("production", 1)])
async def test_the_pool_depends_on_the_profile(application: Database, environment: str, kept: int) -> None:
    settings = application.settings().model_copy(
        update={
            "environment": Environment(environment),
            "postgres_test_db": application.name,
            "postgres_sslmode": SslMode.DISABLE,
        }
    )
    engine = create_engine(settings, application_name="profile")
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    with application.connect() as watcher, watcher.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'profile'")
        assert cursor.fetchone() == (kept,)
    watcher.close()
    await engine.dispose()


async def test_sessions_work_after_their_connections_were_terminated(application: Database) -> None:
    settings = application.settings().model_copy(
        update={"environment": Environment.PRODUCTION, "postgres_sslmode": SslMode.DISABLE}
    )
    engine = create_engine(settings, application_name="long-lived")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    application.cluster.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'long-lived'"
    )
    async with engine.connect() as connection:  # the ping finds the dead connection and replaces it
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_a_cancelled_end_of_a_tools_session_is_not_logged(
    application: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task group cancels the tasks that are closing their sessions after one has failed."""
    close = asyncpg.Connection.close

    async def cancelled(connection: asyncpg.Connection, **options: Any) -> None:
        (task := asyncio.current_task()) and task.cancel()
        await close(connection, **options)

    monkeypatch.setattr(asyncpg.Connection, "close", cancelled)
    with pytest.raises(asyncio.CancelledError):
        async with connect(application.settings(), "tool"):
            raise ZeroDivisionError
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
