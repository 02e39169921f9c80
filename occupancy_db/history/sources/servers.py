"""Recorders in PostgreSQL and MariaDB."""

import asyncio
from collections.abc import Coroutine, Iterator
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from occupancy_db.driver import CONNECT_TIMEOUT
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.sources.recorder import Database

_BLOCK: Final = 2000  # rows of PostgreSQL that are fetched at once
_CLOSE_TIMEOUT: Final = 2  # seconds
_COLUMNS: Final = (
    "SELECT column_name FROM information_schema.columns WHERE table_name = '{}' AND table_schema = "
)


def is_address(source: str) -> bool:
    """Whether a source is a database on a server rather than a file."""
    return "://" in source


def connect(address: str, password: str | None) -> Database:
    """Open a recorder on a server.

    Args:
        address: As Home Assistant's ``db_url``, without the password.
        password: None if the server needs none, or PostgreSQL's password file has it.

    Raises:
        DatabaseError: the address cannot be used, or there is no connection.
    """
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  # which is a number, or raises
    except ValueError as error:
        raise _usage(f"the address of a recorder is not one: {error}") from error
    if parts.password is not None:
        raise _usage("the address of a recorder has a password, which other users of this machine can see")
    kind = parts.scheme.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return Postgresql(address, password)
    if kind in ("mysql", "mariadb"):
        return Mariadb(address, password)
    raise _usage(f"{kind}:// is the address of no recorder")


def _usage(what: str) -> DatabaseError:
    hint = "Write postgresql://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE, and --password-file FILE."
    return DatabaseError(ExitCode.USAGE, what, hint)


def _unreachable(name: str, error: Exception) -> DatabaseError:
    hint = "Check the address, --password-file, and the server: its network, TLS and users."
    return DatabaseError(ExitCode.UNREACHABLE, f"cannot connect to {name}: {_said(error)}", hint)


def _broken(name: str, error: Exception) -> DatabaseError:
    return DatabaseError(
        ExitCode.FAILED, f"cannot read on in {name}: {_said(error)}", "Nothing was imported."
    )


def _said(error: Exception) -> str:
    # The errors of MariaDB are a number and a text.
    return str(error.args[-1] if error.args else "") or type(error).__name__


class Postgresql:
    """A recorder in PostgreSQL. Its driver has an event loop of its own: the one of the import is at work.

    Raises:
        DatabaseError: no connection.
    """

    kind = "PostgreSQL"
    size = 1000
    epoch = "extract(epoch FROM {})::float8"

    def __init__(self, address: str, password: str | None) -> None:
        self.name = address.partition("?")[0]
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="recorder", daemon=True)
        self._thread.start()
        self._connection: Any = None
        try:
            self._connection = self._wait(self._connect(address, password))
        except BaseException:
            self.close()
            raise

    async def _connect(self, address: str, password: str | None) -> Any:
        import asyncpg

        scheme, _, rest = address.partition("://")
        settings = {"application_name": "occupancy-db import", "timezone": "UTC", "datestyle": "ISO"}
        try:
            connection = await asyncpg.connect(
                f"{scheme.partition('+')[0]}://{rest}",
                password=password,
                timeout=CONNECT_TIMEOUT,
                server_settings=settings,
            )
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unreachable(self.name, error) from error
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        return connection

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        import asyncpg

        try:
            if self._connection is not None:
                await self._connection.close(timeout=_CLOSE_TIMEOUT)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self._connection.terminate()
        # Transports that were aborted are closed by the next steps of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def columns(self, table: str) -> set[str]:
        """See ``Database``."""
        return {name for (name,) in self.rows(f"{_COLUMNS.format(table)} ANY (current_schemas(false))")}

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """See ``Database``."""
        import asyncpg

        async def begin() -> Any:
            return await self._connection.cursor(query)

        try:
            cursor = self._wait(begin())
            while block := self._wait(cursor.fetch(_BLOCK)):
                yield from map(tuple, block)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise _broken(self.name, error) from error

    def close(self) -> None:
        """See ``Database``."""
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Mariadb:
    """A recorder in MariaDB or MySQL.

    Raises:
        DatabaseError: no connection.
    """

    kind = "MariaDB"
    size = 1000
    epoch = "timestampdiff(MICROSECOND, '1970-01-01', {}) / 1e6"

    def __init__(self, address: str, password: str | None) -> None:
        import pymysql
        from pymysql.cursors import SSCursor

        self.name = address.partition("?")[0]
        self._error = pymysql.Error
        parts = urlsplit(address)
        told = dict(parse_qsl(parts.query))
        authority = told.get("ssl_ca")
        try:
            self._connection = pymysql.connect(
                host=parts.hostname or "localhost",
                port=parts.port or 3306,
                user=unquote(parts.username or "") or None,
                password=password or "",
                database=unquote(parts.path.lstrip("/")),
                unix_socket=told.get("unix_socket"),
                charset="utf8mb4",
                connect_timeout=CONNECT_TIMEOUT,
                cursorclass=SSCursor,  # rows come as they are read
                ssl_ca=authority,
                ssl_verify_cert=True if authority else None,
                ssl_verify_identity=True if authority else None,
            )
            with self._connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        except (OSError, pymysql.Error) as error:
            raise _unreachable(self.name, error) from error

    def columns(self, table: str) -> set[str]:
        """See ``Database``."""
        return {name for (name,) in self.rows(f"{_COLUMNS.format(table)} database()")}

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """See ``Database``."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query)
                yield from cursor.fetchall_unbuffered()
        except (OSError, self._error) as error:
            raise _broken(self.name, error) from error

    def close(self) -> None:
        """See ``Database``."""
        self._connection.close()
