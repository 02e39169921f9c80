"""What maintenance and retention would do: read from the catalog, without SQLAlchemy.

``upkeep`` and ``retention`` do it.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from occupancy_db.driver import SESSION, connect_driver
from occupancy_db.history import partitions
from occupancy_db.months import TABLE, following, month_of, partition_name
from occupancy_db.settings import Settings

# A statement that waits for a strong lock makes every later statement on the table wait: wait only briefly.
PATIENT = {**SESSION, "lock_timeout": "50ms"}

TIME_COLUMN = {"room_transitions": "timestamp", "predictions": "prediction_made_at"}
"""The tables besides sensor_readings that retention knows, and the column with the age of a row."""

RETIRED = "retired: its readings are being removed"
"""The comment on a partition that retention removes; an interrupted removal is recognised by it."""

# Every table that is, or is named like, the partition of a month.
MONTHS = f"""
    SELECT leaf.relname AS name,
           leaf.relispartition AS attached,
           coalesce(inhdetachpending, false) AS detaching,
           obj_description(leaf.oid, 'pg_class') IS NOT DISTINCT FROM '{RETIRED}' AS retired,
           pg_get_expr(leaf.relpartbound, leaf.oid) AS bounds,
           greatest(leaf.reltuples, pg_stat_get_live_tuples(leaf.oid))::bigint AS rows,
           pg_total_relation_size(leaf.oid) AS bytes,
           EXISTS (SELECT FROM pg_trigger WHERE tgrelid = leaf.oid AND tgname = 'hourly_insert') AS watched
    FROM pg_class AS leaf
    LEFT JOIN pg_inherits ON inhrelid = leaf.oid
    WHERE leaf.relnamespace = 'public'::regnamespace AND leaf.relkind = 'r'
      AND leaf.relname ~ '^sensor_readings_[0-9]{{4}}_(0[1-9]|1[0-2])$'
    ORDER BY leaf.relname
"""  # noqa: S608  # constants of this module

_HOURS = """
    SELECT CASE WHEN isfinite(closed_before) THEN closed_before END AS closed_before,
           (SELECT count(DISTINCT hour) FROM hourly.marks) AS marked,
           (SELECT count(*) FROM hourly.sums) AS sums,
           (SELECT count(*) FROM hourly.history) AS history
    FROM hourly.watermark
