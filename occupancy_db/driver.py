"""Connections of asyncpg itself, for commands that only read.

Importing SQLAlchemy takes longer than such a command needs to connect and query.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from occupancy_db.errors import explain_connection
from occupancy_db.settings import Settings
from occupancy_db.tls import ssl_argument

CONNECT_TIMEOUT: Final = 10
"""Seconds until a server that does not answer counts as unreachable."""

_CLOSE_TIMEOUT: Final = 2

SESSION_SETTINGS: Final[Mapping[str, str]] = {
    # A statement that waits for a strong lock makes every later statement on the table wait: give up early.
    "lock_timeout": "5s",
    # Limits that are set for the role are meant for the application.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "timezone": "UTC",
}
"""Configuration parameters of sessions that run migrations and maintenance."""

LOCK_WAIT: Final = 60.0
"""Default number of seconds to wait for the lock of another session."""


def connect_args(
    settings: Settings, application_name: str, server_settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The arguments of ``asyncpg.connect`` besides the address, the user and the password.

    Args:
        settings: They select the TLS mode.
        application_name: The name of the session in ``pg_stat_activity`` and in the server's log.
        server_settings: Configuration parameters of the session.

    Raises:
        DatabaseError: the root certificate cannot be read.
    """
    return {
        "ssl": ssl_argument(settings),
        "timeout": CONNECT_TIMEOUT,
        "server_settings": {"application_name": application_name, **(server_settings or {})},
    }


@asynccontextmanager
async def connect_driver(
    settings: Settings, application_name: str, server_settings: Mapping[str, str] | None = None
) -> AsyncIterator[Any]:
    """Open one ``asyncpg.Connection``; each statement is a separate transaction.

    Args:
        settings: The database.
        application_name: The name of the session.
        server_settings: Configuration parameters of the session; they override those of the role.

    Raises:
        DatabaseError: no connection.
    """
    password = settings.postgres_password
    arguments = connect_args(settings, application_name, server_settings)
    try:
        connection = await asyncpg.connect(
            host=settings.postgres_host,
            port=settings.postgres_port,
            user=settings.postgres_user,
            password=password.get_secret_value() if password else None,
            database=settings.database,
            **arguments,
        )
    except Exception as error:
        raise explain_connection(error, settings) from error
    try:
        yield connection
    except BaseException:
        connection.terminate()
        raise
    await connection.close(timeout=_CLOSE_TIMEOUT)
