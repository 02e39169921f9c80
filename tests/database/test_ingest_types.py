"""Readings as applications hold them: scalars of numpy and pandas, and objects with the same attributes."""

from collections import namedtuple
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.connection import dispose_engine
from occupancy_db.models import SensorReading
from occupancy_db.readings import InvalidReadings, Reading, ingest
from occupancy_db.storage import COLUMNS
from tests.database.conftest import Database

NOW = datetime.now(UTC).replace(microsecond=123456)
GOOD = Reading(NOW, "office", "desk", True, "binary_sensor.desk", 0.25)
FIELDS: dict[str, Any] = asdict(GOOD)
Tuple = namedtuple("Tuple", ["timestamp", "room", "zone", "state", "source_entity", "confidence"])


class Room(Enum):
    """An enumeration of a client, which is no str."""

    OFFICE = "office"


@pytest.fixture(autouse=True)
async def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """This process, set up for the database by its environment."""
    for name, value in database.environment().items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    yield
    await dispose_engine()


def rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    cursor.execute(
        "SELECT timestamp, room::text, zone, state, source_entity, confidence FROM sensor_readings "
        "ORDER BY timestamp"
    )
    return cursor.fetchall()


def earlier(values: dict[str, Any], microseconds: int) -> dict[str, Any]:
    """The same values at an earlier time: another reading."""
    return {**values, "timestamp": values["timestamp"] - timedelta(microseconds=microseconds)}


SCALARS: dict[str, dict[str, Any]] = {
    "numpy": {
        "room": np.str_("office"),
        "zone": np.str_("desk"),
        "state": np.bool_(True),
        "source_entity": np.str_("binary_sensor.desk"),
        "confidence": np.float64(0.25),
    },
    "a float of 32 bits": {"confidence": np.float32(0.25)},
    "pandas": {"timestamp": pd.Timestamp(NOW)},
    "pandas with nanoseconds, of another time zone": {
        "timestamp": (pd.Timestamp(NOW) + pd.Timedelta(nanoseconds=7)).tz_convert("Asia/Kolkata")
    },
    "a room of an enumeration": {"room": Room.OFFICE},
}


@pytest.mark.parametrize("kind", SCALARS)
async def test_scalars_arrive_as_the_values_that_they_stand_for(cursor: Cursor, kind: str) -> None:
    """As a Reading and as a mapping, and among plain readings of the same sensor."""
    values = {**FIELDS, **SCALARS[kind]}
    first, second, third = (earlier(values, number) for number in (0, 1, 2))
    assert await ingest([Reading(**first), Reading(**earlier(FIELDS, 3)), Reading(**second), third]) == 4
    assert rows(cursor) == [
        tuple(earlier(FIELDS, number)[name] for name in COLUMNS) for number in (3, 2, 1, 0)
    ]


@pytest.mark.parametrize("kind", SCALARS)
async def test_scalars_are_the_same_readings_as_the_values_that_they_stand_for(
    cursor: Cursor, kind: str
) -> None:
    values = {**FIELDS, **SCALARS[kind]}
    assert await ingest([values, GOOD]) == 1
    assert await ingest([Reading(**values), values, GOOD]) == 0
    assert len(rows(cursor)) == 1


@pytest.mark.parametrize(
    "like",
    [
        pytest.param(SensorReading(**FIELDS), id="the model"),
        pytest.param(SimpleNamespace(**FIELDS, id=7, other="ignored"), id="an object with more attributes"),
        pytest.param(Tuple(**FIELDS), id="a named tuple"),
        pytest.param(pd.Series(FIELDS), id="a row of iterrows"),
    ],
)
async def test_objects_with_the_same_attributes_are_readings(cursor: Cursor, like: Any) -> None:
    assert await ingest([like, Reading(**earlier(FIELDS, 1))]) == 2
    assert rows(cursor)[1] == tuple(FIELDS[name] for name in COLUMNS)
    assert await ingest([like]) == 0


async def test_an_object_without_a_confidence_has_the_default(cursor: Cursor) -> None:
    bare = {name: value for name, value in FIELDS.items() if name != "confidence"}
    assert await ingest([SimpleNamespace(**bare), SensorReading(**earlier(bare, 1))]) == 2
    assert [row[-1] for row in rows(cursor)] == [1.0, 1.0]


async def test_a_frame_is_written_by_its_rows(cursor: Cursor) -> None:
    """itertuples() and to_dict() give the scalars of pandas and numpy."""
    frame = pd.DataFrame([{**FIELDS, "timestamp": NOW - timedelta(seconds=n)} for n in range(3)])
    assert await ingest(frame.itertuples()) == 3  # type: ignore[arg-type]  # its attributes have no types
    assert [row[0] for row in rows(cursor)] == [NOW - timedelta(seconds=n) for n in (2, 1, 0)]
    cursor.execute("DELETE FROM sensor_readings")
    assert await ingest(frame.to_dict("records")) == 3  # type: ignore[arg-type]  # its keys are Hashable
    assert [row[0] for row in rows(cursor)] == [NOW - timedelta(seconds=n) for n in (2, 1, 0)]


BAD: dict[str, dict[str, Any]] = {
    "timestamp is NaT": {"timestamp": pd.NaT},
    "timestamp is not a datetime: .*NaT": {"timestamp": np.datetime64("NaT")},
    "timestamp is not a datetime: .*2026-11-01": {"timestamp": np.datetime64("2026-11-01T00:00:00", "ns")},
    "timestamp is not a datetime: nan": {"timestamp": np.float64("nan")},
    "timestamp has no time zone": {"timestamp": pd.Timestamp("2026-11-01")},
    "timestamp is not a datetime: <NA>": {"timestamp": pd.NA},
    "unknown room nan": {"room": np.nan},
    "unknown room <NA>": {"room": pd.NA},
    "zone is not text: nan": {"zone": np.nan},
    "source_entity is not text: None": {"source_entity": None},
    "state is not a bool: nan": {"state": np.nan},
    "state is not a bool: <NA>": {"state": pd.NA},
    "state is not a bool: 1": {"state": np.int64(1)},
    "state is not a bool: array": {"state": np.array([True, False])},
    "confidence is not between 0 and 1: nan": {"confidence": np.float64("nan")},
    "confidence is not a number: <NA>": {"confidence": pd.NA},
    "confidence is not a number: True": {"confidence": np.bool_(True)},
    "confidence is not a number: array": {"confidence": np.array([0.5, 0.5])},
}


@pytest.mark.parametrize("reason", BAD)
async def test_missing_values_and_arrays_are_refused_with_a_reason(cursor: Cursor, reason: str) -> None:
    """Also where the sensor is known already."""
    await ingest([GOOD])
    bad = {**FIELDS, **BAD[reason]}
    with pytest.raises(InvalidReadings, match=reason) as caught:
        await ingest([GOOD, Reading(**bad), bad, SimpleNamespace(**bad)])
    assert [index for index, _ in caught.value.problems] == [1, 2, 3]
    assert len(rows(cursor)) == 1


async def test_missing_attributes_are_named(cursor: Cursor) -> None:
    with pytest.raises(InvalidReadings) as caught:
        await ingest([SimpleNamespace(timestamp=NOW, zone="desk", state=True), "office"])  # type: ignore[list-item]
    assert caught.value.problems == [
        (0, "missing attribute room, source_entity"),
        (1, "neither a Reading nor a mapping nor an object like a Reading: str"),
    ]
    assert rows(cursor) == []
