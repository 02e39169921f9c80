"""What the checks ask the server. The user of these queries is `occupancy_monitor`, who sees no names."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import asyncpg

from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError, explain
from occupancy_db.history.clock import STATE, ClockState, clock_state
from occupancy_db.schema import position
from occupancy_db.settings import Settings

WEEKS = 4
"""The same hour of so many weeks says what is usual."""

_STATEMENTS_DATABASE = "postgres"
_HOUR = timedelta(hours=1)
_APPLICATION = "occupancy-db status"
_SETTINGS = {"timezone": "UTC", "statement_timeout": "10s", "lock_timeout": "1s"}


@dataclass(frozen=True)
class Schema:
    """The revision of the database.

    Attributes:
        revision: The revision; None if no migration has been applied.
        head: The newest one of this release.
        known: Whether this release works with it.
        pending: How many migrations of this release are not applied.
    """

    revision: str | None
    head: str
    known: bool
    pending: int


@dataclass(frozen=True)
class Ingest:
    """Readings of the last 60 minutes; `usual` is None without a week of history."""

    rows: int
    usual: float | None


@dataclass(frozen=True)
class Silent:
    """The number of silent sensors, and the longest silence in seconds; None if one has never sent."""

    count: int
    longest: float | None


@dataclass(frozen=True)
class Connections:
    """Connections that are used, and their limit, of the server and of each user.

    Attributes:
        used: All connections of clients.
        limit: How many users other than superusers can have.
        users: Used connections and limit by name; only of users with a limit.
    """

    used: int
    limit: int
    users: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Lifted:
    """What users have set for themselves.

    Attributes:
        settings: For each user the settings of its sessions, as (database or None, parameter=value).
        limits: For each user the limit of its connections.
        sessions: For each user the sessions that are idle in a transaction, in seconds.
    """

    settings: dict[str, set[tuple[str | None, str]]]
    limits: dict[str, int]
    sessions: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What the server has answered. A fact is None if it was not asked, or could not be answered.

    Attributes:
        unreachable: Why there is no connection; empty if there is one.
        problems: Why a fact could not be answered, by its name.
        version: Version of the server.
        rows_since: Number of readings since the moment that was asked about.
        slow: Mean seconds of the slowest statements of clients.
    """

    unreachable: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    version: str = ""
    schema: Schema | None = None
    ingest: Ingest | None = None
    silent: Silent | None = None
    stale_zones: int | None = None
    rows_since: int | None = None
    clock: ClockState | None = None
    connections: Connections | None = None
    lifted: Lifted | None = None
    slow: tuple[float, ...] | None = None


