"""How many readings there are and arrive, the space that they take, and that they will take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from occupancy_db.months import TABLE
from occupancy_db.report import charts
from occupancy_db.report.home import Home
from occupancy_db.report.parts import Cell, Column, Part, Row, Section, Table, Text, ago, size, skipped

RECENT = timedelta(days=7)
"""The time of which the readings of each hour are shown."""

QUIET = timedelta(hours=24)
"""The age of the newest reading of a zone from which the zone is marked."""

ENOUGH = 10_000
"""Fewer readings give no forecast: most of the space is that of empty months."""

_RATE_DAYS = 28
_HORIZONS = (30, 90, 365)
_MONTH_DAYS = 365.25 / 12

_SIZE = "SELECT pg_database_size(current_database())"
_MONTHS = f"""
    SELECT to_date(right(relname, 7), 'YYYY_MM') AS month, pg_total_relation_size(inhrelid) AS bytes
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = '{TABLE}'::regclass
"""  # noqa: S608  # a constant
# As sensor_reading_stats, whose rows by room and hour are not needed.
_READINGS = """
    SELECT date_trunc('month', hour, 'UTC') AS month, sum(reading_count)::bigint AS readings
    FROM (
        SELECT hour, reading_count FROM hourly.sums
        WHERE NOT EXISTS (SELECT FROM hourly.marks WHERE marks.hour = sums.hour)
        UNION ALL SELECT hour, reading_count FROM hourly.open
        UNION ALL SELECT hour, reading_count FROM hourly.history
    ) AS counted
    GROUP BY 1
"""
_RECENT = """
    SELECT hour, sum(reading_count)::bigint AS readings FROM local_hour_stats
    WHERE day >= $1 AND hour >= $2 AND hour <= $3 GROUP BY hour
"""
_RATE = """
    SELECT sum(reading_count)::bigint AS readings, min(first_reading) AS first FROM sensor_reading_stats
    WHERE hour >= $1 AND hour <= $2
