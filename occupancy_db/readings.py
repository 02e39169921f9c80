"""Live ingest: batches of readings from the application, copied to the partitions of their months."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from occupancy_db.connection import driver_of, get_engine
from occupancy_db.rooms import load_rooms
from occupancy_db.sensors import Sensors, load_sensors
from occupancy_db.storage import Batch, OvertakenError, store, store_in_savepoint
from occupancy_db.validation import (
    InvalidReadings,
    Known,
    Reading,
    ReadingLike,
    SensorsNeededError,
    entities_alone,
    grouped,
)

__all__ = ["InvalidReadings", "Reading", "ReadingLike", "ingest"]

_known: WeakKeyDictionary[Engine, Known] = WeakKeyDictionary()


async def ingest(
    readings: Iterable[Reading | ReadingLike | Mapping[str, Any]], *, session: AsyncSession | None = None
) -> int:
    """Write the readings that are not stored yet: all of them or none.

    A reading is stored once, however often it is sent: after a timeout, a cancellation or a restart the
    caller sends the same readings again. Two readings are the same if all of their values except the
    confidence are equal.

    Without a session, the function uses a connection from the pool of the running event loop, and a
    transaction of its own. With one, the readings become part of the caller's transaction, which should end
    soon: another transaction that writes at the same times waits for it. The function reads the rooms of the
    database once, and again before it refuses a reading. A reading without room and zone is stored where its
    sensor was at that time, as ``occupancy-db sensors`` shows it. The states ``"unavailable"`` and
    ``"unknown"`` are gaps: they end a state, and are stored in the table ``sensor_gaps``.

    Args:
        readings: ``Reading`` objects, other objects with the same attributes, or mappings with these names
            as keys. Values may be scalars of numpy and pandas.
        session: A session in a transaction of isolation level READ COMMITTED, the default. A failure leaves
            its transaction as it was before the call.

    Returns:
        The number of readings and gaps written; those that were stored already do not count.

    Raises:
        InvalidReadings: some readings are invalid; nothing was written.
        DatabaseError: a month has no partition, or the session's transaction is unsuitable.
        sqlalchemy.exc.DBAPIError: no connection.
        asyncpg.PostgresError: the server refused the rows, or a lock was not obtained in time.
        asyncpg.InterfaceError, asyncpg.InternalClientError: the connection was lost. The readings may be
            written: send them again.
    """
    batch = readings if isinstance(readings, list | tuple) else list(readings)
    if not batch:
        return 0
    now = datetime.now(UTC)
    place = await session.connection() if session else await get_engine()
    valid = await _validate(place, batch, now, _known.get(_engine(place)))
    try:
        return await _store(place, valid)
    except (asyncpg.CheckViolationError, asyncpg.InvalidTextRepresentationError):
        # A room may have been retired or renamed since the rooms were read.
        await _validate(place, batch, now, None)
        raise


def _engine(place: AsyncConnection | AsyncEngine) -> Engine:
    return (place.engine if isinstance(place, AsyncConnection) else place).sync_engine


async def _validate(
    place: AsyncConnection | AsyncEngine, batch: Sequence[Any], now: datetime, known: Known | None
) -> Batch:
    """Validate readings and group them, with what the database knows now before one is refused."""
    sensors = None
    while True:
        fresh = known is None
        if known is None:
            known = await _learn(place)
        try:
            return grouped(batch, now, known, sensors)
        except SensorsNeededError:
            # Read for each batch: a sensor that is moved takes its next reading along.
            sensors = await _sensors(place, batch)
        except InvalidReadings:  # a room may have been added since the rooms were read
            if fresh:
                raise
            known = None


async def _sensors(place: AsyncConnection | AsyncEngine, batch: Sequence[Any]) -> Sensors:
    """The sensors of the readings that name their entity alone."""
    if isinstance(place, AsyncEngine):
        async with place.connect() as connection:
            return await _sensors(connection, batch)
    async with driver_of(place) as driver:
        return await load_sensors(driver, entities_alone(batch))


async def _learn(place: AsyncConnection | AsyncEngine) -> Known:
    """Read the rooms of the database, and keep them for the batches that follow."""
    if isinstance(place, AsyncEngine):
        async with place.connect() as connection:
            return await _learn(connection)
    async with driver_of(place) as driver:
        rooms = await load_rooms(driver)
    _known[_engine(place)] = known = Known(rooms)
    return known


async def _store(place: AsyncConnection | AsyncEngine, batch: Batch) -> int:
    """Store readings in a transaction of the engine, or in a savepoint of the connection's transaction."""
    while True:  # each attempt finds more readings stored by others
        try:
            if isinstance(place, AsyncEngine):
                return await store(place, batch)
            return await store_in_savepoint(place, batch)
        except OvertakenError:
            continue
