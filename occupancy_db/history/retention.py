"""Retention: the removal of old rows, without blocking clients."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import text

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.inspection import (
    RETIRED,
    TIME_COLUMN,
    Step,
    TableCleanup,
    finish_statements,
    preview,
)
from occupancy_db.history.session import (
    UpkeepSession,
    check_clock,
    find_months,
    sum_hours,
    upkeep_session,
)
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.months import TABLE, month_of
from occupancy_db.settings import Settings

ROWS_AT_ONCE = 20_000
"""Number of rows that are deleted in one transaction, which takes a fraction of a second."""

SIZE = text("SELECT pg_total_relation_size(to_regclass(:name))")


async def cleanup(
    settings: Settings, keep: dict[str, int], *, dry_run: bool, lock_wait: float = LOCK_WAIT
) -> dict[str, TableCleanup]:
    """Remove old rows, or determine what would be removed.

    Partitions of months that have ended before the cutoff are detached concurrently and dropped, which frees
    their space at once. Of the month of the cutoff, and of other tables, rows are deleted in small
    transactions. The hourly sums of removed readings stay. If the run is interrupted, nothing is lost or
    counted twice, and the next run, or upkeep, finishes it. If another session blocks one table, the rows of
    the others are removed nevertheless.

    Args:
        settings: The database; its user must be the owner, unless it is a dry run.
        keep: By table, the number of months to keep; other tables are left alone.
        dry_run: Whether to change nothing.
        lock_wait: Seconds to wait for the maintenance lock.

    Returns:
        The result of each table.

    Raises:
        DatabaseError: a lock was not obtained in time; the text names who holds it. What was removed until
            then is removed. Or the clock contradicts what is recorded; then nothing was removed.
    """
    if dry_run:
        return await preview(settings, keep)
    done: dict[str, TableCleanup] = {}
    blocked = None
    async with upkeep_session(settings, lock_wait) as session:
        clock, cutoffs = await session.retry(check_clock, session.worker, "cleanup", set(keep.values()))
        if clock.contradiction:
            raise clock.error()
        for table, months in keep.items():
            try:
                if table == TABLE:
                    result = await _remove_readings(session, months, cutoffs[months])
                else:
                    result = await _remove_rows(session, table, months, cutoffs[months])
                done[table] = replace(result, waited_for=session.waited_for())
            except DatabaseError as error:
                if error.code is not ExitCode.LOCKED:
                    raise
                blocked = blocked or error  # the other tables do not wait for it
        if blocked:
            raise blocked
    return done


async def _remove_readings(session: UpkeepSession, months: int, cutoff: datetime) -> TableCleanup:
    found = await find_months(session.guard)
    before = sum(month.bytes for month in found)
    for month in found:
        if month.detaching or month.retired:
            await session.run(Step("finish", month.name, finish_statements(month)))
    # Sum up the hours first, so that the readings of a dropped month need not be read again.
    await sum_hours(session.guard, session.retry)

    rows, dropped = 0, []
    for month in await find_months(session.guard):
        if month.attached and month.ends_before(cutoff):
            comment = text(f"COMMENT ON TABLE {month.name} IS '{RETIRED}'")
            await session.retry(session.guard.execute, comment)
            await session.detach(month.name)
            rows += await session.forget_month(month.name)
            dropped.append(month.name)

    for month in await find_months(session.guard):
        if month.attached and month.month == month_of(cutoff):
            rows += await _trim(session, month.name, cutoff)
    after = sum(month.bytes for month in await find_months(session.guard))
    return TableCleanup(months, cutoff, rows, before, after, dropped)


async def _trim(session: UpkeepSession, name: str, cutoff: datetime) -> int:
    """Delete the readings of a month before the cutoff, and return their number."""
    # A batch ends after all readings with the timestamp of its last reading, or at the cutoff.
    batch = text(f"""
        SELECT hourly.forget('-infinity', coalesce(
            (SELECT timestamp + interval '1 microsecond' FROM {name} WHERE timestamp < :cutoff
             ORDER BY timestamp OFFSET {ROWS_AT_ONCE} LIMIT 1),
            :cutoff))
    """)  # noqa: S608  # a constant
    rows = 0
    while removed := await session.retry(session.guard.scalar, batch, {"cutoff": cutoff}):
        rows += removed
    return rows


async def _remove_rows(session: UpkeepSession, table: str, months: int, cutoff: datetime) -> TableCleanup:
    column = TIME_COLUMN[table]
    batch = text(f"""
        DELETE FROM {table} WHERE id IN (
            SELECT id FROM {table} WHERE {column} < :cutoff ORDER BY {column} LIMIT {ROWS_AT_ONCE}
        )
    """)  # noqa: S608  # constants
    before = await session.guard.scalar(SIZE, {"name": table})
    rows = 0
    while removed := (await session.retry(session.guard.execute, batch, {"cutoff": cutoff})).rowcount:
        rows += removed
    after = await session.guard.scalar(SIZE, {"name": table})
    return TableCleanup(months, cutoff, rows, before, after)
