"""What upkeep and retention would do: read from the system catalogs, without SQLAlchemy.

:mod:`occupancy_db.history.upkeep` and :mod:`occupancy_db.history.retention` do it.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from occupancy_db.driver import SESSION_SETTINGS, connect_driver
from occupancy_db.history import partitions
from occupancy_db.months import TABLE, following, month_of, partition_name
from occupancy_db.settings import Settings

BRIEF_LOCK_SETTINGS = {**SESSION_SETTINGS, "lock_timeout": "50ms"}
"""Settings of a session that waits for locks only briefly: later statements queue behind one that waits."""

TIME_COLUMN = {"room_transitions": "timestamp", "predictions": "prediction_made_at"}
"""The tables besides sensor_readings that retention knows, and the column with the age of a row."""

RETIRED = "retired: its readings are being removed"
"""The comment on a partition that retention removes; an interrupted removal is recognised by it."""

FURTHEST = 24
"""The largest number of months after the present one that can be wanted."""

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
        """Return whether the whole month is before a time."""
        return month_of(moment) > self.month


@dataclass(frozen=True)
class Step:
    """One step of upkeep.

    Attributes:
        kind: ``finish`` (an interrupted removal), ``complete`` (add the triggers to a partition made by
            hand), ``create``, or ``drop`` (an empty month that a clock that was ahead has left).
        table: The partition.
        statements: The SQL, as it runs.
    """

    kind: str
    table: str
    statements: list[str]


@dataclass(frozen=True)
class HoursStatus:
    """How far the hourly sums are up to date.

    Attributes:
        closed_before: The hours before this time are closed; None if no hour was closed yet.
        marked: Number of closed hours with changes that are not summed up yet.
        sums: Number of hourly sums.
        history: Number of hourly sums whose readings were removed.
    """

    closed_before: datetime | None
    marked: int
    sums: int
    history: int


@dataclass(frozen=True)
class UpkeepStatus:
    """The partitions and the hourly sums.

    Attributes:
        months: The tables of all months, the oldest first.
        plan: What upkeep would do, in order.
        strays: Tables that are named like months, but are not partitions, and that retention did not detach.
        hours: The state of the hourly sums.
    """

    months: list[Month]
    plan: list[Step]
    strays: list[str]
    hours: HoursStatus


@dataclass(frozen=True)
class TableCleanup:
    """What retention has removed from a table, or would remove.

    Attributes:
        months: Number of months that are kept.
        cutoff: Rows before this time are removed.
        rows: Number of rows.
        bytes_before: Size of the table before, with indexes and TOAST.
        bytes_after: Its size afterwards; of a dry run without the rows that would be deleted one by one.
        dropped: Partitions that were dropped as a whole; None for tables that are not partitioned.
        waited_for: The idle transactions that held locks for a while.
    """

    months: int
    cutoff: datetime
    rows: int
    bytes_before: int
    bytes_after: int
    dropped: list[str] | None = None
    waited_for: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields = asdict(self)
        if self.dropped is None:
            del fields["dropped"]
        return fields


async def status(settings: Settings, months_ahead: int, months_back: int = 0) -> UpkeepStatus:
    """Return the months, what upkeep would do, and how far the hours are summed up.

    Args:
        settings: The database.
        months_ahead: How many months after the current one should exist.
        months_back: How many months before the current one should exist.

    Raises:
        DatabaseError: no connection.
    """
    async with connect_driver(settings, "occupancy-db partitions", BRIEF_LOCK_SETTINGS) as connection:
        months = await _find_months(connection)
        hours = await connection.fetchrow(_HOURS)
        now = datetime.now(UTC)
        forgotten = {row["name"] for row in await connection.fetch(forgotten_statement(now, months_back))}
    return UpkeepStatus(
        months=months,
        plan=plan_steps(months, now, months_ahead, months_back, forgotten),
        strays=strays(months),
        hours=HoursStatus(**hours),
    )


async def preview(settings: Settings, keep: dict[str, int]) -> dict[str, TableCleanup]:
    """Return what ``retention.cleanup`` would remove.

    Args:
        settings: The database.
        keep: By table, the number of months to keep; other tables are left alone.

    Returns:
        The result of each table.

    Raises:
        DatabaseError: no connection.
    """
    result = {}
    async with connect_driver(settings, "occupancy-db cleanup", BRIEF_LOCK_SETTINGS) as connection:
        for table, months in keep.items():
            result[table] = await _preview_table(connection, table, months)
    return result


async def _preview_table(connection: Any, table: str, months: int) -> TableCleanup:
    # The rule is a function of the database, which also refuses absurd arguments.
    cutoff = await connection.fetchval("SELECT retention_cutoff($1)", months)
    column = TIME_COLUMN.get(table, "timestamp")
    rows = await connection.fetchval(
        f"SELECT count(*) FROM {table} WHERE {column} < $1",  # noqa: S608  # names from TIME_COLUMN
        cutoff,
    )
    if table != TABLE:
        size = await connection.fetchval("SELECT pg_total_relation_size(to_regclass($1))", table)
        return TableCleanup(months, cutoff, rows, size, size)
    found = await _find_months(connection)
    before = sum(month.bytes for month in found)
    old = [month for month in found if month.attached and month.ends_before(cutoff)]
    after = before - sum(month.bytes for month in old)
    return TableCleanup(months, cutoff, rows, before, after, [month.name for month in old])


async def _find_months(connection: Any) -> list[Month]:
    return [Month(**row) for row in await connection.fetch(MONTHS)]


def strays(months: list[Month]) -> list[str]:
    """Return the tables that are named like months and are not partitions; upkeep leaves them alone."""
    return [month.name for month in months if not month.attached and not month.retired]


def plan_steps(
    months: list[Month],
    now: datetime,
    months_ahead: int,
    months_back: int = 0,
    forgotten: Collection[str] = (),
) -> list[Step]:
    """Return the steps that upkeep has to make, in order.

    Args:
        months: The tables that exist.
        now: The current time, with a time zone.
        months_ahead: How many months after the current one should exist.
        months_back: How many months before the current one should exist.
        forgotten: The names of past months whose readings retention has removed; they are not created again.
    """
    steps = []
    for month in months:
        if month.detaching or month.retired:
            steps.append(Step("finish", month.name, finish_statements(month)))
        elif month.attached and not month.watched:
            steps.append(Step("complete", month.name, [partitions.prepare(month.name)]))
        elif month.attached and not month.rows and month.month > following(month_of(now), FURTHEST):
            steps.append(Step("drop", month.name, [drop_statement(month.name)]))
    existing = {month.name for month in months}
    # The next readings come first.
    for n in (*range(months_ahead + 1), *range(-1, -months_back - 1, -1)):
        wanted = following(month_of(now), n)
        name = partition_name(wanted)
        if name not in existing and (n >= 0 or name not in forgotten):
            steps.append(Step("create", name, create_statements(name, wanted)))
    return steps


def forgotten_statement(now: datetime, months_back: int) -> str:
    """Return the query for the names of past months of which retention has removed readings.

    Args:
        now: The current time, with a time zone.
        months_back: How many months before the current one are looked at.
    """
    first = following(month_of(now), -months_back)
    return f"""
        SELECT to_char(month, '"{TABLE}_"YYYY_MM') AS name
        FROM generate_series(timestamp '{first}', timestamp '{month_of(now)}', interval '1 month') AS month
        WHERE EXISTS (
            SELECT FROM hourly.history
            WHERE hour >= month AT TIME ZONE 'UTC' AND hour < (month + interval '1 month') AT TIME ZONE 'UTC'
        )
    """  # noqa: S608 - dates and a constant


def finish_statements(month: Month) -> list[str]:
    """Return the statements that complete an interrupted removal of a month."""
    statements = []
    if month.detaching:
        statements.append(f"ALTER TABLE {TABLE} DETACH PARTITION {month.name} FINALIZE")
    elif month.attached:  # marked as retired, and interrupted before the first step
        statements.append(detach_statement(month.name))
    if month.retired:
        statements.append(forget_month_statement(month.name, summed=False))
    return statements


def create_statements(name: str, month: date) -> list[str]:
    """Return the statements that create a partition, in one transaction."""
    return [
        partitions.create_standalone(name, month),
        partitions.prepare(name),
        partitions.attach(name, month),
        f"ALTER TABLE {name} DROP CONSTRAINT bounds",
    ]


def drop_statement(name: str) -> str:
    """Return the statement that drops a partition if it has no rows; clients wait for milliseconds."""
    return f"""
        DO $$ BEGIN
            LOCK TABLE ONLY {TABLE} IN ACCESS EXCLUSIVE MODE;
            LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
            IF NOT EXISTS (SELECT FROM {name}) THEN
                DROP TABLE {name};
            END IF;
        END $$
    """  # a name of the catalog


def detach_statement(name: str) -> str:
    """Return the statement that detaches a partition without blocking clients; not in a transaction."""
    return f"ALTER TABLE {TABLE} DETACH PARTITION {name} CONCURRENTLY"


def forget_month_statement(name: str, *, summed: bool) -> str:
    """Return the statement that drops a detached month, keeps its sums, and returns how many readings it had.

    Args:
        name: The month's table.
        summed: Whether its hours were summed up before it was detached and have not changed since; otherwise
            the statement counts them.
    """
    return f"SELECT hourly.forget_month('{name}', {summed})"
