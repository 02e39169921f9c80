"""Compare sets of indexes on the readings, by the queries of clients.

    make bench-indexes                                 # ten million rows, one year
    python -m bench.indexes --rows 100000000 --orders live --sets A+active --ingested 0

Two databases hold the same readings in monthly partitions: ``live`` in the order of time, as live readings
are stored, and ``imported`` in the order of zones, as an import stores a month. ``manual`` has the manual's
schema and at most ten million rows. The indexes of all sets exist; those of other sets are hidden from the
planner. Then batches are copied into a month of each set and into the manual's table alternately. The results
are written to ``.cache/bench/indexes-ROWS.json`` after each set.
"""

import argparse
import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import home, index_sets, readers
from bench.index_sets import INDEXES, INGESTED, SETS, STATISTICS, TABLE, YEAR, Place
from bench.place import CACHE, machine, step, workplace
from bench.server import Server
from occupancy_db.server import tuning

LIMITS = {"cpus": "2", "memory": "6g", "shm-size": "1g"}
BATCH, TURN = 5_000, 100_000
_BYTES_PER_ROW = 450
MANUAL = "manual"


async def ingest(place: Place, rows: int) -> dict[str, Any]:
    """Copy the same batches into a month of each set and into the manual's table, alternately."""
    await place.server.create_database("ingest")
    connection, theirs = await place.server.connect("ingest"), await place.server.connect(MANUAL)
    await connection.execute(TABLE % 1)
    tables = {name: f"m{number}_1" for number, name in enumerate(INGESTED)}
    for name, table in tables.items():
        await connection.execute(
            f"CREATE TABLE {table} (LIKE sensor_readings INCLUDING CONSTRAINTS INCLUDING DEFAULTS);"
            f"CREATE SEQUENCE {table}_ids CACHE 32;"
            f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('{table}_ids')"
        )
        for index in INGESTED[name]:
            await connection.execute(index_sets.create_index(table, index))
    seconds = dict.fromkeys([*tables, MANUAL], 0.0)
    records = list(home.records(-(-rows // home.PIECE) * home.PIECE, place.end))[:rows]
    for first in range(0, rows, TURN):
        for name in seconds:
            target, table = (connection, tables[name]) if name in tables else (theirs, "sensor_readings")
            start = time.perf_counter()
            for n in range(first, first + TURN, BATCH):
                await target.copy_records_to_table(
                    table, records=records[n : n + BATCH], columns=home.COLUMNS
                )
            seconds[name] += time.perf_counter() - start
    sizes = {
        row["relname"]: round(row["bytes"] / rows, 1)
        for row in await connection.fetch(
            "SELECT relname, pg_relation_size(oid) AS bytes FROM pg_class WHERE relkind IN ('r', 'i')"
        )
    }
    await connection.close()
    await theirs.close()
    return {
        name: {
            "rows_per_s": round(rows / taken),
            "vs_manual": round(seconds[MANUAL] / taken, 2),
            "bytes": {"heap": sizes[tables[name]]}
            | {index: sizes[f"{tables[name]}_{index}"] for index in INGESTED[name]}
            if name in tables
            else {},
        }
        for name, taken in seconds.items()
    }


async def compare(place: Place, work: Path, given: argparse.Namespace) -> None:
    """Build the databases, run the queries with each set, and copy batches."""
    details: dict[str, Any] = {"rows": place.rows, "date": f"{place.end}", "machine": machine()}
    await place.server.create_owner()
    file = work / "year.csv"
    with step(f"{place.generated:,} rows as CSV"):
        home.write(file, place.generated, 0, place.end)
    for database in ("live", "imported", MANUAL):
        await index_sets.create(place, database)
    await index_sets.fill(place, file)
    file.unlink()
    orders: list[str] = given.orders
    if "imported" in orders:
        with step("imported: the same rows in the order of zones"):
            await index_sets.reorder(place)
    used = [index for index in INDEXES if any(index in SETS[name] for name in given.sets)]
    for database in orders:
        with step(f"{database}: indexes"):
            details.setdefault("build_s", {})[database] = await index_sets.build(place, database, used)
            details.setdefault("bytes", {})[database] = await index_sets.bytes_per_row(place, database)
    await place.server.settle(*orders, MANUAL)
    sets = details["sets"] = {}
    for name in given.sets:
        for database in orders:
            await index_sets.show_only(place, database, SETS[name])
        with step(f"{name}: queries"):
            sets[name] = await readers.ask(place.server, [*orders, MANUAL], place.end)
        save(details)
    if given.statistics:
        for database in orders:
            await place.server.administer(STATISTICS, "ANALYZE sensor_readings", database=database)
        with step("extended statistics: queries"):
            sets[f"{given.sets[-1]}+statistics"] = await readers.ask(
                place.server, [*orders, MANUAL], place.end
            )
        save(details)
    if given.ingested:
        with step(f"{given.ingested:,} rows in batches of {BATCH:,} for each set"):
            details["ingest"] = await ingest(place, given.ingested)
        save(details)


def save(details: dict[str, Any]) -> None:
    """Write what was measured so far."""
    path = CACHE / f"indexes-{details['rows']}.json"
    path.write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="bench.indexes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=YEAR, help=f"at most {YEAR:,}, or a multiple of that")
    parser.add_argument("--orders", nargs="+", default=["live", "imported"], choices=["live", "imported"])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--statistics", action="store_true", help="repeat the last set with statistics")
    parser.add_argument("--ingested", type=int, default=8 * TURN, help=f"a multiple of {TURN:,}")
    given = parser.parse_args()
    end = datetime.now(UTC).replace(microsecond=0)
    plan = tuning.plan(tuning.Request(cores=2, memory=4096))
    settings = {setting.name: str(setting) for setting in plan.settings} | {"huge_pages": "off"}
    needed = given.rows * _BYTES_PER_ROW * len(given.orders) + min(given.rows, YEAR) * _BYTES_PER_ROW
    with (
        workplace((needed >> 30) + 6) as work,
        Server(work, LIMITS, settings, name="occupancy-bench-indexes") as server,
    ):
        asyncio.run(compare(Place(server, given.rows, end), work, given))


if __name__ == "__main__":
    main()
