"""Engines, sessions and connections of the application and of the tools."""

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import URL, Executable, NullPool, Result, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from occupancy_db.driver import CONNECT_TIMEOUT as CONNECT_TIMEOUT
from occupancy_db.driver import connect_args
from occupancy_db.errors import explain, explain_connection, keep_explanation
from occupancy_db.pool import pool
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.settings import Environment, Settings

T = TypeVar("T")

RESTART_PATIENCE = 10
"""Seconds for which a connection in production is retried while the server is stopped or starting."""
_RESTART_PAUSE = 0.1

_TOOLS = "tools"
# A tool reports its own error. The pool would log another one, with a traceback, if the task is cancelled
# while it closes the connection.
logging.getLogger(f"sqlalchemy.pool.impl.NullPool.{_TOOLS}").setLevel(logging.CRITICAL)

# Errors that a retry does not resolve; TimeoutError is raised after CONNECT_TIMEOUT.
_PERMANENT = (ssl.SSLError, socket.gaierror, PermissionError, TimeoutError)

# Answers of a server that is stopping or starting.
_RESTARTING = (
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

# The sizes of the pools are calculated: see occupancy_db.pool.
_PROFILES: Mapping[Environment, Mapping[str, Any]] = {
    Environment.DEVELOPMENT: {"echo": True, "pool_pre_ping": True},
    Environment.TESTING: {"poolclass": NullPool},
    # A wait of 10 s for a connection of the pool means that the server is overloaded.
    Environment.PRODUCTION: {"pool_timeout": 10, "pool_recycle": 3600, "pool_pre_ping": True},
}


def create_engine(settings: Settings, *, application_name: str = "occupancy") -> AsyncEngine:
    """Create an engine with the connection profile of ``settings.environment``; the caller disposes of it.

    An exception of a failed connection has a note with the reason and what to do.

    Args:
        settings: The database.
        application_name: The name of the sessions in ``pg_stat_activity`` and in the server's log.

    Raises:
        DatabaseError: the root certificate cannot be read.
    """
    profile = dict(_PROFILES[settings.environment])
    if "poolclass" not in profile:
        sizes = pool(settings.environment)
        size, overflow = settings.postgres_pool_size, settings.postgres_max_overflow
        profile["pool_size"] = sizes.size if size is None else size
        profile["max_overflow"] = sizes.overflow if overflow is None else overflow
    arguments = connect_args(settings, application_name)
    arguments["async_creator_fn"] = partial(_connect, settings)
    return create_async_engine(_url(settings), connect_args=arguments, **profile)


async def _connect(settings: Settings, *args: Any, **kwargs: Any) -> Any:
    """``asyncpg.connect``, with the reason of a failure in a note of the exception."""
    patient = settings.environment is Environment.PRODUCTION
    try:
        return await (_connect_patiently if patient else asyncpg.connect)(*args, **kwargs)
    except Exception as error:
        keep_explanation(error, explain_connection(error, settings))
        raise


async def _connect_patiently(*args: Any, **kwargs: Any) -> Any:
    """``asyncpg.connect``, retried while the server restarts."""
    deadline = asyncio.get_running_loop().time() + RESTART_PATIENCE
    while True:
        try:
            return await asyncpg.connect(*args, **kwargs)
        except (OSError, *_RESTARTING) as error:
            if isinstance(error, _PERMANENT) or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_RESTART_PAUSE)


@asynccontextmanager
async def connect(
    settings: Settings,
    application_name: str,
    *,
    database: str | None = None,
    server_settings: Mapping[str, str] | None = None,
    autocommit: bool = False,
    patience: float = 0,
) -> AsyncIterator[AsyncConnection]:
    """Open one connection for a tool: without a pool, and without a log of the queries.

    Args:
        settings: The database.
        application_name: The name of the session.
        database: Another database of the same server.
        server_settings: Configuration parameters of the session; they override those of the role.
        autocommit: Whether each statement is a separate transaction.
        patience: Seconds to retry while the connection limit of the user or of the server is reached.

    Raises:
        DatabaseError: no connection.
    """
    engine = create_async_engine(
        _url(settings, database),
        connect_args=connect_args(settings, application_name, server_settings),
        poolclass=NullPool,
        pool_logging_name=_TOOLS,
    )
    if autocommit:
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def open_connection() -> AsyncConnection:
        return await engine.connect()

    try:
        connection = await retry(
            open_connection,
            catch=asyncpg.TooManyConnectionsError,
            deadline=patience,
            pause=_RESTART_PAUSE,
        )
    except RetryTimeoutError as timeout:
        raise explain_connection(timeout.failure.error, settings) from timeout.failure.error
    except Exception as error:
        raise explain_connection(error, settings) from error
    try:
        yield connection
    except BaseException:
        with suppress(DBAPIError):  # the first exception is the one to report
            await connection.close()
        raise
    else:
        await connection.close()


@asynccontextmanager
async def driver_of(connection: AsyncConnection) -> AsyncIterator[Any]:
    """The ``asyncpg.Connection`` of a connection, which is not used again after it has failed.

    SQLAlchemy does not see the errors of the driver's own functions.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        yield driver
    except BaseException as error:
        # A statement that was cancelled may still run.
        if (
            driver.is_closed()
            or not isinstance(error, Exception)
            or isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)
        ):
            await connection.invalidate()
        raise


@asynccontextmanager
async def driver_transaction(engine: AsyncEngine) -> AsyncIterator[Any]:
    """An ``asyncpg.Connection`` from the pool, in a transaction of its own.

    A connection whose BEGIN failed or was cancelled does not return to the pool: asyncpg would take the next
    transaction for a savepoint of that one, and nothing would commit it.
    """
    async with engine.connect() as connection, driver_of(connection) as driver:
        begun = False
        try:
            async with driver.transaction():
                begun = True
                yield driver
        except BaseException:
            if not begun:
                await connection.invalidate()
            raise


class Session(AsyncSession):
    """A session that also accepts SQL as a plain string, as in the operator's manual."""

    async def execute(self, statement: Executable | str, *args: Any, **kwargs: Any) -> Result[Any]:
        """As ``AsyncSession.execute``; a string is converted by ``text()``."""
        return await super().execute(
            text(statement) if isinstance(statement, str) else statement, *args, **kwargs
        )


@asynccontextmanager
async def get_async_session() -> AsyncIterator[AsyncSession]:
    """Open a session on the engine of the running event loop; it is rolled back unless the caller commits.

    Objects are not expired by a commit: loading an expired attribute needs I/O that cannot be awaited.

    Raises:
        pydantic.ValidationError: a setting is invalid.
    """
    async with Session(await get_engine(), expire_on_commit=False) as session:
        yield session


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a script as ``asyncio.run`` does, and end the script on a known failure.

    Such a failure, of the settings, the connection or a statement, is one line on standard error and an exit
    code as of ``occupancy-db``. Any other exception is raised.

    Args:
        main: The coroutine.

    Returns:
        What the coroutine returned.

    Raises:
        SystemExit: a known failure.
    """
    try:
        return asyncio.run(main)
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        print(known, file=sys.stderr)
        raise SystemExit(known.code) from None


async def dispose_engine() -> None:
    """Close the pooled connections of the running event loop; the next session opens new ones."""
    keeper = _keepers.pop(asyncio.get_running_loop(), None)
    if keeper is not None:
        await keeper.aclose()


# An asyncpg connection belongs to an event loop, so each loop has its own engine. A suspended generator holds
# the engine: asyncio.run() closes open generators before it closes the loop, which disposes of the pool even
# if dispose_engine() is not called.
_keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[AsyncEngine]] = WeakKeyDictionary()
_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = WeakKeyDictionary()


async def get_engine() -> AsyncEngine:
    """The application's pooled engine of the running event loop; it is disposed of with the loop.

    Raises:
        pydantic.ValidationError: a setting is invalid.
        DatabaseError: the root certificate cannot be read.
    """
    loop = asyncio.get_running_loop()
    if loop not in _keepers:
        keeper = _keep_engine(create_engine(Settings()))
        _keepers[loop] = keeper
        _engines[loop] = await anext(keeper)
    return _engines[loop]


async def _keep_engine(engine: AsyncEngine) -> AsyncGenerator[AsyncEngine]:
    try:
        yield engine
    finally:
        await engine.dispose()


def _url(settings: Settings, database: str | None = None) -> URL:
    password = settings.postgres_password
    return URL.create(
        "postgresql+asyncpg",
        username=settings.postgres_user,
        password=password.get_secret_value() if password else None,
        host=settings.postgres_host,
        port=settings.postgres_port,
        database=database or settings.database,
    )
