"""When rooms are occupied: by weekday and hour, and on the last two days."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

from occupancy_db.report import charts
from occupancy_db.report.home import Home
from occupancy_db.report.parts import Cell, Column, Part, Row, Section, Table, Text, duration, skipped

_QUARTER = timedelta(minutes=15)
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_STEPS = 10
_NAMED = 12
"""Spans of a row that its text alternative names."""

_HEAT = """
    SELECT room, extract(isodow FROM day)::integer AS weekday, extract(hour FROM local_hour)::integer AS hour,
           sum(occupied_seconds) AS seconds
    FROM occupied_room_local_hours
    WHERE day >= $1 AND day <= $2
    GROUP BY room, weekday, 3
"""
# When each room was first known of. What retention has removed of the days that are shown counts.
_FIRST = """
    SELECT room, least(first, removed.first_reading) AS first
    FROM unnest(enum_range(NULL::room_type)::text[]) AS name (room)
    CROSS JOIN LATERAL (
        SELECT min(timestamp) AS first FROM sensor_readings
        WHERE sensor_readings.room = name.room AND timestamp > '-infinity'
    ) AS stored
    LEFT JOIN (
        SELECT room, min(first_reading) AS first_reading FROM hourly.history WHERE hour >= $1 GROUP BY room
    ) AS removed USING (room)
"""
# As the views of occupied time, of a short time and from the readings alone: the views have no spans.
_SPANS = """
    WITH longest AS (
        SELECT make_interval(secs => greatest(86400, max(extract(epoch FROM hold)))::float8) AS hold
        FROM sensors
    ),
    event AS (
        SELECT room, zone, timestamp, id, state, source_entity FROM sensor_readings
        WHERE timestamp >= $1::timestamptz - (SELECT hold FROM longest) AND timestamp < $2::timestamptz
        UNION ALL
        SELECT room, zone, timestamp, -1, NULL, source_entity FROM sensor_gaps
        WHERE timestamp >= $1::timestamptz - (SELECT hold FROM longest) AND timestamp < $2::timestamptz
        UNION ALL
        SELECT room, zone, timestamp, -2, state, source_entity FROM hourly.carried
        WHERE timestamp >= $1::timestamptz - (SELECT hold FROM longest) AND timestamp < $2::timestamptz
    ),
    held AS (
        SELECT room, zone, greatest(timestamp, $1) AS since,
               least(following, timestamp + make_interval(secs => coalesce(hold, 86400)::float8), $2) AS until
        FROM (
            SELECT *, lead(timestamp) OVER (PARTITION BY room, zone ORDER BY timestamp, id) AS following
            FROM event
        ) AS followed
        LEFT JOIN (
            SELECT entity, since, extract(epoch FROM hold) AS hold,
                   lead(since, 1, 'infinity') OVER (PARTITION BY entity ORDER BY since) AS replaced
            FROM sensors
        ) AS place
        ON hold IS NOT NULL AND entity = source_entity AND timestamp >= since AND timestamp < replaced
        WHERE state
    )
    SELECT room, zone, lower(part) AS since, upper(part) AS until
    FROM (
        SELECT room, zone, range_agg(tstzrange(since, until)) - (SELECT times FROM hourly.forgotten) AS spans
        FROM held WHERE since < until GROUP BY room, zone
    ) AS zones
    CROSS JOIN unnest(spans) AS part
    ORDER BY room, zone, since
