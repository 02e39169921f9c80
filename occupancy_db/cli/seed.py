"""``occupancy-db seed``."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import text

from occupancy_db.cli.options import refuse_in_production
from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.seed import COLUMNS, generate
from occupancy_db.settings import Settings

BATCH = 5000

TAKEN = text("""
    SELECT EXISTS (SELECT FROM sensor_readings WHERE timestamp BETWEEN :start AND :until)
        OR EXISTS (SELECT FROM room_transitions WHERE timestamp BETWEEN :start AND :until)
        OR EXISTS (SELECT FROM predictions WHERE prediction_made_at BETWEEN :start AND :until)
""")


def seed(
    days: Annotated[int, typer.Option(min=1, max=180, help="How many days of data.")] = 7,
    number: Annotated[int, typer.Option("--seed", help="Another number gives other data.")] = 42,
    until: Annotated[
        datetime | None, typer.Option(help="Where the data ends, UTC; now, to the full hour, if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Fill in development data; refused in production, and where the time already holds rows.

    The same --days, --seed and --until give the same rows.
    """
    settings = Settings()
    refuse_in_production(settings, "seed writes invented data")
    end = until or datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    asyncio.run(_seed(settings, days, number, end))


async def _seed(settings: Settings, days: int, number: int, until: datetime) -> None:
    start = until - timedelta(days=days)
    async with connect(settings, "occupancy-db seed") as connection:
        if await connection.scalar(TAKEN, {"start": start, "until": until}):
            raise DatabaseError(
                ExitCode.REFUSED,
                f"{settings.where} already holds rows between {start:%F %R} and {until:%F %R} UTC",
                "Choose another --until, or empty the database with 'occupancy-db reset'.",
            )
        await connection.rollback()
        tables = vars(generate(days, number, until))
        counts = {table: len(rows) for table, rows in tables.items()}
        # COPY is the driver's, and so is its transaction: all rows or none.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        progress = Progress(console=Console(stderr=True), disable=out.json or not sys.stderr.isatty())
        with progress:
            async with driver.transaction():
                for table, rows in tables.items():
                    for batch in _batches(progress.track(rows, description=table)):
                        await driver.copy_records_to_table(table, records=batch, columns=COLUMNS[table])
    data = {
        "database": settings.database,
        "start": start.isoformat(),
        "until": until.isoformat(),
        "seed": number,
        "rows": counts,
    }
    out.result(data, *(f"{count:,} rows into {table}" for table, count in counts.items()))


def _batches(rows: Any) -> Iterator[list[tuple[Any, ...]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch
