"""The queries that clients run on the readings, with their parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from bench import home

BUSY_ROOM, BUSY_ZONE = "bedroom", "desk_anca"
UNKNOWN_ROOM, UNKNOWN_ZONE = "kitchen", "attic"

_READINGS = "FROM sensor_readings"
_DAY = timedelta(days=1)


class Known(Enum):
    """A parameter that is looked up in the queried database."""

    OLD_ID = "the id of a reading that is 16 days old"
    NEW_ID = "the id of the newest reading"
    MOMENT = "the time of the newest reading of the busy zone"


@dataclass(frozen=True)
class Question:
    """A query.

    Attributes:
        meaning: What it asks for, for the report.
        sql: The statement, with ``$1`` for its first parameter.
        parameters: A text is sent as it is, a duration as the time that long before the end of the history,
            and a ``Known`` as the value that was looked up.
        types: SQL types of the parameters, as in PREPARE.
    """

    meaning: str
    sql: str
    parameters: tuple[str | timedelta | Known, ...]
    types: str

    def values(self, end: datetime, known: Mapping[Known, Any]) -> list[str]:
        """Return the parameters as SQL literals.

        Args:
            end: The time of the newest reading.
            known: The values that were looked up.
        """
        return [_literal(parameter, end, known) for parameter in self.parameters]

    def literal(self, values: list[str]) -> str:
        """Return the statement with literals in the place of its parameters."""
        text = self.sql
        for number, value in enumerate(values, start=1):
            text = text.replace(f"${number}", value)
        return text


def _literal(parameter: str | timedelta | Known, end: datetime, known: Mapping[Known, Any]) -> str:
    value: Any = parameter
    if isinstance(parameter, timedelta):
        value = end - parameter
    elif isinstance(parameter, Known):
        value = known[parameter]
    if isinstance(value, datetime):
        return f"timestamptz '{value.isoformat()}'"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _latest(meaning: str, column: str, value: str, limit: int, more: str = "") -> Question:
    return Question(
        meaning,
        f"SELECT * {_READINGS} WHERE {column} = $1 {more} ORDER BY timestamp DESC LIMIT {limit}",
        (value,),
        "varchar",
    )


def _range(meaning: str, column: str, value: str, days: int, what: str = "*", more: str = "") -> Question:
    return Question(
        meaning,
        f"SELECT {what} {_READINGS} WHERE {column} = $1 AND timestamp > $2 {more}",
        (value, days * _DAY),
        "varchar, timestamptz",
    )


_BY_ID = f"SELECT * {_READINGS} WHERE id = $1"
_BY_HOUR = "date_trunc('hour', timestamp) AS hour, count(*)"
_OCCUPIED_BY_DAY = "date_trunc('day', timestamp) AS day, count(*) FILTER (WHERE state)"
_GROUPED = "GROUP BY 1 ORDER BY 1"

QUESTIONS = {
    "latest_busy_room": _latest("latest 10 of a busy room", "room", BUSY_ROOM, 10),
    "latest_silent_room": _latest("latest 10 of a room silent for 20 days", "room", home.SILENT_ROOM, 10),
    "latest_unknown_room": _latest("latest 10 of an unknown room", "room", UNKNOWN_ROOM, 10),
    "latest_busy_zone": _latest("latest of a busy zone", "zone", BUSY_ZONE, 1),
    "latest_silent_zone": _latest("latest of a zone silent for 20 days", "zone", home.SILENT_ZONE, 1),
    "latest_unknown_zone": _latest("latest of an unknown zone", "zone", UNKNOWN_ZONE, 1),
    "latest_active_room": _latest("latest 10 active of a busy room", "room", BUSY_ROOM, 10, "AND state"),
    "latest_active_silent_room": _latest(
        "latest 10 active of a room silent for 20 days", "room", home.SILENT_ROOM, 10, "AND state"
    ),
    "latest_of_all": Question(
        "latest 10 of all", f"SELECT * {_READINGS} ORDER BY timestamp DESC LIMIT 10", (), ""
    ),
    "by_id": Question("one row by id, 16 days old", _BY_ID, (Known.OLD_ID,), "bigint"),
    "by_new_id": Question("one row by id, the newest", _BY_ID, (Known.NEW_ID,), "bigint"),
    "repeated": Question(
        "a reading by time, room and zone",
        f"SELECT id {_READINGS} WHERE timestamp = $1 AND room = $2 AND zone = $3 ORDER BY id DESC LIMIT 1",
        (Known.MOMENT, BUSY_ROOM, BUSY_ZONE),
        "timestamptz, varchar, varchar",
    ),
    "hour_of_all": Question(
        "one hour by room and zone, 12 days old",
        f"SELECT room, zone, count(*), max(timestamp) {_READINGS} "
        "WHERE timestamp >= $1 AND timestamp < $2 GROUP BY room, zone",
        (12 * _DAY, 12 * _DAY - timedelta(hours=1)),
        "timestamptz, timestamptz",
    ),
    "room_24h": _range("a room, 24 hours", "room", BUSY_ROOM, 1),
    "room_7d": _range("a room, 7 days", "room", BUSY_ROOM, 7),
    "room_30d": _range("a room, 30 days", "room", BUSY_ROOM, 30),
    "active_room_7d": _range("active readings of a room, 7 days", "room", BUSY_ROOM, 7, more="AND state"),
    "zone_24h": _range("a zone, 24 hours", "zone", BUSY_ZONE, 1),
    "zone_7d": _range("a zone, 7 days", "zone", BUSY_ZONE, 7),
    "zone_30d": _range("a zone, 30 days", "zone", BUSY_ZONE, 30),
    "room_and_zone_7d": _range("a zone of a room, 7 days", "room", BUSY_ROOM, 7, more="AND zone = 'full'"),
    "rare_zone_7d": _range("a rare zone, 7 days", "zone", home.RARE_ZONE, 7),
    "zone_6_months": _range("counts of a zone by hour, 6 months", "zone", BUSY_ZONE, 182, _BY_HOUR, _GROUPED),
    "zone_6_months_states": _range(
        "occupied readings of a zone by day, 6 months", "zone", BUSY_ZONE, 182, _OCCUPIED_BY_DAY, _GROUPED
    ),
    "room_by_hour_30d": _range(
        "counts of a room by hour, 30 days", "room", BUSY_ROOM, 30, _BY_HOUR, _GROUPED
    ),
    "all_by_hour_30d": Question(
        "counts of all by hour, 30 days",
        f"SELECT {_BY_HOUR} {_READINGS} WHERE timestamp > $1 {_GROUPED}",
        (30 * _DAY,),
        "timestamptz",
    ),
}
