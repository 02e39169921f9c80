"""The removal of what belongs to a room, a zone or a sensor, beside writers."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.history.retention import ROWS_AT_ONCE
from occupancy_db.history.selection import ROWS, Selection
from occupancy_db.history.session import UpkeepSession, sum_marked_hours, upkeep_session
from occupancy_db.maintenance import LOCK_WAIT
from occupancy_db.settings import Settings

# A place that is not the only one of its sensor is left empty: without the row, the place before it would
# include its time.
_EMPTY_PLACES = (
    "UPDATE sensors SET room = NULL, zone = NULL, label = NULL, hold = NULL, max_silence = NULL WHERE "
)
_PRESENT = text("SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NOT NULL")
_SENSORS_WITHOUT_PLACE = """
    DELETE FROM sensors WHERE entity IN (SELECT entity FROM sensors GROUP BY entity HAVING count(room) = 0)
      AND entity = ANY (:entities)
"""


@dataclass(frozen=True)
class TableRows:
    """Rows of a table that belong to a selection.

    Attributes:
        rows: Their number.
        first: The earliest time in ISO 8601; None if there are none.
        last: The latest time; None if there are none.
    """

    rows: int
    first: str | None
    last: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"rows": self.rows, "first": self.first, "last": self.last}


async def count(settings: Settings, selection: Selection) -> dict[str, TableRows | None]:
    """Count the rows of a selection.

    Args:
        settings: The database, and a user who may read all tables.
        selection: What is counted.

    Returns:
        By table of ROWS; None for a table whose rows cannot be told apart by the selection.
    """
    found: dict[str, TableRows | None] = {}
    async with connect(settings, "occupancy-db erase", server_settings={"timezone": "UTC"}) as connection:
        for table in ROWS:
            found[table] = await _count(connection, table, selection)
    return found


async def _count(connection: AsyncConnection, table: str, selection: Selection) -> TableRows | None:
    condition = selection.condition(table)
    if condition is None:
        return None
    column = ROWS[table]
    statement = text(
        f"SELECT count(*) AS rows, min({column}) AS first, max({column}) AS last"  # noqa: S608  # constants
        f" FROM {table} WHERE {condition}"
    )
    row = (await connection.execute(statement, selection.parameters)).one()
    first, last = (at.isoformat() if at else None for at in (row.first, row.last))
    return TableRows(row.rows, first, last)


async def erase(settings: Settings, selection: Selection, lock_wait: float = LOCK_WAIT) -> dict[str, int]:
    """Remove the rows of a selection in small transactions, and sum up the hours that change.

    Writers are not blocked. After an interruption, the same call removes what is left. Rows that clients
    write meanwhile may stay.

    Args:
        settings: The database, as its owner.
        selection: What is removed.
        lock_wait: Seconds to wait for the maintenance lock.

    Returns:
        The number of rows that were removed, by table.

    Raises:
        DatabaseError: a lock was not obtained in time; the text names who holds it.
    """
    removed: dict[str, int] = {}
    async with upkeep_session(settings, lock_wait) as session:
        conditions = await _conditions(session, selection)
        # The readings last: the places of an entity's sensor, and its hours, are found until then.
        for table in ("hourly.history", "sensor_gaps", "hourly.carried", "room_transitions", "predictions"):
            if condition := conditions.get(table):
                removed[table] = await _delete(session, table, condition, selection)
        if condition := conditions.get("hourly.occupied_history"):
            removed["hourly.occupied_history"] = await _delete_at_once(session, condition, selection)
        removed["sensor_readings"] = await _delete_readings(session, selection)
        # Readings that were being written have been committed meanwhile.
        removed["sensor_readings"] += await _delete_readings(session, selection)
        if condition := conditions.get("sensors"):
            removed["sensors"] = await _remove_places(session, condition, selection)
        await sum_marked_hours(session.guard, session.retry)
        sums = ["hourly.sums", *(["hourly.occupied"] if "hourly.carried" in conditions else [])]
        tables = ", ".join([*sums, *(table for table, rows in removed.items() if rows)])
        # The statistics of the planner hold frequent values, and removed rows stay in their pages until then.
        await session.retry(session.guard.execute, text(f"VACUUM (ANALYZE) {tables}"))
    return removed


async def _conditions(session: UpkeepSession, selection: Selection) -> dict[str, str]:
    """The conditions of the tables that the database has: the one that a restore replaced may be older."""
    present = set(await session.guard.scalars(_PRESENT, {"names": list(ROWS)}))
    if selection.entity and "sensors" not in present:  # no place of the entity is known
        present = {table for table in present if ROWS[table] != "hour"}
    return {table: condition for table in present if (condition := selection.condition(table))}


async def _delete(session: UpkeepSession, table: str, condition: str, selection: Selection) -> int:
    statement = text(f"""
        DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE {condition} LIMIT {ROWS_AT_ONCE}
        ))
    """)  # noqa: S608  # constants
    rows = 0
    while found := (await session.retry(session.guard.execute, statement, selection.parameters)).rowcount:
        rows += found
    return rows


async def _delete_at_once(session: UpkeepSession, condition: str, selection: Selection) -> int:
    """Delete from a history that no client writes to; its rows of rooms are found by those of zones."""
    statement = text(f"DELETE FROM hourly.occupied_history WHERE {condition}")  # noqa: S608  # constants
    return int((await session.retry(session.guard.execute, statement, selection.parameters)).rowcount)


async def _delete_readings(session: UpkeepSession, selection: Selection) -> int:
    """Delete the readings in the order of time, and return their number."""
    condition = selection.condition("sensor_readings")
    # Each step looks at the readings from the end of the step before, and none at readings that arrive later.
    bounds = text(
        f"SELECT min(timestamp), max(timestamp) FROM sensor_readings WHERE {condition}"  # noqa: S608  # constants
    )
    step_end = text(f"""
        SELECT max(timestamp) FROM (
            SELECT timestamp FROM sensor_readings
            WHERE {condition} AND timestamp >= :start AND timestamp <= :end
            ORDER BY timestamp LIMIT {ROWS_AT_ONCE}
        ) AS step
    """)  # noqa: S608  # constants
    delete = text(f"""
        DELETE FROM sensor_readings WHERE {condition} AND timestamp >= :start AND timestamp <= :end
    """)  # noqa: S608  # constants
    found = (await session.retry(session.guard.execute, bounds, selection.parameters)).one()
    rows, start = 0, found.min
    while start is not None:
        step = {**selection.parameters, "start": start, "end": found.max}
        start = await session.retry(session.guard.scalar, step_end, step)
        if start is not None:
            step["end"] = start
            rows += (await session.retry(session.guard.execute, delete, step)).rowcount
    return rows


async def _remove_places(session: UpkeepSession, condition: str, selection: Selection) -> int:
    async def run() -> int:
        async with session.worker.begin():
            found = await session.worker.execute(
                text(_EMPTY_PLACES + condition + " AND room IS NOT NULL RETURNING entity"),
                selection.parameters,
            )
            entities = list(found.scalars())
            await session.worker.execute(text(_SENSORS_WITHOUT_PLACE), {"entities": entities})
        return len(entities)

    return int(await session.retry(run))
