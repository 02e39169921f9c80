"""``occupancy-db seed``."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from occupancy_db.cli.options import refuse_in_production
from occupancy_db.cli.output import Json, out
from occupancy_db.cli.progress import progress
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.seed import COLUMNS, generate
from occupancy_db.rooms import Rooms, load_rooms
from occupancy_db.settings import Settings

BATCH = 5000

TAKEN = """
    SELECT EXISTS (SELECT FROM sensor_readings WHERE timestamp BETWEEN $1 AND $2)
        OR EXISTS (SELECT FROM room_transitions WHERE timestamp BETWEEN $1 AND $2)
        OR EXISTS (SELECT FROM predictions WHERE prediction_made_at BETWEEN $1 AND $2)
"""


def seed(
    days: Annotated[int, typer.Option(min=1, max=180, metavar="NUMBER", help="Days of data.")] = 7,
    number: Annotated[
        int, typer.Option("--seed", metavar="NUMBER", help="Seed of the random generator.")
    ] = 42,
    until: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME", help="End of the data in UTC, as 2026-11-20T10:00:00; default: the current hour."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fill a development database with generated data.

    The same --days, --seed and --until generate the same rows. The command is refused in production, and if
    the tables already hold rows of that time. Rows of a room after its retirement are left out.
    """
    settings = Settings()
    refuse_in_production(settings, "seed writes generated data")
    end = until or datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    asyncio.run(_seed(settings, days, number, end))


async def _seed(settings: Settings, days: int, number: int, until: datetime) -> None:
    start = until - timedelta(days=days)
    async with connect_driver(settings, "occupancy-db seed") as connection:
        if await connection.fetchval(TAKEN, start, until):
            raise DatabaseError(
                ExitCode.REFUSED,
                f"{settings.where} already holds rows between {start:%F %R} and {until:%F %R} UTC",
                "Choose another --until, or empty the database with 'occupancy-db reset'.",
            )
        rooms = await load_rooms(connection)
        generated = vars(generate(days, number, until))
        tables = {
            table: [row for row in rows if _fits(table, row, rooms)] for table, rows in generated.items()
        }
        counts = {table: len(rows) for table, rows in tables.items()}
        with progress("rows") as bar:
            async with connection.transaction():  # all rows or none
                for table, rows in tables.items():
                    done = 0
                    for batch in _batches(rows):
                        await connection.copy_records_to_table(table, records=batch, columns=COLUMNS[table])
                        done += len(batch)
                        bar(table, done, len(rows))
    data = {
        "database": settings.database,
        "start": start.isoformat(),
        "until": until.isoformat(),
        "seed": number,
        "rows": counts,
    }
    out.result(data, *(f"{count:,} rows into {table}" for table, count in counts.items()))


def _fits(table: str, row: tuple[Any, ...], rooms: Rooms) -> bool:
    """Whether the database has the rooms of a row, and they are in use at its time."""
    values = dict(zip(COLUMNS[table], row, strict=True))
    moment = row[0]
    return all(
        room in rooms and rooms.retirement_problem(room, moment) is None
        for name in ("room", "from_room", "to_room")
        if (room := values.get(name)) is not None
    )


def _batches(rows: Any) -> Iterator[list[tuple[Any, ...]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch
