"""DuckDB, which reads and writes Parquet."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from threading import Thread
from typing import Any, BinaryIO, Final

import duckdb

from occupancy_db.errors import DatabaseError, ExitCode

# Nothing is downloaded or put on the disk, and what the container may have is not exceeded.
_SETTINGS: Final[dict[str, Any]] = {
    "threads": 1,
    "memory_limit": "200MB",
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_TYPES: Final = {
    "bool": "BOOLEAN",
    "float8": "DOUBLE",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "timestamptz": "TIMESTAMPTZ",
}


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory, which is to be closed."""
    connection = duckdb.connect(config=_SETTINGS)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


async def copy_as_parquet(
    connection: Any, statement: str, values: list[Any], target: BinaryIO, settings: Mapping[str, Any]
) -> str:
    """Write the rows of a statement as Parquet, without a file or all rows in memory.

    Args:
        connection: An ``asyncpg.Connection``.
        statement: A query.
        values: Of its parameters.
        target: Takes the Parquet.
        settings: Of the COPY that gives CSV with a header.

    Returns:
        The status of COPY.

    Raises:
        DatabaseError: DuckDB cannot write to the target.
        asyncpg.PostgresError: the server refused.
    """
    prepared = await connection.prepare(statement)
    columns = {found.name: _TYPES.get(found.type.name, "VARCHAR") for found in prepared.get_attributes()}
    source, end = os.pipe()
    converting = asyncio.get_running_loop().run_in_executor(None, _convert, columns, source, target)
    try:
        with open(end, "wb") as pipe:  # noqa: ASYNC230,PTH123  # DuckDB takes all of it

            async def write(data: bytes) -> None:
                pipe.write(data)

            done: str = await connection.copy_from_query(statement, *values, output=write, **settings)
    finally:
        await converting
    return done


def _convert(columns: dict[str, str], source: int, target: BinaryIO) -> None:
    """Let DuckDB read CSV from one pipe and write Parquet to another, which is emptied into the target."""
    parquet, end = os.pipe()
    emptying = Thread(target=_empty, args=(parquet, target))
    emptying.start()
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    try:
        with open_duckdb() as connection:
            connection.execute(f"""
                COPY (
                    SELECT * FROM read_csv(
                        '/dev/fd/{source}', auto_detect = false, header = true, delim = ',', quote = '"',
                        escape = '"', nullstr = '', allow_quoted_nulls = false, columns = {{{types}}}
                    )
                ) TO '/dev/fd/{end}' (FORMAT parquet, COMPRESSION zstd)
            """)  # noqa: S608  # numbers, and names of columns
    except duckdb.Error as error:
        raise DatabaseError(
            ExitCode.FAILED, f"cannot write Parquet: {str(error).splitlines()[0]}", "Check the target."
        ) from error
    finally:
        os.close(end)
        os.close(source)  # whoever still writes ends with an error
        emptying.join()


def _empty(pipe: int, target: BinaryIO) -> None:
    with open(pipe, "rb") as source:  # a number
        shutil.copyfileobj(source, target)
