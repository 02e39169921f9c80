"""History brought in: months are filled as tables of their own, then made whole, then made partitions.

One transaction for everything. Nobody sees, or waits for, anything of it until the last few milliseconds.
"""

# ruff: noqa: S608  # names of tables and columns are made here and in partitions, from months

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from datetime import date
from functools import partial
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.gaps import MANY, Gaps
from occupancy_db.history.import_report import Report as Report
from occupancy_db.history.judge import COPY_COLUMNS, COPY_HEADER, COPY_TRAILER
from occupancy_db.history.partitions import attach, bounds, create_standalone, prepare
from occupancy_db.history.rows import AT_MOST, Reader
from occupancy_db.history.session import LockRetry, sum_hours
from occupancy_db.maintenance import SESSION_SETTINGS, maintenance_lock
from occupancy_db.months import TABLE, partition_name
from occupancy_db.retry import Deadline, RetryTimeoutError, retry
from occupancy_db.settings import Settings

IMPORT_SESSION: Final = {
    **SESSION_SETTINGS,
    # Indexes are built one at a time, with the server's maintenance_work_mem: it has room for that.
    "max_parallel_maintenance_workers": "1",
    # A sample of 15,000 rows knows the rooms and zones of a month well enough.
    "default_statistics_target": "50",
    # For finding duplicates.
    "work_mem": "32MB",
}

SWAP_WAIT: Final = 60.0
"""Seconds to try to put full months in the place of empty ones; then their rows are inserted."""
_SWAP_LOCK: Final = "100ms"  # that long everybody waits behind each try
_SWAP_PAUSE: Final = 0.4


# One reading is another's duplicate if it says the same, of the same sensor, at the same moment.
_SAME: Final = ("timestamp", "room", "zone", "source_entity", "state")
_COPIED: Final = ", ".join((*COPY_COLUMNS, "created_at"))

Announce = Callable[[str], None]
"""Told what is being done, again and again while files are read."""


async def run(
    settings: Settings,
    reader: Reader,
    announce: Announce,
    replace: Collection[date] = (),
    *,
    dry_run: bool = False,
) -> Report:
    """Bring the readings of files in: all that are good, or none if anything fails.

    Args:
        settings: The database; the user must own it.
        reader: The files.
        announce: See there.
        replace: Months whose removed readings the files have: their hours count no longer by their sums.
        dry_run: Whether all is taken back at the end, of which nobody has noticed anything then.

    Raises:
        DatabaseError: no connection, other maintenance is at work, or a file cannot be read on.
        asyncpg.PostgresError: the server refused. Nothing was imported.
    """
    report = Report()
    async with (
        maintenance_lock(settings) as guard,
        connect(settings, "occupancy-db import", server_settings=IMPORT_SESSION) as connection,
    ):
        # COPY is the driver's, and so is its transaction.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        with suppress(_TakenBackError):
            async with driver.transaction(isolation="read_committed"):
                months = _Months(driver, report, announce, replace)
                await months.load(reader)
                await months.finish(attach=not dry_run)
                if dry_run:
                    raise _TakenBackError
        if not dry_run:
            announce("summing up")
            await _sum_up(settings, guard, report)
    report.account(reader)
    report.imported = sum(report.months.values())
    report.months = {month: rows for month, rows in sorted(report.months.items()) if rows}
    return report


async def _sum_up(settings: Settings, guard: AsyncConnection, report: Report) -> None:
    try:
        async with AsyncExitStack() as stack:
            await sum_hours(guard, LockRetry(settings, stack))
    except (DatabaseError, DBAPIError) as error:
        report.warnings.append(
            f"the hours are not summed up yet ({error}): until the next upkeep they are recounted"
        )