"""
_ZONES = "SELECT room, zone, timestamp, state, confidence FROM latest_readings ORDER BY room, zone"


@dataclass(frozen=True)
class Volume:
    """The readings and their space.

    Attributes:
        bytes: Size of the database.
        readings: Number of readings by month, those that retention has removed included.
        months: Bytes of the months that are stored.
        daily: Readings of a day, on the mean of the last four weeks; 0 if there are none.
        hours: Number of readings by the beginning of the hour.
    """

    bytes: int
    readings: dict[date, int]
    months: dict[date, int]
    daily: float
    hours: dict[datetime, int]

    def forecast(self, days: int, kept_months: int | None) -> float | None:
        """The size of the database after some days, in bytes; None if there are too few readings to tell.

        Args:
            days: How many days.
            kept_months: Months of readings that retention keeps; None if it removes nothing.
        """
        stored = sum(number for month, number in self.readings.items() if month in self.months)
        if stored < ENOUGH or not self.daily:
            return None
        then = stored + self.daily * days
        if kept_months:
            then = min(then, max(stored, self.daily * _MONTH_DAYS * (kept_months + 1)))
        each = sum(size for month, size in self.months.items() if month in self.readings) / stored
        return self.bytes + (then - stored) * each


async def find(connection: Any, home: Home) -> Volume:
    """Count the readings and their space.

    Args:
        connection: An ``asyncpg.Connection``.
        home: The home.
    """
    months = {row["month"]: row["bytes"] for row in await connection.fetch(_MONTHS)}
    since = home.now - timedelta(days=_RATE_DAYS)
    rate = await connection.fetchrow(_RATE, since, home.now)
    days = (home.now - max(rate["first"], since)).total_seconds() / 86400 if rate["first"] else 0
    first = first_hour(home)
    recent = await connection.fetch(_RECENT, first.astimezone(home.zone).date(), first, home.now)
    return Volume(
        await connection.fetchval(_SIZE),
        {row["month"].date(): row["readings"] for row in await connection.fetch(_READINGS)},
        months,
        rate["readings"] / max(days, 1) if days > 0 else 0.0,
        {row["hour"]: row["readings"] for row in recent},
    )


def first_hour(home: Home) -> datetime:
    """The beginning of the first hour of the home of which the readings are shown."""
    local = (home.now - RECENT).astimezone(home.zone)
    return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC) + timedelta(hours=1)


def growth_section(found: Volume, kept_months: int | None) -> Section:
    """The section on growth.

    Args:
        found: What was counted.
        kept_months: Months of readings that retention keeps; None if that is not known here.
    """
    parts: list[Part] = [Text(f"The database has {size(found.bytes)}.")]
    if not found.readings:
        return Section("growth", "Growth", [*parts, skipped("There are no readings yet.")])
    parts.append(_forecast(found, kept_months))
    months = sorted(found.readings)[-24:]
    numbers = [found.readings[month] for month in months]
    parts += [
        charts.bars(
            f"Readings of each month; the newest month has {numbers[-1]:,}, the largest {max(numbers):,}.",
            "Readings of each month (UTC)",
            [f"{month:%Y-%m}" for month in months],
            numbers,
            lambda value: f"{value:,.0f}",
            max(1, len(months) // 6),
        ),
        Table(
            "Readings and size of each month",
            [Column("Month"), Column("Readings", "number"), Column("Size", "number")],
            [
                [
                    f"{month:%Y-%m}",
                    f"{found.readings[month]:,}",
                    size(found.months[month]) if month in found.months else "removed",
                ]
                for month in reversed(months)
            ],
            hidden=True,
        ),
    ]
    return Section("growth", "Growth", parts)


def _forecast(found: Volume, kept_months: int | None) -> Text:
    sizes = [(days, found.forecast(days, kept_months)) for days in _HORIZONS]
    told = ", ".join(f"{size(bytes_)} in {days} days" for days, bytes_ in sizes if bytes_ is not None)
    if not told:
        return Text("There are too few readings for a forecast.")
    kept = f", of which retention keeps {kept_months} months" if kept_months else ""
    return Text(
        f"With {found.daily:,.0f} readings a day, as in the last four weeks{kept}, it will have {told}."
    )


def ingest_section(home: Home, found: Volume) -> Section:
    """The section on the readings of each hour."""
    hours, at = [], first_hour(home)
    while at <= home.now:
        hours.append(at)
        at += timedelta(hours=1)
    numbers = [found.hours.get(hour, 0) for hour in hours]
    without = sum(1 for number in numbers if not number)
    if without == len(numbers):
        return Section("ingest", "Readings by hour", [skipped("No reading is of the last seven days.")])
    total = f"{sum(numbers):,} readings in seven days, {without} of {len(numbers)} hours without any."
    chart = charts.bars(
        f"Readings of each hour of the last seven days. {total}",
        total,
        [f"{local:%a %d}" if (local := hour.astimezone(home.zone)).hour == 0 else "" for hour in hours],
        numbers,
        lambda value: f"{value:,.0f}",
        1,
    )
    table = Table(
        "Readings by day and hour",
        [Column("Day"), *(Column(f"{hour:02}", "number") for hour in range(24))],
        _by_day(home, dict(zip(hours, numbers, strict=True))),
        "heat",
        hidden=True,
    )
    return Section("ingest", "Readings by hour", [chart, table])


def _by_day(home: Home, numbers: Mapping[datetime, int]) -> list[Row]:
    """A row for each day; the two passes of an hour in autumn are one cell."""
    days: dict[date, dict[int, int]] = {}
    for moment, number in numbers.items():
        local = moment.astimezone(home.zone)
        row = days.setdefault(local.date(), {})
        row[local.hour] = row.get(local.hour, 0) + number
    return [
        [f"{day:%a} {day}", *(f"{row[hour]:,}" if hour in row else "–" for hour in range(24))]
        for day, row in days.items()
    ]


def zones_section(home: Home, rows: Sequence[Any]) -> Section:
    """The section on the newest reading of each zone.

    Args:
        home: The home.
        rows: Rows of ``latest_readings``.
    """
    if not rows:
        return Section("zones", "Zones", [skipped("There are no readings yet.")])
    quiet = sum(1 for row in rows if row["timestamp"] < home.now - QUIET)
    table = Table(
        "The newest reading of each zone",
        [
            Column("Room"),
            Column("Zone"),
            Column("State"),
            Column("Time", "time"),
            Column("Age", "time"),
            Column("Note"),
        ],
        [
            [
                home.room(row["room"]),
                row["zone"],
                "occupied" if row["state"] else "vacant",
                home.local(row["timestamp"]),
                ago(row["timestamp"], home.now),
                Cell("no reading for a day", "warning") if row["timestamp"] < home.now - QUIET else "",
            ]
            for row in sorted(rows, key=lambda row: (home.room(row["room"]), row["zone"]))
        ],
    )
    told = f"{len(rows)} zones, {quiet} of them without a reading in the last 24 hours."
    return Section("zones", "Zones", [Text(told), table])


async def find_zones(connection: Any) -> list[Any]:
    """The newest reading of each zone."""
    found: list[Any] = await connection.fetch(_ZONES)
    return found
