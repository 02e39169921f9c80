"""The times of the queries, and the size of the readings on disk."""

import statistics
import time
from datetime import datetime
from typing import Any

from bench import home
from bench.server import Server

QUERIES = {
    "status": "SELECT * FROM room_occupancy_status",
    "stats_day": "SELECT * FROM sensor_reading_stats WHERE hour > now() - interval '24 hours'",
    "last_hour": (
        "SELECT * FROM sensor_readings WHERE room = 'bedroom' AND timestamp > now() - interval '1 hour'"
    ),
    "zone_day": (
        "SELECT * FROM sensor_readings WHERE zone = 'desk_anca' AND timestamp > now() - interval '1 day'"
    ),
    "distribution": (
        "SELECT * FROM predictions WHERE probability_distribution @> '[{\"probability\": 0.75}]'"
    ),
}

RUNS = 21
_WARM = 2
# A query that takes seconds is run less often.
_ENOUGH_SECONDS = 15.0
_ENOUGH_RUNS = _WARM + 2

SIZE = """
SELECT coalesce(sum(pg_table_size(oid)) FILTER (WHERE readings), 0)::bigint AS tables,
       coalesce(sum(pg_indexes_size(oid)) FILTER (WHERE readings), 0)::bigint AS indexes,
       coalesce(sum(pg_total_relation_size(oid)) FILTER (WHERE NOT readings), 0)::bigint AS hourly_sums
FROM (
    SELECT oid, relname LIKE 'sensor\\_readings%' AS readings, relnamespace FROM pg_class WHERE relkind = 'r'
) AS stored
WHERE readings OR relnamespace = to_regnamespace('hourly')
"""

PREDICTION_COLUMNS = (
    *("prediction_made_at", "room", "prediction_type", "confidence", "probability", "horizon_minutes"),
    "probability_distribution",
)


async def add_predictions(server: Server, database: str, end: datetime) -> None:
    """Insert the predictions."""
    connection = await server.connect(database)
    try:
        await connection.copy_records_to_table(
            "predictions", records=home.predictions(end), columns=PREDICTION_COLUMNS
        )
    finally:
        await connection.close()


async def size(server: Server, database: str) -> dict[str, int]:
    """Return the bytes of the readings: tables with TOAST and maps, indexes, hourly sums."""
    connection = await server.connect(database)
    try:
        return dict(await connection.fetchrow(SIZE))
    finally:
        await connection.close()


async def measure(server: Server, databases: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Run the queries in the databases alternately, so that a disturbance affects all of them.

    Each is sent as a plain statement, so planning is part of it, and its rows arrive.

    Returns:
        By query and database: the median, least and most milliseconds, and how many runs.
    """
    connections = {database: await server.connect(database) for database in databases}
    try:
        return {name: await _alternate(connections, query) for name, query in QUERIES.items()}
    finally:
        for connection in connections.values():
            await connection.close()


async def _alternate(connections: dict[str, Any], query: str) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {database: [] for database in connections}
    for _ in range(_WARM + RUNS):
        for database, connection in connections.items():
            taken = times[database]
            if len(taken) >= _ENOUGH_RUNS and sum(taken) > _ENOUGH_SECONDS:
                continue
            start = time.perf_counter()
            await connection.execute(query)
            taken.append(time.perf_counter() - start)
    return {database: _summary(taken[_WARM:]) for database, taken in times.items()}


def _summary(seconds: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(seconds) * 1000, 3),
        "least_ms": round(min(seconds) * 1000, 3),
        "most_ms": round(max(seconds) * 1000, 3),
        "runs": len(seconds),
    }
