"""The content of a database as row counts and fingerprints, to compare a copy with the original."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by, task_group
from occupancy_db.settings import Settings

SNAPSHOT_SETTINGS = {
    "timezone": "UTC",
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "lock_timeout": "1min",
    "idle_in_transaction_session_timeout": "0",
    # Two sessions read at the same time; parallel workers would take the cores from clients.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_READERS = 2


class Table(BaseModel):
    """The number of rows of a table, and the sum of their 64-bit hashes in any order of the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    hashes: str


class Contents(BaseModel):
    """The content of a database, to compare it with its restored copy.

    Attributes:
        revision: Alembic's revision; None if there is none.
        tables: Rows by the qualified name of the table; each partition is a table.
        partitions: Bounds by the qualified name of the partition.
        sequences: Last values by the qualified name of the sequence; those of a copy may be higher.
        large_objects: Number of large objects, and the hash of their contents; None in sets of format 1.
        objects: In sets of format 1: hashes of definitions, which are not compared any more. The definitions
            in the dump are compared instead.
        extensions: Versions by the name of the extension.
        encoding: Encoding of the database.
        collate: LC_COLLATE of the database.
        ctype: LC_CTYPE of the database.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str | None
    tables: dict[str, Table]
    partitions: dict[str, str]
    sequences: dict[str, int]
    large_objects: Table | None = None
    objects: dict[str, str] | None = None
    extensions: dict[str, str]
    encoding: str
    collate: str
    ctype: str

    @property
    def rows(self) -> int:
        """Number of rows in all tables."""
        return sum(table.rows for table in self.tables.values())

    def differences(self, found: "Contents") -> list[str]:
        """Return the differences of a restored copy, a line each; an empty list if there are none.

        Args:
            found: The content of the copy.
        """
        lines = []
        if found.revision != self.revision:
            lines.append(f"revision {found.revision} instead of {self.revision}")
        for name in sorted(self.tables.keys() | found.tables.keys()):
            saved, restored = self.tables.get(name), found.tables.get(name)
            if restored is None or saved is None:
                lines.append(f"table {name} is {'missing' if saved else 'new'}")
            elif restored.rows != saved.rows:
                lines.append(f"table {name} has {restored.rows:,} rows instead of {saved.rows:,}")
            elif restored != saved:
                lines.append(f"table {name} has other rows")
        lines += [
            f"partition {name} is {found.partitions.get(name)} instead of {self.partitions.get(name)}"
            for name in sorted(self.partitions.keys() | found.partitions.keys())
            if self.partitions.get(name) != found.partitions.get(name)
        ]
        lines += [
            f"sequence {name} is at {found.sequences.get(name)}, before {value}"
            for name, value in sorted(self.sequences.items())
            if found.sequences.get(name, -1) < value
        ]
        if self.large_objects and found.large_objects != self.large_objects:
            lines.append(f"large objects: {found.large_objects} instead of {self.large_objects}")
        if found.extensions.keys() != self.extensions.keys():
            lines.append(f"extensions {sorted(found.extensions)} instead of {sorted(self.extensions)}")
        return lines


# For each table the statement that reads its fingerprint, the largest table first. Hashing a value is three
# times as fast as hashing its text, but is correct only for types whose hash depends on the value alone: that
# of an enum depends on the oid.
_TABLES = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
           format(
               'SELECT count(*), coalesce(sum(hash_record_extended(ROW(%s), 0)), 0)::text FROM ONLY %I.%I',
               (
                   SELECT string_agg(
                       quote_ident(a.attname) || CASE
                           WHEN a.atttypid = ANY (ARRAY[
                               'bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'text',
                               'varchar', 'bytea', 'date', 'time', 'timestamp', 'timestamptz', 'interval',
                               'uuid', 'jsonb'
                           ]::regtype[]) THEN ''
                           ELSE '::text'
                       END,
                       ', ' ORDER BY a.attnum
                   )
                   FROM pg_attribute AS a
                   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               ),
               n.nspname, c.relname
           ) AS statement
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY pg_relation_size(c.oid) DESC, name
""")

_NAMES = text("""
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 1
""")

_REVISION = text("SELECT string_agg(version_num, ',' ORDER BY version_num) FROM public.alembic_version")

_PARTITIONS = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
           format('of %s %s', i.inhparent::regclass, pg_get_expr(c.relpartbound, c.oid)) AS bounds
    FROM pg_class AS c
    JOIN pg_inherits AS i ON i.inhrelid = c.oid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
""")

_SEQUENCES = text("""
    SELECT format('%I.%I', schemaname, sequencename) AS name, coalesce(last_value, 0) AS value
    FROM pg_sequences
