"""Retention: removing what is older than it is kept for, without holding up writers."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.history.upkeep import (
    PATIENT,
    RETIRED,
    Maintenance,
    Month,
    Step,
    find_months,
    finish,
    maintenance,
    patiently,
    sum_hours,
)
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.months import TABLE, month_of
from occupancy_db.settings import Settings

ROWS_AT_ONCE = 20_000
"""Rows removed in one transaction where a month is not dropped as a whole: a fraction of a second."""

TIME_COLUMN = {"room_transitions": "timestamp", "predictions": "prediction_made_at"}
"""The tables besides sensor_readings that retention knows, and what tells their rows' age."""

SIZE = text("SELECT pg_total_relation_size(to_regclass(:name))")


async def cleanup(
    settings: Settings, keep: dict[str, int], *, dry_run: bool, lock_wait: float = LOCK_WAIT
) -> dict[str, Any]:
    """Remove old rows, or say what would be removed.

    Whole months of readings are detached concurrently and dropped, which gives their space back at once; of
    the month that is being left, and of other tables, rows are deleted in small transactions. The hourly
    sums of readings that are removed stay. Interrupted at any point nothing is lost or counted twice, and the
    next run, or upkeep, finishes it.

    Args:
        settings: The database; its user must be the owner, unless it is a dry run.
        keep: How many months to keep of which tables; others are left alone.
        dry_run: Only look.
        lock_wait: Seconds to wait for other maintenance.

    Returns:
        For each table ``months``, ``cutoff``, ``rows``, ``bytes_before``, ``bytes_after``, and for
        sensor_readings ``dropped``, the partitions that went as a whole.

    Raises:
        DatabaseError: a lock was not obtained in time; what was removed until then is removed.
    """
    result = {}
    if dry_run:
        async with connect(settings, "occupancy-db cleanup", server_settings=PATIENT) as connection:
            for table, months in keep.items():
                result[table] = await _look(connection, table, await _cutoff(connection, months))
    else:
        async with maintenance(settings, lock_wait) as session:
            for table, months in keep.items():
                cutoff = await _cutoff(session.guard, months)
                remove = _remove_readings if table == TABLE else _remove_rows
                result[table] = await remove(session, table, cutoff)
    return {table: {"months": keep[table], **found} for table, found in result.items()}


async def _cutoff(connection: AsyncConnection, months: int) -> datetime:
    """The database knows the rule, and refuses what makes no sense."""
    cutoff = await connection.scalar(text("SELECT retention_cutoff(:months)"), {"months": months})
    assert isinstance(cutoff, datetime)
    return cutoff


def _ends_before(month: Month, moment: datetime) -> bool:
    return month_of(moment) > month.month


async def _look(connection: AsyncConnection, table: str, cutoff: datetime) -> dict[str, Any]:
    column = TIME_COLUMN.get(table, "timestamp")
    rows = await connection.scalar(
        text(f"SELECT count(*) FROM {table} WHERE {column} < :cutoff"),  # noqa: S608  # a name of ours
        {"cutoff": cutoff},
    )
    found: dict[str, Any] = {"cutoff": cutoff, "rows": rows}
    if table == TABLE:
        months = await find_months(connection)
        found["bytes_before"] = sum(month.bytes for month in months)
        old = [month for month in months if month.attached and _ends_before(month, cutoff)]
        found["bytes_after"] = found["bytes_before"] - sum(month.bytes for month in old)
        found["dropped"] = [month.name for month in old]
    else:
        found["bytes_before"] = found["bytes_after"] = await connection.scalar(SIZE, {"name": table})
    return found


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
        if month.attached and _ends_before(month, cutoff):
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
