"""A recount of the occupied time in Python, from the events that a database has."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.test_hours import ask

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
DEFAULT_HOLD = DAY
Span = tuple[datetime, datetime]
Place = tuple[str, str]


def merged(spans: list[Span]) -> list[Span]:
    """The union of spans."""
    found: list[Span] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((since, until))
    return found


def without(spans: list[Span], removed: list[Span]) -> list[Span]:
    """The parts of spans that are in none of the removed spans."""
    for begin, end in removed:
        parts = [[(since, min(until, begin)), (max(since, end), until)] for since, until in spans]
        spans = [(since, until) for pair in parts for since, until in pair if since < until]
    return spans


class Model:
    """What the views must show: of the rows of the database, and of those that retention removed."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.removed: dict[Place, list[Span]] = defaultdict(list)
        self.forgotten: list[Span] = []
        self.carried: dict[Place, tuple[datetime, int, bool | None, str]] = {}

    def holds(self) -> dict[str, list[tuple[datetime, timedelta | None]]]:
        found = defaultdict(list)
        for entity, since, hold in ask(self.cursor, "SELECT entity, since, hold FROM sensors ORDER BY since"):
            found[entity].append((since, hold))
        return found

    def events(self) -> dict[Place, list[tuple[datetime, int, bool | None, str]]]:
        rows = ask(
            self.cursor,
            "SELECT room, zone, timestamp, id, state, source_entity FROM sensor_readings UNION ALL "
            "SELECT room, zone, timestamp, -1, NULL, source_entity FROM sensor_gaps",
        )
        found: dict[Place, list[Any]] = defaultdict(list)
        for room, zone, *event in rows:
            found[room, zone].append(tuple(event))
        for place, carried in self.carried.items():
            found[place].append(carried)
        return {place: sorted(events, key=lambda event: event[:2]) for place, events in found.items()}

    def live(self, now: datetime) -> dict[Place, list[Span]]:
        """When each zone was occupied until now, in the times whose readings are there."""
        holds = self.holds()
        found = {}
        for place, events in self.events().items():
            following = [event[0] for event in events[1:]] + [now]
            spans = []
            for (moment, _, state, entity), after in zip(events, following, strict=True):
                valid = [hold for since, hold in holds[entity] if since <= moment]
                hold = (valid[-1] if valid else None) or DEFAULT_HOLD
                until = min(after, moment + hold, now)
                if state and moment < until:
                    spans.append((moment, until))
            found[place] = without(spans, self.forgotten)
        return found

    def forget(self, since: datetime, until: datetime) -> None:
        """Remember what is before a time, as retention does."""
        for place, spans in self.live(until).items():
            self.removed[place] += [(max(begin, since), end) for begin, end in spans if end > since]
        for place, events in self.events().items():
            before = [event for event in events if event[0] < until]
            if before:
                moment, _, state, entity = before[-1]
                self.carried[place] = (moment, -2, state, entity)
        longest = max([DEFAULT_HOLD, *(hold for rows in self.holds().values() for _, hold in rows if hold)])
        self.carried = {place: event for place, event in self.carried.items() if event[0] >= until - longest}
        self.forgotten.append((since, until))

    def spans(self, now: datetime) -> dict[tuple[str, ...], list[Span]]:
        """The spans of all zones and rooms."""
        found: dict[tuple[str, ...], list[Span]] = defaultdict(list)
        zones: dict[Place, list[Span]] = {**self.live(now)}
        for place, spans in self.removed.items():
            zones[place] = zones.get(place, []) + spans
        for (room, zone), spans in zones.items():
            found[room, zone] = merged(spans)
            found[room,] += spans
        return {place: merged(spans) for place, spans in found.items()}


def periods(since: datetime, until: datetime, cut: Callable[[datetime], datetime]) -> Iterator[Span]:
    """The parts of a span that are in one period each; `cut` tells the end of the period of a moment."""
    while since < until:
        end = min(cut(since), until)
        yield since, end
        since = end


def seconds(
    spans: dict[tuple[str, ...], list[Span]],
    cut: Callable[[datetime], datetime],
    name: Callable[[datetime], Any],
) -> dict[Any, Any]:
    found: dict[Any, float] = defaultdict(float)
    for place, parts in spans.items():
        for span in parts:
            for since, until in periods(*span, cut):
                found[(*place, *name(since))] += (until - since).total_seconds()
    return {key: pytest.approx(value, abs=1e-5) for key, value in found.items()}


def utc_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def shown(cursor: Cursor, view: str, columns: str) -> tuple[datetime, dict[Any, float]]:
    """The rows of a view, and the moment of the query."""
    rows = ask(
        cursor,
        f"SELECT now, {columns}, occupied_seconds FROM (SELECT statement_timestamp() AS now) AS moment "
        f"LEFT JOIN {view} ON true",
    )
    found = {row[1:-1]: row[-1] for row in rows if row[-1] is not None}
    assert len(found) == len([row for row in rows if row[-1] is not None])
    return rows[0][0], found


def assert_equal(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    different = {
        tuple(map(str, key)): (found.get(key), expected.get(key))
        for key in sorted({*found, *expected})
        if found.get(key) != expected.get(key)
    }
    assert not different, f"{len(different)} differ (found, expected): {dict(list(different.items())[:3])}"


def of_kind(found: dict[tuple[str, ...], list[Span]], size: int) -> dict[tuple[str, ...], list[Span]]:
    return {place: spans for place, spans in found.items() if len(place) == size}


def assert_occupied(cursor: Cursor, model: Model, name: str | None = None) -> None:
    """Compare the views with a recount in one snapshot; those of local periods if the zone is given."""
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    for kind, columns, size in (("zone", "room, zone", 2), ("room", "room", 1)):
        now, found = shown(cursor, f"occupied_{kind}_hours", f"{columns}, hour")
        spans = of_kind(model.spans(now), size)
        assert_equal(found, seconds(spans, lambda at: utc_hour(at) + HOUR, lambda at: (utc_hour(at),)))
        if name:
            now, found = shown(cursor, f"occupied_{kind}_local_hours", f"{columns}, day, hour, local_hour")
            hours, days = local_seconds(of_kind(model.spans(now), size), ZoneInfo(name))
            assert_equal(found, hours)
            now, found = shown(cursor, f"occupied_{kind}_local_days", f"{columns}, day")
            hours, days = local_seconds(of_kind(model.spans(now), size), ZoneInfo(name))
            assert_equal(found, days)
    cursor.execute("COMMIT")


def local_seconds(
    spans: dict[tuple[str, ...], list[Span]], zone: ZoneInfo
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The seconds of each place, by local hour and by local day."""
    return (
        seconds(spans, lambda at: end_of_hour(at, zone), lambda at: hour_of(at, zone)),
        seconds(spans, lambda at: end_of_hour(at, zone), lambda at: (at.astimezone(zone).date(),)),
    )


def hour_of(moment: datetime, zone: ZoneInfo) -> tuple[Any, ...]:
    local = moment.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    return local.date(), local.astimezone(UTC), local.replace(tzinfo=None, fold=0)


def end_of_hour(moment: datetime, zone: ZoneInfo) -> datetime:
    """The end of a local hour; the offsets of all zones here change at a full hour."""
    local = moment.astimezone(zone)
    into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return moment - into + HOUR
