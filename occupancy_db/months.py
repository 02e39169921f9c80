"""The months of ``sensor_readings``: their names and which timestamps they may hold.

A month of the UTC calendar is a partition. There is no DEFAULT partition: what belongs to no month is an
error of its own, and a default partition would forbid to detach another concurrently.
"""

from datetime import UTC, date, datetime, timedelta

TABLE = "sensor_readings"

EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
"""No presence sensor wrote readings before; a clock that was never set says 1970."""

AHEAD = timedelta(days=1)
"""How far a sensor's clock may run ahead of ours."""

HOURS_LOCK = int.from_bytes(b"occhours")
"""The advisory lock of the hourly sums. Who brings readings into closed hours shares it, until the end of the
transaction that marks them; the triggers of a partition do so by themselves (migration 004)."""


def month_of(timestamp: datetime) -> date:
    """The first day of the UTC month that a moment belongs to.

    Args:
        timestamp: With a time zone.
    """
    return timestamp.astimezone(UTC).date().replace(day=1)


def following(month: date, months: int = 1) -> date:
    """The month so many months later (or earlier, if negative)."""
    number = month.year * 12 + month.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def partition_name(month: date) -> str:
    """The name of a month's partition, ``sensor_readings_2026_11``; it fits into SQL as it stands."""
    return f"{TABLE}_{month:%Y_%m}"


def absurd(timestamp: datetime, now: datetime) -> str | None:
    """Why a reading cannot be from that moment, or None if it can.

    Args:
        timestamp: The reading's, with a time zone.
        now: The present, with a time zone.
    """
    if timestamp < EARLIEST:
        return f"timestamp {timestamp:%Y-%m-%d %H:%M} is before {EARLIEST:%Y-%m-%d}: was the clock set?"
    if timestamp > now + AHEAD:
        return f"timestamp {timestamp:%Y-%m-%d %H:%M} is in the future: is the sensor's clock right?"
    return None
