"""The times of the clients' queries, literal and prepared, and of single rows written by the ORM."""

import json
import statistics
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker

from bench import home, manual
from bench.questions import BUSY_ROOM, BUSY_ZONE, QUESTIONS, Known, Question
from bench.server import Server
from occupancy_db.connection import create_engine

LITERAL, PREPARED, GENERIC = "literal", "prepared", "generic"
KINDS = (LITERAL, PREPARED, GENERIC)
"""A statement with literals; a prepared one, whose plan is generic after five executions where PostgreSQL
prefers that; and a prepared one with a forced generic plan."""
_PLAN_CACHE = {PREPARED: "auto", GENERIC: "force_generic_plan"}

_WARM = {LITERAL: 1, PREPARED: 6, GENERIC: 1}
_RUNS = 7
_ENOUGH_SECONDS = 2.0
_ENOUGH_RUNS = 3

_CREATED = 200
_CREATED_AT_ONCE = 20

Answers = dict[str, dict[str, Any]]
"""By question, then by database and kind: milliseconds, buffers and scans."""


class Asker:
    """A connection that runs the queries in one database."""

    def __init__(self, connection: Any, end: datetime) -> None:
        """Args: connection: of asyncpg; end: the time of the newest reading."""
        self.connection = connection
        self._end = end
        self._known: dict[Known, Any] = {}
        self._prepared = 0

    async def look_up(self) -> None:
        """Look up the parameters that differ between databases."""
        fetch = self.connection.fetchval
        newest = "SELECT {} FROM sensor_readings {} ORDER BY timestamp DESC LIMIT 1"
        old = self._end - timedelta(days=16)
        newest_id = await fetch(newest.format("id", ""))
        self._known = {
            Known.MOMENT: await fetch(
                newest.format("timestamp", "WHERE room = $1 AND zone = $2"), BUSY_ROOM, BUSY_ZONE
            ),
            # A short history has no reading that is so old.
            Known.OLD_ID: await fetch(newest.format("id", "WHERE timestamp < $1"), old) or newest_id,
            Known.NEW_ID: newest_id,
        }

    async def statement(self, question: Question, kind: str) -> str:
        """Return the statement to send; a prepared one is prepared now."""
        values = question.values(self._end, self._known)
        if kind == LITERAL:
            return question.literal(values)
        self._prepared += 1
        name = f"question_{self._prepared}"
        types = f"({question.types})" if question.types else ""
        await self.connection.execute(
            f"SET plan_cache_mode = {_PLAN_CACHE[kind]}; PREPARE {name}{types} AS {question.sql}"
        )
        return f"EXECUTE {name}({', '.join(values)})" if values else f"EXECUTE {name}"

    async def time(self, statement: str) -> float:
        """Run a statement and receive its rows; returns seconds."""
        start = time.perf_counter()
        await self.connection.execute(statement)
        return time.perf_counter() - start

    async def explain(self, statement: str) -> dict[str, Any]:
        """Return the buffers that a statement reads, without those of planning, and its scans."""
        text = await self.connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
        )
        plan = json.loads(text)[0]["Plan"]
        return {
            "buffers": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            "scans": sorted(_scans(plan)),
        }


def _scans(node: dict[str, Any]) -> set[str]:
    found = set()
    if node.get("Actual Loops") and ("Scan" in node["Node Type"] or node["Node Type"].startswith("Gather")):
        found.add(node["Node Type"])
    return found.union(*(_scans(child) for child in node.get("Plans", [])))


async def ask(server: Server, databases: Iterable[str], end: datetime) -> Answers:
    """Run all queries in the databases alternately, so that a disturbance affects all of them.

    Args:
        server: The server.
        databases: Names of databases with readings.
        end: The time of the newest reading.
    """
    askers = {database: Asker(await server.connect(database), end) for database in databases}
    try:
        for asker in askers.values():
            await asker.look_up()
        return {
            name: {
                f"{database} {kind}": answer
                for kind in KINDS
                for database, answer in (await _alternate(askers, question, kind)).items()
            }
            for name, question in QUESTIONS.items()
        }
    finally:
        for asker in askers.values():
            await asker.connection.close()


async def _alternate(askers: dict[str, Asker], question: Question, kind: str) -> dict[str, dict[str, Any]]:
    statements = {database: await asker.statement(question, kind) for database, asker in askers.items()}
    times: dict[str, list[float]] = {database: [] for database in askers}
    for run in range(_WARM[kind] + _RUNS):
        for database, statement in statements.items():
            taken = times[database]
            if len(taken) >= _ENOUGH_RUNS and sum(taken) > _ENOUGH_SECONDS and kind != PREPARED:
                continue
            seconds = await askers[database].time(statement)
            if run >= _WARM[kind]:
                taken.append(seconds)
    return {
        database: {
            "ms": round(statistics.median(times[database]) * 1000, 3),
            **await askers[database].explain(statement),
        }
        for database, statement in statements.items()
    }


async def create_rows(
    server: Server, databases: tuple[str, str], end: datetime
) -> dict[str, dict[str, float]]:
    """Create single rows by the ORM, commit each, and read it again by its id, alternately in both databases.

    The model is the manual's: it maps rooms as strings and its key is ``id``.

    Args:
        server: The server.
        databases: Names of databases with readings.
        end: The time of the newest reading.

    Returns:
        By database: median, least and most milliseconds of one row.
    """
    engines = {database: create_engine(server.settings(database)) for database in databases}
    rows = list(home.records(home.PIECE, end))[:_CREATED]
    times: dict[str, list[float]] = {database: [] for database in databases}
    try:
        for first in range(0, _CREATED, _CREATED_AT_ONCE):
            for database, engine in engines.items():
                async with async_sessionmaker(engine)() as session:
                    for row in rows[first : first + _CREATED_AT_ONCE]:
                        reading = manual.SensorReading(**dict(zip(home.COLUMNS, row, strict=True)))
                        reading.timestamp = datetime.now(UTC)
                        start = time.perf_counter()
                        session.add(reading)
                        await session.commit()
                        await session.refresh(reading)
                        times[database].append(time.perf_counter() - start)
    finally:
        for engine in engines.values():
            await engine.dispose()
    return {
        database: {
            "median_ms": round(statistics.median(taken[_CREATED_AT_ONCE:]) * 1000, 3),
            "least_ms": round(min(taken) * 1000, 3),
            "most_ms": round(max(taken[_CREATED_AT_ONCE:]) * 1000, 3),
        }
        for database, taken in times.items()
    }
