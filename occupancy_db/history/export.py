"""Exports: the rows of a selection as files in a ZIP archive."""

import re
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, BinaryIO

from occupancy_db.driver import connect_driver
from occupancy_db.history.selection import ROWS, Selection, require_room
from occupancy_db.settings import Settings

# The first is what `import` reads.
_COLUMNS = {"sensor_readings": "timestamp, room, zone, state, source_entity, confidence"}
_SETTINGS = {"timezone": "UTC", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_CSV = {"format": "csv", "header": True}
_PARAMETER = re.compile(r"(?<!:):([a-z]+)")


class ExportFormat(StrEnum):
    """What the files of an export are."""

    CSV = "csv"
    PARQUET = "parquet"


async def export(
    settings: Settings, selection: Selection, file: BinaryIO, form: ExportFormat = ExportFormat.CSV
) -> dict[str, int]:
    """Write the rows of a selection as files, one for each table, of one moment.

    Args:
        settings: The database, and a user who may read the tables.
        selection: What is written.
        file: Takes the archive; it need not be seekable.
        form: What the files are.

    Returns:
        The number of rows by table. Tables whose rows cannot be told apart by the selection are left out.

    Raises:
        DatabaseError: there is no such room, or no connection, or DuckDB cannot write.
        asyncpg.PostgresError: the server refused, as for a missing privilege.
    """
    await require_room(settings, selection)
    rows: dict[str, int] = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        async with _snapshot(settings) as connection:
            for table in ROWS:
                if (condition := selection.condition(table)) is None:
                    continue
                statement, values = _numbered(
                    f"SELECT {_COLUMNS.get(table, '*')} FROM {table} WHERE {condition} "  # noqa: S608  # constants
                    f"ORDER BY {ROWS[table]}",
                    selection.parameters,
                )
                name = f"{table.removeprefix('hourly.')}.{form}"
                with archive.open(name, "w", force_zip64=True) as member:
                    rows[table] = await _write(connection, statement, values, member, form)
    return rows


async def _write(connection: Any, statement: str, values: list[Any], member: Any, form: ExportFormat) -> int:
    if form is ExportFormat.PARQUET:
        # DuckDB takes longer to load than all else.
        from occupancy_db.history.duck import copy_as_parquet

        return _number(await copy_as_parquet(connection, statement, values, member, _CSV))

    async def write(data: bytes) -> None:
        member.write(data)

    return _number(await connection.copy_from_query(statement, *values, output=write, **_CSV))


def _number(status: str) -> int:
    """How many rows a statement was about, from the server's word on it: ``COPY 3``."""
    return int(status.rsplit(" ", 1)[1])


@asynccontextmanager
async def _snapshot(settings: Settings) -> AsyncIterator[Any]:
    async with (
        connect_driver(settings, "occupancy-db export", _SETTINGS) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


def _numbered(statement: str, parameters: dict[str, Any]) -> tuple[str, list[Any]]:
    """Replace the named parameters of a statement by numbers, as the driver wants them."""
    names = list(parameters)
    return (
        _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement),
        [parameters[name] for name in names],
    )
