"""Storing validated readings: each one exactly once, whoever sends it again, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from occupancy_db.connection import driver_of, driver_transaction
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.months import TABLE, partition_name

COLUMNS: Final = ("timestamp", "room", "zone", "state", "source_entity", "confidence")
"""The columns that are written, in the order of ``Row``."""

Row = tuple[datetime, str, str, bool, str, float]
Key = tuple[datetime, str, str, bool, str]
"""What makes two readings the same: all columns except ``confidence``."""

Month = list[Row]

Gap = tuple[datetime, str, str, str]
"""The end of a state: timestamp, room, zone and source_entity."""


@dataclass
class Batch:
    """Valid readings and gaps.

    Attributes:
        months: The readings by the first day of their UTC month.
        gaps: The gaps.
    """

    months: dict[date, Month] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of readings."""
        return sum(map(len, self.months.values()))


_KEY: Final = ", ".join(COLUMNS[:-1])

_FEW: Final = 8
"""A larger batch is copied, and claims all slots at once after that."""

_FEW_IN_TRANSACTION: Final = 64
"""The same in the transaction of a caller, which keeps its claim until it ends."""

_PATIENCE: Final = 2
"""The whole span of a batch is compared if it holds at most so many stored readings for each new one."""

# A partition that is being detached still accepts rows under its name, and they would be lost. This query
# holds a lock on the parent table until the transaction ends; a detach waits for it.
_PARTITIONS: Final = f"""
    SELECT relname, current_setting('transaction_isolation')
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = '{TABLE}'::regclass AND NOT inhdetachpending
      AND NOT EXISTS (SELECT FROM ONLY {TABLE})
"""  # noqa: S608  # a constant
_CLAIM_ALL: Final = "SELECT claim_ingest_slots(NULL)"
_STORE_FEW: Final = "SELECT store_readings($1, $2, $3, $4, $5, $6)"
_STORE_GAPS: Final = """
    INSERT INTO sensor_gaps (timestamp, room, zone, source_entity)
    SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING
"""


class OvertakenError(Exception):
    """Another transaction has stored some of the readings meanwhile; roll back and store the rest."""


async def store(engine: AsyncEngine, batch: Batch) -> int:
    """Store the readings and gaps that are not stored yet, in one transaction.

    Args:
        engine: The database.
        batch: What is stored.

    Returns:
        The number of readings and gaps stored.

    Raises:
        OvertakenError: a new attempt can succeed.
        DatabaseError: a month has no partition, or the transaction's isolation level hides what other
            transactions store.
        asyncpg.PostgresError: the server refused the rows, or a lock was not obtained in time.
    """
    if batch.size > _FEW or batch.gaps:
        async with driver_transaction(engine) as driver:
            return await _store(driver, batch, _FEW)
    async with engine.connect() as connection, driver_of(connection) as driver:
        return await _store_few(driver, batch.months)


async def store_in_savepoint(connection: AsyncConnection, batch: Batch) -> int:
    """As :func:`store`, in the transaction of a caller, which an error leaves as it was before the call."""
    assert connection.sync_connection is not None
    if connection.sync_connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        raise _unsuitable("the session is in autocommit mode", "Use a session with transactions.")
    async with connection.begin_nested(), driver_of(connection) as driver:
        return await _store(driver, batch, _FEW_IN_TRANSACTION)


async def _store(driver: Any, batch: Batch, few: int) -> int:
    stored = 0
    if batch.size:
        stored = await (_copy if batch.size > few else _store_few)(driver, batch.months)
    return stored + (await _store_gaps(driver, batch.gaps) if batch.gaps else 0)


async def _store_gaps(driver: Any, gaps: Sequence[Gap]) -> int:
    # In one order, so that two transactions do not wait for each other.
    columns = zip(*sorted(set(gaps)), strict=True)
    done: str = await driver.execute(_STORE_GAPS, *map(list, columns))
    return int(done.split()[-1])


async def _store_few(driver: Any, months: Mapping[date, Month]) -> int:
    rows = _distinct([row for month in months.values() for row in month])
    try:
        stored: int = await driver.fetchval(_STORE_FEW, *map(list, zip(*rows, strict=True)))
    except asyncpg.InvalidTransactionStateError as error:
        raise _needs_read_committed(error.message) from error
    except asyncpg.UndefinedTableError as error:
        _require_partitions(months, set((error.detail or "").split()))
        raise
    return stored


