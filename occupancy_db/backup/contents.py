"""What a database holds, as counts and fingerprints: equal after a good restore, and after nothing else."""

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
from occupancy_db.schema.definitions import OBJECTS
from occupancy_db.settings import Settings

SESSION = {
    "timezone": "UTC",
    "search_path": "pg_catalog",  # definitions name everything with its schema
    "statement_timeout": "0",
    "lock_timeout": "1min",
    "idle_in_transaction_session_timeout": "0",
    # Two sessions read at once; more would take both cores from the ones that write.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_AT_ONCE = 2


class Table(BaseModel):
    """A table's rows: how many, and the sum of their 64-bit hashes, whatever their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    hashes: str


class Contents(BaseModel):
    """What is compared between a database and its restored copy.

    Attributes:
        revision: Alembic's, None if there is none.
        tables: By qualified name; each partition by itself.
        partitions: Their bounds, by qualified name.
        sequences: Their last values; a copy may be further on.
        objects: By kind: how many there are, and the hash of their definitions.
        extensions: Their versions by name.
        encoding: Of the database.
        collate: Its LC_COLLATE.
        ctype: Its LC_CTYPE.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str | None
    tables: dict[str, Table]
    partitions: dict[str, str]
    sequences: dict[str, int]
    objects: dict[str, str]
    extensions: dict[str, str]
    encoding: str
    collate: str
    ctype: str

    @property
    def rows(self) -> int:
        """All tables together."""
        return sum(table.rows for table in self.tables.values())

    def differences(self, found: "Contents") -> list[str]:
        """How a restored copy differs from what was saved, in words; empty if it does not."""
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
        lines += [
            f"{kind}: {found.objects.get(kind, 'none')} instead of {self.objects.get(kind, 'none')}"
            for kind in sorted(self.objects.keys() | found.objects.keys())
            if self.objects.get(kind) != found.objects.get(kind)
        ]
        if found.extensions.keys() != self.extensions.keys():
            lines.append(f"extensions {sorted(found.extensions)} instead of {sorted(self.extensions)}")
        return lines


# For each table the statement that reads its fingerprint, the largest first. A type's own hash is three times
# as fast as that of its text, and as good where it depends on the value alone: an enum hashes its oid.
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

_OBJECTS = text(
    OBJECTS  # noqa: S608 - two constants
    + """
    SELECT kind,
           format(
               '%s, %s', count(*), md5(string_agg(definition, E'\\n' ORDER BY definition COLLATE "C"))
           ) AS hash
    FROM object GROUP BY kind
    """
)


@asynccontextmanager
async def snapshot(settings: Settings) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """A view of the database that stands still: the name by which others share it, and the sequences' values.

    Sequences obey no snapshot. What is dumped of them later is at least what they are here.

    The tables are locked before the view is taken: who rewrites or drops one is waited for, and waits from
    then on. A rewrite that is committed later leaves the table empty for an older view (PostgreSQL's manual,
    13.6 Caveats), for the dump and the comparison alike.
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
    """Count and hash everything in a database.

    Args:
        settings: The database.
        shared: The snapshot to read; its own if not given.
        sequences: Their values that count; those that they have now if not given.

    Raises:
        DatabaseError: no connection, or the session that holds the shared snapshot was lost.
        sqlalchemy.exc.DBAPIError: the server refused, as for want of a privilege, or ended the session.
    """
    async with _session(settings, shared) as connection:
        found = [(row.name, row.statement) for row in await connection.execute(_TABLES)]
        rest: dict[str, Any] = {
            "revision": await connection.scalar(_REVISION)
            if "public.alembic_version" in dict(found)
            else None,
            "partitions": {row.name: row.bounds for row in await connection.execute(_PARTITIONS)},
            "sequences": await _sequences(connection) if sequences is None else sequences,
            "objects": {row.kind: row.hash for row in await connection.execute(_OBJECTS)},
            "extensions": {row.extname: row.extversion for row in await connection.execute(_EXTENSIONS)},
            **(await connection.execute(_DATABASE)).mappings().one(),
        }
        if shared is None:
            shared = str(await connection.scalar(text("SELECT pg_export_snapshot()")))
        tables: dict[str, Table] = {}
        async with task_group() as group:
            for _ in range(_AT_ONCE):
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
    async with connect(settings, "occupancy-db backup", server_settings=SESSION) as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        if shared:
            await _join(connection, shared)
        yield connection


async def _join(connection: AsyncConnection, shared: str) -> None:
    """See what another session sees: the one that exported the snapshot, if it is still there."""
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