""")

_EXTENSIONS = text("SELECT extname, extversion FROM pg_extension")

_DATABASE = text("""
    SELECT pg_encoding_to_char(encoding) AS encoding, datcollate AS collate, datctype AS ctype
    FROM pg_database WHERE datname = current_database()
""")

# A large object may be larger than a value, so it is read in pieces.
_LARGE_OBJECTS = text("""
    WITH RECURSIVE piece AS (
        SELECT oid, CAST(0 AS bigint) AS start, lo_get(oid, 0, 8388608) AS data FROM pg_largeobject_metadata
        UNION ALL
        SELECT oid, start + 8388608, lo_get(oid, start + 8388608, 8388608)
        FROM piece WHERE length(data) = 8388608
    )
    SELECT count(*) FILTER (WHERE start = 0) AS rows,
           coalesce(sum(hash_record_extended(ROW(oid, start, data), 0)), 0)::text AS hashes
    FROM piece
""")


@asynccontextmanager
async def snapshot(settings: Settings) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """Export a snapshot; yields its identifier, and the values of the sequences.

    Sequences do not obey snapshots: the values that are dumped later are at least the values here.

    The tables are locked before the snapshot is taken, so that no session can rewrite or drop one meanwhile.
    A rewrite that is committed after the snapshot would leave the table empty in it (PostgreSQL's manual,
    13.6 Caveats), for the dump and for the comparison.

    Args:
        settings: The database, and a user who may read all tables.

    Raises:
        DatabaseError: no connection.
        sqlalchemy.exc.DBAPIError: a lock was not obtained, or a privilege is missing.
    """
    async with _session(settings) as connection:
        names = (await connection.scalars(_NAMES)).all()
        await connection.rollback()
        if names:
            tables = ", ".join(f"ONLY {name}" for name in names)
            await connection.exec_driver_sql(f"LOCK TABLE {tables} IN ACCESS SHARE MODE")
        name = str(await connection.scalar(text("SELECT pg_export_snapshot()")))
        yield name, await _sequences(connection)


async def read(
    settings: Settings, shared: str | None = None, sequences: dict[str, int] | None = None
) -> Contents:
    """Count and hash all rows of a database.

    Args:
        settings: The database.
        shared: Identifier of the snapshot to read; a new snapshot if None.
        sequences: Values of the sequences; their current values if None.

    Raises:
        DatabaseError: no connection, or the session that holds the shared snapshot was lost.
        sqlalchemy.exc.DBAPIError: the server refused, as for a missing privilege, or ended the session.
    """
    async with _session(settings, shared) as connection:
        found = [(row.name, row.statement) for row in await connection.execute(_TABLES)]
        rest: dict[str, Any] = {
            "revision": await connection.scalar(_REVISION)
            if "public.alembic_version" in dict(found)
            else None,
            "partitions": {row.name: row.bounds for row in await connection.execute(_PARTITIONS)},
            "sequences": await _sequences(connection) if sequences is None else sequences,
            "large_objects": Table(**(await connection.execute(_LARGE_OBJECTS)).mappings().one()),
            "extensions": {row.extname: row.extversion for row in await connection.execute(_EXTENSIONS)},
            **(await connection.execute(_DATABASE)).mappings().one(),
        }
        if shared is None:
            shared = str(await connection.scalar(text("SELECT pg_export_snapshot()")))
        tables: dict[str, Table] = {}
        async with task_group() as group:
            for _ in range(_READERS):
                group.create_task(_read_tables(settings, shared, found, tables))
    return Contents(tables=tables, **rest)


async def _sequences(connection: AsyncConnection) -> dict[str, int]:
    return {row.name: row.value for row in await connection.execute(_SEQUENCES)}


async def _read_tables(
    settings: Settings, shared: str, waiting: list[tuple[str, str]], tables: dict[str, Table]
) -> None:
    async with _session(settings, shared) as connection:
        while waiting:
            name, statement = waiting.pop(0)
            row = (await connection.exec_driver_sql(statement)).one()
            tables[name] = Table(rows=row[0], hashes=row[1])


@asynccontextmanager
async def _session(settings: Settings, shared: str | None = None) -> AsyncIterator[AsyncConnection]:
    async with connect(settings, "occupancy-db backup", server_settings=SNAPSHOT_SETTINGS) as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        if shared:
            await _join(connection, shared)
        yield connection


async def _join(connection: AsyncConnection, shared: str) -> None:
    """Use the snapshot that another session has exported."""
    try:
        await connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{shared}'")
    except DBAPIError as error:
        if caused_by(error, asyncpg.InvalidParameterValueError, asyncpg.ObjectNotInPrerequisiteStateError):
            raise DatabaseError(
                ExitCode.UNREACHABLE,
                "the session that holds the snapshot was lost",
                "Check the server's log, then try again.",
            ) from error
        raise