async def _copy(driver: Any, months: Mapping[date, Month]) -> int:
    """Copy the readings into the partitions of their months.

    COPY to the partitioned table would insert row by row because of its triggers. The claimed slots keep
    another transaction from storing the same readings until this one ends.
    """
    found = await driver.fetch(_PARTITIONS)
    _require_partitions(months, {row[0] for row in found})
    for level in {row[1] for row in found} - {"read committed"}:
        raise _needs_read_committed(f"the transaction's isolation level is {level}")
    spans = []
    for month in sorted(months):
        span = _Span(partition_name(month), months[month])
        if stored := await span.stored(driver):
            span.rows = [row for row in span.rows if _key(row) not in stored]
        if span.rows:
            await driver.copy_records_to_table(span.partition, records=span.rows, columns=COLUMNS)
            spans.append(span)
    if spans:
        await driver.execute(_CLAIM_ALL)
        for span in spans:
            if await span.overtaken(driver):
                raise OvertakenError
    return sum(len(span.rows) for span in spans)


class _Span:
    """The readings of a batch in one partition, and the stored ones with which they are compared.

    Attributes:
        partition: Name of the partition.
        rows: The readings that are stored by this transaction.
    """

    def __init__(self, partition: str, rows: Month) -> None:
        """Leave out the readings that are twice among the rows."""
        times = {row[0] for row in rows}
        self.partition = partition
        self.rows = rows if len(times) == len(rows) else _distinct(rows)
        # A batch is usually a span of time in which nothing is stored yet.
        self._where = "timestamp BETWEEN $1 AND $2"
        self._arguments: tuple[Any, ...] = (min(times), max(times))
        self._times = times
        self._stored = 0

    async def stored(self, driver: Any) -> set[Key]:
        """The keys of the stored readings at the times of this batch."""
        limit = _PATIENCE * len(self.rows)
        found = await self._fetch(driver, f"LIMIT {limit + 1}")
        if len(found) > limit:
            # Readings far apart, with many stored ones between them
            self._where, self._arguments = "timestamp = ANY ($1)", (list(self._times),)
            found = await self._fetch(driver)
        self._stored = len(found)
        return {_key(row) for row in found}

    async def overtaken(self, driver: Any) -> bool:
        """Whether readings of this transaction are stored twice. The caller has claimed their slots."""
        count = await driver.fetchval(
            f"SELECT count(*) FROM {self.partition} WHERE {self._where}",  # noqa: S608  # constants
            *self._arguments,
        )
        if count == self._stored + len(self.rows):
            return False
        mine = {_key(row) for row in self.rows}
        twice = await self._fetch(driver, f"GROUP BY {_KEY} HAVING count(*) > 1")
        return any(_key(row) in mine for row in twice)

    async def _fetch(self, driver: Any, more: str = "") -> list[Any]:
        found: list[Any] = await driver.fetch(
            f"SELECT {_KEY} FROM {self.partition} WHERE {self._where} {more}",  # noqa: S608  # constants
            *self._arguments,
        )
        return found


def _key(row: Sequence[Any]) -> Key:
    timestamp, room, zone, state, entity, *_ = row
    return timestamp, room, zone, state, entity


def _distinct(rows: Month) -> Month:
    """The readings without repetitions; of equal keys the first one stays."""
    found: dict[Key, Row] = {}
    for row in rows:
        found.setdefault(_key(row), row)
    return list(found.values())


def _needs_read_committed(what: str) -> DatabaseError:
    return _unsuitable(
        what, "Use READ COMMITTED, in which a reading that another transaction stores meanwhile is seen."
    )


def _unsuitable(what: str, hint: str) -> DatabaseError:
    return DatabaseError(ExitCode.UNSUITABLE, f"{what}; nothing was written", hint)


def _require_partitions(months: Mapping[date, Month], present: set[str]) -> None:
    missing = [f"{month:%Y-%m}" for month in sorted(months) if partition_name(month) not in present]
    if not missing:
        return
    names = sorted(name.removeprefix(f"{TABLE}_").replace("_", "-") for name in present)
    kept = f"partitions exist from {names[0]} to {names[-1]}" if names else "no partition exists"
    raise DatabaseError(
        ExitCode.FAILED,
        f"no partition for readings of {', '.join(missing)}: {kept}; nothing was written",
        "Use 'occupancy-db import' for readings of removed months, and 'occupancy-db partitions maintain' to "
        "create the partitions of coming months.",
    )
