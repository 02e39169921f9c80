"""The monthly partitions of ``sensor_readings``: their names, and the timestamps that are accepted.

Each month of the UTC calendar has a partition. There is no DEFAULT partition: a reading without a month is an
error, and partitions cannot be detached concurrently from a table that has one.
"""

from datetime import UTC, date, datetime, timedelta

TABLE = "sensor_readings"

MONTHS_AHEAD = 3
"""How many months after the present one have partitions in advance, unless told otherwise."""

MONTHS_BACK = 12
"""How many months before the present one have partitions for late history, unless told otherwise."""

EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
"""The earliest timestamp that is accepted. A clock that was never set reads 1970."""

AHEAD = timedelta(days=100)
"""How far a timestamp may be ahead of this machine's clock, which may be the one that is wrong.

The partitions that upkeep creates hold readings for about as long. The views of the present leave readings
out until they are due.
"""

MARGIN = timedelta(days=2)
"""What retention keeps longer than it was told to, and the longest silence that is no contradiction.

A clock that is ahead by less than the margin removes nothing early. Revision 009 has the same number.
"""

TOLERANCE = timedelta(minutes=5)
"""How far two clocks may be apart, because clocks are adjusted all the time."""


def month_of(timestamp: datetime) -> date:
    """The first day of the UTC month of a timestamp.

    Args:
        timestamp: With a time zone.
    """
    return timestamp.astimezone(UTC).date().replace(day=1)


def following(month: date, months: int = 1) -> date:
    """The month that is a number of months later, or earlier if the number is negative."""
    number = month.year * 12 + month.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def partition_name(month: date) -> str:
    """The name of a month's partition, ``sensor_readings_2026_11``; it needs no quoting in SQL."""
    return f"{TABLE}_{month:%Y_%m}"


def absurd(timestamp: datetime, now: datetime) -> str | None:
    """Why a timestamp is not accepted, or None if it is.

    Args:
        timestamp: The timestamp of a reading, with a time zone.
        now: The present, with a time zone.
    """
    if timestamp < EARLIEST:
        return f"timestamp {timestamp:%Y-%m-%d %H:%M} is before {EARLIEST:%Y-%m-%d}: was the clock set?"
    if timestamp > now + AHEAD:
        return f"timestamp {timestamp:%Y-%m-%d %H:%M} is in the future: is the sensor's clock right?"
    return None
