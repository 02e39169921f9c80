"""Retention: removing what is older than it is kept for, without holding up writers."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.history.inspection import RETIRED, TIME_COLUMN, Step, finish, preview
from occupancy_db.history.upkeep import Maintenance, find_months, maintenance, patiently, sum_hours
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.months import TABLE, month_of
from occupancy_db.settings import Settings

ROWS_AT_ONCE = 20_000
"""Rows removed in one transaction where a month is not dropped as a whole: a fraction of a second."""

SIZE = text("SELECT pg_total_relation_size(to_regclass(:name))")


async def cleanup(
    settings: Settings, keep: dict[str, int], *, dry_run: bool, lock_wait: float = LOCK_WAIT
) -> dict[str, dict[str, Any]]:
    """Remove rows that are older than they are kept for, or count them.

    Whole months of readings are detached concurrently and dropped, which returns their space to the
    operating system at once. Rows of the oldest month that stays, and of other tables, are deleted in small
    transactions. The hourly sums of removed readings stay. An interrupted run loses nothing and counts
    nothing twice; the next run, or ``partitions maintain``, completes it.

    Args:
        settings: The database; its user must be the owner, unless it is a dry run.
        keep: How many months to keep, by table; other tables are left alone.
        dry_run: Only count.
        lock_wait: Seconds to wait for other maintenance.

    Returns:
        For each table ``months``, ``cutoff``, ``rows``, ``bytes_before``, ``bytes_after``, and for
        sensor_readings ``dropped``, the partitions that were removed as a whole.

    Raises:
        DatabaseError: a lock was not obtained in time; rows removed before that stay removed.
    """
    if dry_run:
        return await preview(settings, keep)
    result: dict[str, dict[str, Any]] = {}
    async with maintenance(settings, lock_wait) as session:
        for table, months in keep.items():
            cutoff = await _cutoff(session.guard, months)
            remove = _remove_readings if table == TABLE else _remove_rows
            result[table] = {"months": months, **await remove(session, table, cutoff)}
    return result


async def _cutoff(connection: AsyncConnection, months: int) -> datetime:
    """The database knows the rule, and refuses what makes no sense."""
    cutoff = await connection.scalar(text("SELECT retention_cutoff(:months)"), {"months": months})
    assert isinstance(cutoff, datetime)
    return cutoff


async def _remove_readings(session: Maintenance, _table: str, cutoff: datetime) -> dict[str, Any]:
    months = await find_months(session.guard)
    before = sum(month.bytes for month in months)
    for month in months:
        if month.detaching or month.retired:
            await session.run(Step("finish", month.name, finish(month)))
    # With the hours summed up, a month that is dropped need not be read again.
    await sum_hours(session.guard)

    rows, dropped = 0, []
    for month in await find_months(session.guard):
        if month.attached and month.ends_before(cutoff):
            await patiently(session.guard.execute, text(f"COMMENT ON TABLE {month.name} IS '{RETIRED}'"))
            await session.detach(month.name)
            rows += await session.forget_month(month.name)
            dropped.append(month.name)

    for month in await find_months(session.guard):
        if month.attached and month.month == month_of(cutoff):
            rows += await _trim(session, month.name, cutoff)
    after = sum(month.bytes for month in await find_months(session.guard))
    return {
        "cutoff": cutoff,
        "rows": rows,
        "bytes_before": before,
        "bytes_after": after,
        "dropped": dropped,
    }


async def _trim(session: Maintenance, name: str, cutoff: datetime) -> int:
    """Remove a month's readings before a moment; returns how many."""
    # Up to the reading so many further on, with all of its moment, or else to the end.
    batch = text(f"""
        SELECT hourly.forget('-infinity', coalesce(
            (SELECT timestamp + interval '1 microsecond' FROM {name} WHERE timestamp < :cutoff
             ORDER BY timestamp OFFSET {ROWS_AT_ONCE} LIMIT 1),
            :cutoff))
    """)  # noqa: S608  # a name of ours
    rows = 0
    while removed := await patiently(session.guard.scalar, batch, {"cutoff": cutoff}):
        rows += removed
    return rows


async def _remove_rows(session: Maintenance, table: str, cutoff: datetime) -> dict[str, Any]:
    column = TIME_COLUMN[table]
    batch = text(f"""
        DELETE FROM {table} WHERE id IN (
            SELECT id FROM {table} WHERE {column} < :cutoff ORDER BY {column} LIMIT {ROWS_AT_ONCE}
        )
    """)  # noqa: S608  # names of ours
    before = await session.guard.scalar(SIZE, {"name": table})
    rows = 0
    while removed := (await patiently(session.guard.execute, batch, {"cutoff": cutoff})).rowcount:
        rows += removed
    after = await session.guard.scalar(SIZE, {"name": table})
    return {"cutoff": cutoff, "rows": rows, "bytes_before": before, "bytes_after": after}
