"""The partitions of ``sensor_readings``: their bounds, and the statements that create them."""

from datetime import date

from occupancy_db.months import TABLE, following


def bounds(month: date) -> tuple[str, str]:
    """Return the start of a month and of the next one, as SQL literals without quotes."""
    return f"{month} 00:00:00+00", f"{following(month)} 00:00:00+00"


def create_standalone(name: str, month: date) -> str:
    """Return the statement that creates an empty table for one month, without indexes, and not yet attached.

    No other session can wait for it. Its CHECK constraint equals the later bounds of the partition, so that
    ATTACH PARTITION need not scan it.

    Args:
        name: Name of the table.
        month: First day of the month.
    """
    since, until = bounds(month)
    return f"""
        CREATE TABLE {name} (
            LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE,
            CONSTRAINT bounds CHECK (timestamp >= '{since}' AND timestamp < '{until}')
        )
    """


def prepare(name: str) -> str:
    """Return the statement that adds the keys, indexes, defaults and triggers of a partition to a table."""
    return f"SELECT hourly.prepare_partition('{name}')"


def attach(name: str, month: date) -> str:
    """Return the statement that attaches a prepared table as a partition.

    It takes SHARE UPDATE EXCLUSIVE on the partitioned table, which does not block clients; CREATE TABLE …
    PARTITION OF would take ACCESS EXCLUSIVE. The constraint ``bounds`` can be dropped afterwards.

    Args:
        name: Name of the table.
        month: First day of the month.
    """
    since, until = bounds(month)
    return f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')"