"""


@dataclass(frozen=True)
class Month:
    """The table of a month, as the catalog describes it.

    Attributes:
        name: The name of the table.
        attached: Whether it is a partition; otherwise it is a table of its own.
        detaching: Whether a concurrent detach was begun and not finished.
        retired: Whether retention was removing it.
        bounds: The partition's bounds as SQL, None if it is not a partition.
        rows: An estimate.
        bytes: With indexes and TOAST.
        watched: Whether it has the triggers of the hourly sums.
    """

    name: str
    attached: bool
    detaching: bool
    retired: bool
    bounds: str | None
    rows: int
    bytes: int
    watched: bool

    @property
    def month(self) -> date:
        """The first day of the month in the name."""
        return datetime.strptime(self.name[-7:], "%Y_%m").replace(tzinfo=UTC).date()

    def ends_before(self, moment: datetime) -> bool:
        """Whether all of the month is before a moment."""
        return month_of(moment) > self.month


@dataclass(frozen=True)
class Step:
    """One change that maintenance makes.

    Attributes:
        kind: ``finish`` (an interrupted removal), ``complete`` (add the triggers to a partition made by
            hand) or ``create``.
        table: The partition.
        statements: The SQL, as it runs.
    """

    kind: str
    table: str
    statements: list[str]


async def status(settings: Settings, months_ahead: int) -> dict[str, Any]:
    """The months, what maintenance would change, and how far the hours are summed up.

    Args:
        settings: The database.
        months_ahead: How many months after the current one should exist.

    Returns:
        ``months`` (see Month), ``plan`` (see Step), ``strays`` (tables that are named like months, are not
        partitions, and that retention did not detach), ``hours``.

    Raises:
        DatabaseError: no connection.
    """
    async with connect_driver(settings, "occupancy-db partitions", PATIENT) as connection:
        months = await _find_months(connection)
        hours = await connection.fetchrow(_HOURS)
    return {
        "months": [asdict(month) for month in months],
        "plan": [asdict(step) for step in plan(months, datetime.now(UTC), months_ahead)],
        "strays": strays(months),
        "hours": dict(hours),
    }


async def preview(settings: Settings, keep: dict[str, int]) -> dict[str, dict[str, Any]]:
    """What ``retention.cleanup`` would remove; arguments and result are the same.

    Raises:
        DatabaseError: no connection.
    """
    result = {}
    async with connect_driver(settings, "occupancy-db cleanup", PATIENT) as connection:
        for table, months in keep.items():
            # The rule is a function of the database, which also refuses absurd arguments.
            cutoff = await connection.fetchval("SELECT retention_cutoff($1)", months)
            found = await _preview_table(connection, table, cutoff)
            result[table] = {"months": months, "cutoff": cutoff, **found}
    return result


async def _preview_table(connection: Any, table: str, cutoff: datetime) -> dict[str, Any]:
    column = TIME_COLUMN.get(table, "timestamp")
    found: dict[str, Any] = {
        "rows": await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE {column} < $1",  # noqa: S608  # names from TIME_COLUMN
            cutoff,
        )
    }
    if table == TABLE:
        months = await _find_months(connection)
        found["bytes_before"] = sum(month.bytes for month in months)
        old = [month for month in months if month.attached and month.ends_before(cutoff)]
        found["bytes_after"] = found["bytes_before"] - sum(month.bytes for month in old)
        found["dropped"] = [month.name for month in old]
    else:
        size = await connection.fetchval("SELECT pg_total_relation_size(to_regclass($1))", table)
        found["bytes_before"] = found["bytes_after"] = size
    return found


async def _find_months(connection: Any) -> list[Month]:
    return [Month(**row) for row in await connection.fetch(MONTHS)]


def strays(months: list[Month]) -> list[str]:
    """The tables that are named like months and are not partitions; maintenance leaves them alone."""
    return [month.name for month in months if not month.attached and not month.retired]


def plan(months: list[Month], now: datetime, months_ahead: int) -> list[Step]:
    """The changes that maintenance has to make, in order.

    Args:
        months: The tables that exist.
        now: The present, with a time zone.
        months_ahead: How many months after the current one should exist.
    """
    steps = []
    for month in months:
        if month.detaching or month.retired:
            steps.append(Step("finish", month.name, finish(month)))
        elif month.attached and not month.watched:
            steps.append(Step("complete", month.name, [partitions.prepare(month.name)]))
    existing = {month.name for month in months}
    for n in range(months_ahead + 1):
        coming = following(month_of(now), n)
        name = partition_name(coming)
        if name not in existing:
            steps.append(Step("create", name, create(name, coming)))
    return steps


def finish(month: Month) -> list[str]:
    """The statements that complete an interrupted removal of a month."""
    statements = []
    if month.detaching:
        statements.append(f"ALTER TABLE {TABLE} DETACH PARTITION {month.name} FINALIZE")
    elif month.attached:  # marked as retired, and interrupted before the first step
        statements.append(detach(month.name))
    if month.retired:
        statements.append(forget_month(month.name, summed=False))
    return statements


def create(name: str, month: date) -> list[str]:
    """The statements that create a partition, in one transaction."""
    return [
        partitions.create_standalone(name, month),
        partitions.prepare(name),
        partitions.attach(name, month),
        f"ALTER TABLE {name} DROP CONSTRAINT bounds",
    ]


def detach(name: str) -> str:
    """The statement that detaches a partition without blocking readers or writers; not in a transaction."""
    return f"ALTER TABLE {TABLE} DETACH PARTITION {name} CONCURRENTLY"


def forget_month(name: str, *, summed: bool) -> str:
    """The statement that drops a detached month, keeps its sums, and returns how many readings it had.

    Args:
        name: The month's table.
        summed: Whether its hours were summed up before it was detached and have not changed since; otherwise
            the statement counts them.
    """
    return f"SELECT hourly.forget_month('{name}', {summed})"