"""

Key = tuple[str, int, int]
Span = tuple[datetime, datetime]


async def heat(connection: Any, home: Home) -> dict[Key, tuple[float, float]]:
    """The seconds of each weekday (1 to 7) and hour of the home: those of a room that were occupied, and all.

    Args:
        connection: An ``asyncpg.Connection``.
        home: The home, and the days.
    """
    occupied: dict[Key, float] = {
        (row["room"], row["weekday"], row["hour"]): row["seconds"]
        for row in await connection.fetch(_HEAT, home.first_day, home.today)
    }
    found = {}
    for row in await connection.fetch(_FIRST, home.since):
        if row["first"] is None or row["first"] > home.now:
            continue
        for (weekday, hour), seconds in passed(home, row["first"]).items():
            key = (row["room"], weekday, hour)
            found[key] = (occupied.get(key, 0.0), seconds)
    return found


def passed(home: Home, first: datetime) -> dict[tuple[int, int], float]:
    """The seconds of each weekday and hour that have passed since a moment, of the days that are shown."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    at = max(first, home.since)
    while at < home.now:
        # Offsets are multiples of a quarter of an hour, and change at such moments.
        end = min(datetime.fromtimestamp((at.timestamp() // 900 + 1) * 900, UTC), home.now)
        local = at.astimezone(home.zone)
        found[local.isoweekday(), local.hour] += (end - at).total_seconds()
        at = end
    return found


def heat_section(home: Home, found: Mapping[Key, tuple[float, float]]) -> Section:
    """The heat maps of the rooms."""
    rooms = sorted(
        {room for room, _, _ in found if any(found[key][0] for key in found if key[0] == room)}, key=home.room
    )
    silent = sorted({room for room, _, _ in found} - set(rooms), key=home.room)
    parts: list[Part] = [
        Text(
            f"How much of each hour a room was occupied, in percent, on the days since {home.first_day}. "
            "Hours without a sensor's word count as not occupied."
        ),
        *(_heat_map(home, room, found) for room in rooms),
    ]
    if silent:
        parts.append(Text("Never occupied in that time: " + ", ".join(map(home.room, silent)) + "."))
    if not found:
        parts = [skipped("There are no readings yet.")]
    return Section("rooms", "Rooms by weekday and hour", parts)


def _heat_map(home: Home, room: str, found: Mapping[Key, tuple[float, float]]) -> Table:
    rows: list[Row] = []
    for weekday, name in enumerate(_WEEKDAYS, 1):
        cells = [found.get((room, weekday, hour), (0.0, 0.0)) for hour in range(24)]
        rows.append([Cell(name), *(_heat_cell(*cell) for cell in cells)])
    columns = [Column("Day"), *(Column(f"{hour:02}") for hour in range(24))]
    return Table(home.room(room), columns, rows, "heat")


def _heat_cell(occupied: float, whole: float) -> Cell:
    if not whole:
        return Cell("–")
    share = min(occupied / whole, 1.0)
    return Cell(f"{100 * share:.0f}", f"heat-{round(_STEPS * share)}")


async def timeline(connection: Any, since: datetime, until: datetime) -> dict[tuple[str, str], list[Span]]:
    """When each zone was occupied.

    Args:
        connection: An ``asyncpg.Connection``.
        since: Begin of the time.
        until: Its end.
    """
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for row in await connection.fetch(_SPANS, since, until):
        found[row["room"], row["zone"]].append((row["since"], row["until"]))
    return found


def timeline_section(home: Home, days: Sequence[Mapping[tuple[str, str], list[Span]]]) -> Section:
    """The timelines of today and of yesterday.

    Args:
        home: The home.
        days: Spans of each zone: today's, yesterday's.
    """
    parts: list[Part] = []
    for number, zones in enumerate(days):
        day = home.today - timedelta(days=number)
        name = f"{('Today', 'Yesterday')[number]}, {day:%A} {day}"
        if zones:
            parts.append(_timeline(home, name, day, zones))
        else:
            parts.append(skipped(f"{name}: no zone was occupied."))
    return Section("timeline", "Timeline", parts)


def _timeline(home: Home, name: str, day: Any, zones: Mapping[tuple[str, str], list[Span]]) -> Table:
    since, until = home.midnight(day), home.midnight(day + timedelta(days=1))
    whole = (until - since).total_seconds()
    rows: list[Row] = []
    for (room, zone), spans in sorted(zones.items(), key=lambda item: (home.room(item[0][0]), item[0])):
        total = sum((end - begin).total_seconds() for begin, end in spans)
        shares = [
            ((begin - since).total_seconds() / whole, (end - since).total_seconds() / whole)
            for begin, end in spans
        ]
        rows.append(
            [
                # Each in its own direction of writing.
                Cell(Markup("<bdi>{}</bdi>: <bdi>{}</bdi>").format(home.room(room), zone)),
                Cell(charts.spans(_words(home, spans), shares), "wide"),
                Cell(duration(total), "number"),
            ]
        )
    ticks = Markup("").join(
        Markup('<span style="left:{:.3f}%">{}</span>').format(
            100 * (moment - since).total_seconds() / whole, hour
        )
        for moment, hour in _ticks(home, since, until)
    )
    axis = Markup('<span class="said">Time</span><span class="axis" aria-hidden="true">{}</span>').format(
        ticks
    )
    return Table(name, [Column("Zone"), Column(axis, "wide"), Column("Occupied", "number")], rows, "timeline")


def _ticks(home: Home, since: datetime, until: datetime) -> list[tuple[datetime, str]]:
    """The moments at which the clock of the home shows 0, 6, 12 and 18 o'clock."""
    found: list[tuple[datetime, str]] = []
    at = since
    while at < until:
        local = at.astimezone(home.zone)
        if local.minute == 0 and local.hour % 6 == 0 and (not found or found[-1][1] != f"{local:%H}"):
            found.append((at, f"{local:%H}"))
        at += _QUARTER
    return found


def _words(home: Home, spans: list[Span]) -> str:
    named = ", ".join(
        f"{home.local(begin, '%H:%M')} to {home.local(end, '%H:%M')}" for begin, end in spans[:_NAMED]
    )
    more = len(spans) - _NAMED
    return f"Occupied {named}" + (f", and {more} more times" if more > 0 else "")
