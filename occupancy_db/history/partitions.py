"""The partitions of ``sensor_readings``: their bounds and the statements that make them."""

from datetime import date

from occupancy_db.months import TABLE, following


def bounds(month: date) -> tuple[str, str]:
    """The first moment of a month and of the one after it, as SQL literals without quotes."""
    return f"{month} 00:00:00+00", f"{following(month)} 00:00:00+00"


def create_standalone(name: str, month: date) -> str:
    """The statement that makes an empty table for one month, not yet a partition, without indexes.

    Nobody else sees or waits for it. Its constraint says what the partition's bounds will say, so that ATTACH
    need not read it.

    Args:
        name: What to call it.
        month: The first day of its month.
    """
    since, until = bounds(month)
    return f"""
        CREATE TABLE {name} (
            LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE,
            CONSTRAINT bounds CHECK (timestamp >= '{since}' AND timestamp < '{until}')
        )
    """


def prepare(name: str) -> str:
    """The statement that gives a stand-alone table the keys, indexes, defaults and triggers it needs."""
    return f"SELECT hourly.prepare_partition('{name}')"


def attach(name: str, month: date) -> str:
    """The statement that makes a prepared table a partition.

    It takes SHARE UPDATE EXCLUSIVE on the table, beside which everybody reads and writes on, where CREATE
    TABLE … PARTITION OF would take ACCESS EXCLUSIVE. Drop the constraint ``bounds`` afterwards.
    """
    since, until = bounds(month)
    return f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')"