class _Months:
    """The months of one import."""

    def __init__(self, driver: Any, report: Report, announce: Announce, replace: Collection[date]) -> None:
        self._driver = driver
        self._report = report
        self._announce = announce
        self._replace = replace
        self._staged: dict[date, int] = {}  # and how many readings
        self._gaps = Gaps(driver)

    async def load(self, reader: Reader) -> None:
        """Copy each month into a table of its own, zone by zone: a zone's history is then in one place."""
        while True:
            if len(reader.gaps) >= MANY:
                await self._gaps.stage(reader.take_gaps())
            month = reader.ready()
            if month is None:
                if reader.advance():
                    continue
                month = reader.fullest()
                if month is None:
                    await self._gaps.stage(reader.take_gaps())
                    return
            if month not in self._staged:
                await self._stage(month)
            status = await self._driver.copy_to_table(
                _staging(month),
                source=self._blocks(reader, month),
                columns=COPY_COLUMNS,
                format="binary",
                # No row is written a second time, to say that everybody may see it: the table is new.
                freeze=True,
            )
            self._staged[month] += _rows(status)

    async def _blocks(self, reader: Reader, month: date) -> AsyncIterator[bytes]:
        # While the next block is parsed, the server takes the last from the socket: no thread is needed.
        yield COPY_HEADER
        for block in reader.take(month):
            yield block
            self._announce(f"{month:%Y-%m}")
            await asyncio.sleep(0)
            if reader.waiting < AT_MOST:
                reader.advance()
        yield COPY_TRAILER

    async def _stage(self, month: date) -> None:
        name = partition_name(month)
        if await self._driver.fetchval(
            "SELECT NOT relispartition FROM pg_class WHERE oid = to_regclass($1)", name
        ):
            raise DatabaseError(
                ExitCode.FAILED,
                f"{name} is no partition but a table by itself, as when retention was cut short",
                "Run 'occupancy-db partitions maintain' first.",
            )
        sequence = await self._driver.fetchval("SELECT pg_get_serial_sequence($1, 'id')", TABLE)
        await self._driver.execute(create_standalone(_staging(month), month))
        await self._driver.execute(
            f"ALTER TABLE {_staging(month)} ALTER COLUMN id SET DEFAULT nextval('{sequence}')"
        )
        self._staged[month] = 0

    async def finish(self, *, attach: bool) -> None:
        """Make each month whole, and part of the table unless it is taken back anyway."""
        attachable = []
        for month in sorted(self._staged):
            self._announce(f"{month:%Y-%m}: indexes")
            if month in self._replace:
                await self._replace_history(month)
            else:
                await self._leave_out_history(month)
            merges = await self._holds_rows(month)
            if not merges:
                await self._driver.execute(prepare(_staging(month)))
            else:
                await self._driver.execute(f"ALTER TABLE {_staging(month)} ADD PRIMARY KEY (timestamp, id)")
            await self._leave_out_duplicates(month)
            await self._driver.execute(f"ANALYZE {_staging(month)}")
            if not self._staged[month]:
                await self._driver.execute(f"DROP TABLE {_staging(month)}")
            elif merges:
                await self._merge(month)
            else:
                attachable.append(month)
        self._report.gaps = await self._gaps.insert()
        if attach:
            self._announce("attaching")
            await self._attach(attachable)
        else:
            self._report.months.update({f"{month:%Y-%m}": self._staged[month] for month in attachable})

    async def _replace_history(self, month: date) -> None:
        """Forget what is known of removed readings in each hour of a zone that has readings in the files."""
        since, until = bounds(month)
        gone = await self._driver.fetchrow(f"""
            WITH gone AS (
                DELETE FROM hourly.history USING (
                    SELECT DISTINCT date_bin('1 hour', timestamp, 'epoch') AS hour, room, zone
                    FROM {_staging(month)}
                ) AS staged
                WHERE history.hour >= '{since}' AND history.hour < '{until}'
                  AND history.hour = staged.hour
                  AND history.room = staged.room AND history.zone = staged.zone
                RETURNING history.reading_count
            )
            SELECT count(*) AS hours, coalesce(sum(reading_count), 0)::bigint AS readings FROM gone
        """)
        self._report.replaced[f"{month:%Y-%m}"] = dict(gone)

    async def _leave_out_history(self, month: date) -> None:
        since, until = bounds(month)
        gone = await self._driver.execute(f"""
            DELETE FROM {_staging(month)} AS staged USING hourly.history
            WHERE history.hour >= '{since}' AND history.hour < '{until}'
              AND history.hour = date_bin('1 hour', staged.timestamp, 'epoch')
              AND history.room = staged.room AND history.zone = staged.zone
        """)
        self._report.in_history += _rows(gone)
        self._staged[month] -= _rows(gone)

    async def _leave_out_duplicates(self, month: date) -> None:
        name = _staging(month)
        twice = f"SELECT timestamp FROM {name} GROUP BY timestamp HAVING count(*) > 1"
        if not await self._driver.fetchval(f"SELECT EXISTS ({twice})"):
            return
        # The triggers of a partition would mark hours, of which there are none yet.
        await self._driver.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        gone = await self._driver.execute(f"""
            DELETE FROM {name} AS staged USING (
                SELECT timestamp, id,
                       row_number() OVER (PARTITION BY {", ".join(_SAME)} ORDER BY id) AS number
                FROM {name} WHERE timestamp IN ({twice})
            ) AS numbered
            WHERE number > 1 AND staged.timestamp = numbered.timestamp AND staged.id = numbered.id
        """)
        await self._driver.execute(f"ALTER TABLE {name} ENABLE TRIGGER USER")
        self._report.duplicates += _rows(gone)
        self._staged[month] -= _rows(gone)

    async def _merge(self, month: date) -> None:
        """Insert what is not there yet; the triggers mark its hours."""
        self._announce(f"{month:%Y-%m}: merging")
        name, partition = _staging(month), partition_name(month)
        inserted = _rows(
            await self._driver.execute(f"""
                INSERT INTO {partition} ({_COPIED})
                SELECT {_COPIED} FROM {name} AS staged
                WHERE NOT EXISTS (
                    SELECT FROM {partition} AS present
                    WHERE {" AND ".join(f"present.{column} = staged.{column}" for column in _SAME)}
                )
            """)
        )
        self._report.duplicates += self._staged[month] - inserted
        self._report.months[f"{month:%Y-%m}"] = inserted
        await self._driver.execute(f"DROP TABLE {name}")

    async def _attach(self, months: list[date]) -> None:
        """Make prepared months partitions, in the place of the empty ones that are there."""
        deadline = Deadline(SWAP_WAIT)
        while months:
            try:
                await retry(
                    partial(self._exchange, months),
                    catch=asyncpg.LockNotAvailableError,
                    deadline=deadline,
                    pause=_SWAP_PAUSE,
                )
            except _FilledError as error:
                filled = error.months
            except RetryTimeoutError as timeout:
                # Somebody reads on and on. Beside him nothing can be exchanged, but rows can be inserted.
                filled = [month for month in months if await self._exists(month)]
                if not filled:
                    raise timeout.failure.error from None
                deadline.restart()
            else:
                self._report.months.update({f"{month:%Y-%m}": self._staged[month] for month in months})
                return
            for month in filled:
                await self._merge(month)
            months = [month for month in months if month not in filled]

    async def _exchange(self, months: list[date]) -> None:
        async with self._driver.transaction():  # whose end by an error lets go of the locks
            await self._exchange_in_transaction(months)

    async def _exchange_in_transaction(self, months: list[date]) -> None:
        driver = self._driver
        await driver.execute(f"SET LOCAL lock_timeout = '{_SWAP_LOCK}'")
        # The lock of the triggers of writers
        await driver.execute("LOCK TABLE hourly.watermark IN ROW EXCLUSIVE MODE")
        for month in months:
            await driver.execute(f"""
                INSERT INTO hourly.marks
                SELECT hour
                FROM (SELECT min(timestamp) AS first, max(timestamp) AS last FROM {_staging(month)}) AS span,
                    generate_series(date_bin('1 hour', first, 'epoch'), last, '1 hour') AS hour
                WHERE hour < (SELECT closed_before FROM hourly.watermark)
            """)
            await driver.execute(f"""
                SELECT hourly.mark_occupied(min(timestamp), max(timestamp)) FROM {_staging(month)}
            """)
        empty = [month for month in months if await self._exists(month)]
        for month in set(months) - set(empty):
            await self._put_in_place(month)
        if not empty:
            return
        # From here on everybody waits, for milliseconds.
        await driver.execute(f"LOCK TABLE ONLY {TABLE} IN ACCESS EXCLUSIVE MODE")
        names = [partition_name(month) for month in empty]
        await driver.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
        filled = [month for month in empty if await self._holds_rows(month)]
        if filled:
            raise _FilledError(filled)
        for month, name in zip(empty, names, strict=True):
            await driver.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {name}; DROP TABLE {name}")
            await self._put_in_place(month)

    async def _put_in_place(self, month: date) -> None:
        staging, name = _staging(month), partition_name(month)
        indexes = await self._driver.fetch(
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = $1::regclass",
            staging,
        )
        renamed = [
            f"ALTER INDEX {row['relname']} RENAME TO {row['relname'].replace(staging, name, 1)}"
            for row in indexes
        ]
        await self._driver.execute(
            ";".join(
                [
                    f"ALTER TABLE {staging} RENAME TO {name}",
                    *renamed,
                    attach(name, month),
                    f"ALTER TABLE {name} DROP CONSTRAINT bounds",
                ]
            )
        )

    async def _exists(self, month: date) -> bool:
        return bool(await self._driver.fetchval("SELECT to_regclass($1) IS NOT NULL", partition_name(month)))

    async def _holds_rows(self, month: date) -> bool:
        return await self._exists(month) and bool(
            await self._driver.fetchval(f"SELECT EXISTS (SELECT FROM {partition_name(month)})")
        )


class _TakenBackError(Exception):
    """The import was tried only."""


class _FilledError(Exception):
    """Partitions that were empty have got rows."""

    def __init__(self, months: list[date]) -> None:
        super().__init__(months)
        self.months = months


def _staging(month: date) -> str:
    return f"import_{month:%Y_%m}"


def _rows(status: str) -> int:
    """How many rows a statement was about, from the server's word on it: ``DELETE 3``."""
    return int(status.rsplit(" ", 1)[1])