async def gather(settings: Settings, since: datetime | None) -> Facts:
    """Ask the server. Whatever it answers, or if it does not, is in the result.

    Args:
        settings: The database.
        since: The moment of the newest verified backup set, to count the readings after it; None: not asked.
    """
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    try:
        async with connect_driver(settings, _APPLICATION, _SETTINGS) as connection:
            found["version"] = await connection.fetchval("SHOW server_version")
            for name, question in _QUESTIONS.items():
                await _ask(name, question(connection), found, problems)
            if since:
                await _ask("rows_since", _rows_since(connection, since), found, problems)
        await _ask("slow", _slow(settings), found, problems)
    except (DatabaseError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Facts(unreachable=_reason(error))
    return Facts(problems=problems, **found)


async def _ask(name: str, answer: Awaitable[Any], found: dict[str, Any], problems: dict[str, str]) -> None:
    """Keep an answer, or why there is none. A lost connection is raised."""
    try:
        found[name] = await answer
    except asyncpg.UndefinedTableError as error:
        problems[name] = f"the database has not everything that this release has: {error}"
    except asyncpg.QueryCanceledError:
        problems[name] = "the server took too long to answer"
    except (DatabaseError, asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError) as error:
        problems[name] = _reason(error)
    except position.UnclearError:
        problems[name] = "the revisions of this release are not one chain"


def _reason(error: Exception) -> str:
    known = explain(error)
    return known.what if known else (str(error) or type(error).__name__)


async def _schema(connection: Any) -> Schema:
    at = await position.find(connection)
    ids = position.chain()
    pending = 0
    if not at.ahead and at.known:
        pending = len(ids) - (ids.index(at.revision) + 1 if at.revision else 0)
    return Schema(at.revision, at.head, at.known, pending)


async def _ingest(connection: Any) -> Ingest:
    rows = await connection.fetchrow(
        "SELECT now() AS now, count(*) AS rows FROM public.sensor_readings "
        "WHERE timestamp > now() - interval '1 hour' AND timestamp <= now()"
    )
    first = await connection.fetchval("SELECT min(hour) FROM hourly.sums")
    starts = [rows["now"] - timedelta(weeks=week) - _HOUR for week in range(1, WEEKS + 1)]
    starts = [start for start in starts if first and start >= first]
    hours = [_hour(start) + later for start in starts for later in (timedelta(), _HOUR)]
    sums = await connection.fetch(
        "SELECT hour, sum(reading_count)::bigint AS rows FROM hourly.sums WHERE hour = ANY($1) GROUP BY hour",
        hours,
    )
    return Ingest(rows["rows"], usual(starts, {row["hour"]: row["rows"] for row in sums}))


def usual(starts: Iterable[datetime], sums: dict[datetime, int]) -> float | None:
    """The usual number of readings in 60 minutes, from the sums of the two hours that each of them touches.

    Args:
        starts: The starts of the same 60 minutes of earlier weeks.
        sums: Readings by hour; a missing hour has none.

    Returns:
        The median of the weeks, or None without any.
    """
    weeks = []
    for start in starts:
        share = (start - _hour(start)) / _HOUR
        weeks.append(sums.get(_hour(start), 0) * (1 - share) + sums.get(_hour(start) + _HOUR, 0) * share)
    return median(weeks) if weeks else None


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


async def _silent(connection: Any) -> Silent:
    row = await connection.fetchrow(
        "SELECT count(*) AS silent, extract(epoch FROM max(silence)) AS longest, "
        "count(*) - count(silence) AS never FROM public.silent_sensors"
    )
    longest = row["longest"]
    return Silent(row["silent"], None if row["never"] or longest is None else float(longest))


async def _stale_zones(connection: Any) -> int:
    # A zone that was given up is not stale for ever.
    found = await connection.fetchval(
        "SELECT count(*) FROM public.latest_readings "
        "WHERE timestamp < now() - interval '24 hours' AND timestamp > now() - interval '30 days'"
    )
    return int(found)


async def _rows_since(connection: Any, since: datetime) -> int:
    """Closed hours from their sums, the first and the open hours from the readings."""
    found = await connection.fetchval(
        """
        WITH edge AS (
            SELECT $1::timestamptz AS since, date_bin('1 hour', $1, 'epoch') + interval '1 hour' AS next,
                   greatest(closed_before, date_bin('1 hour', $1, 'epoch') + interval '1 hour') AS closed
            FROM hourly.watermark
        )
        SELECT (SELECT coalesce(sum(reading_count), 0) FROM hourly.sums
                WHERE hour >= (SELECT next FROM edge) AND hour < (SELECT closed FROM edge))
             + (SELECT count(*) FROM public.sensor_readings
                WHERE timestamp >= (SELECT since FROM edge) AND timestamp < (SELECT next FROM edge))
             + (SELECT count(*) FROM public.sensor_readings
                WHERE timestamp >= (SELECT closed FROM edge) AND timestamp <= 'infinity')
        """,
        since,
    )
    return int(found)


async def _clock(connection: Any) -> ClockState:
    return clock_state(await connection.fetchrow(STATE))


async def _connections(connection: Any) -> Connections:
    limit = await connection.fetchval(
        "SELECT current_setting('max_connections')::int - current_setting('reserved_connections')::int "
        "- current_setting('superuser_reserved_connections')::int"
    )
    rows = await connection.fetch(
        "SELECT rolname, rolconnlimit, count(pid) AS used FROM pg_roles "
        "LEFT JOIN pg_stat_activity ON usesysid = pg_roles.oid AND backend_type = 'client backend' "
        "WHERE rolcanlogin GROUP BY rolname, rolconnlimit"
    )
    users = {row["rolname"]: (row["used"], row["rolconnlimit"]) for row in rows if row["rolconnlimit"] > 0}
    return Connections(sum(row["used"] for row in rows), limit, users)


async def _lifted(connection: Any) -> Lifted:
    settings: dict[str, set[tuple[str | None, str]]] = {}
    for row in await connection.fetch(
        "SELECT rolname, datname, unnest(setconfig) AS setting FROM pg_db_role_setting "
        "JOIN pg_roles ON pg_roles.oid = setrole LEFT JOIN pg_database ON pg_database.oid = setdatabase"
    ):
        settings.setdefault(row["rolname"], set()).add((row["datname"], row["setting"]))
    limits = await connection.fetch("SELECT rolname, rolconnlimit FROM pg_roles WHERE rolcanlogin")
    sessions: dict[str, list[float]] = {}
    for row in await connection.fetch(
        "SELECT usename, extract(epoch FROM clock_timestamp() - state_change)::float8 AS idle "
        "FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
        "AND NOT EXISTS (SELECT FROM pg_database WHERE datdba = usesysid)"
    ):
        sessions.setdefault(row["usename"], []).append(row["idle"])
    return Lifted(settings, {row["rolname"]: row["rolconnlimit"] for row in limits}, sessions)


async def _slow(settings: Settings) -> tuple[float, ...]:
    """Backups, restores, migrations and the superuser are slow by nature."""
    database = settings.model_copy(
        update={"postgres_db": _STATEMENTS_DATABASE, "postgres_test_db": _STATEMENTS_DATABASE}
    )
    async with connect_driver(database, _APPLICATION, _SETTINGS) as connection:
        rows = await connection.fetch(
            "SELECT mean_exec_time / 1000 AS mean FROM pg_stat_statements AS statement "
            "JOIN pg_roles ON pg_roles.oid = userid "
            "WHERE NOT rolsuper AND NOT EXISTS (SELECT FROM pg_database WHERE datdba = userid) "
            "AND rolname NOT IN ('occupancy_backup', 'occupancy_restore') AND calls >= 3 "
            "ORDER BY mean_exec_time DESC LIMIT 1000"
        )
    return tuple(row["mean"] for row in rows)


_QUESTIONS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "schema": _schema,
    "ingest": _ingest,
    "silent": _silent,
    "stale_zones": _stale_zones,
    "clock": _clock,
    "connections": _connections,
    "lifted": _lifted,
}
"""A query for each fact, by the name of its attribute."""
