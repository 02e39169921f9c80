"""Gaps: `ingest` stores each of them once, and clients of the readings see nothing new."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.connection import get_async_session
from occupancy_db.readings import InvalidReadings, Reading, ingest
from tests.database.conftest import Database
from tests.database.test_hours import ask
from tests.database.test_sensors import ALONE, DESK, NOW, set_place
from tests.database.test_sensors import application as application

GAP = Reading(NOW, "office", "desk", "unavailable", DESK)
GAPS = "SELECT timestamp, room, zone, source_entity FROM sensor_gaps ORDER BY timestamp"


@pytest.mark.usefixtures("application")
async def test_a_gap_is_stored_once_and_no_reading(cursor: Cursor) -> None:
    later = NOW + timedelta(seconds=1)
    batch: list[Any] = [
        GAP,
        {"timestamp": later, "room": "office", "zone": "desk", "state": "unknown", "source_entity": DESK},
        replace(GAP, state="unknown"),  # the same moment: one gap
        replace(GAP, timestamp=NOW - timedelta(minutes=1), state=True),
    ]
    assert await ingest(batch) == 3
    assert await ingest(batch) == 0
    assert await ingest([GAP]) == 0
    assert ask(cursor, GAPS) == [(NOW, "office", "desk", DESK), (later, "office", "desk", DESK)]
    assert ask(cursor, "SELECT state FROM sensor_readings") == [(True,)]
    many = [
        replace(GAP, timestamp=NOW + timedelta(seconds=n), state=n % 2 == 0 or "unknown") for n in range(200)
    ]
    assert await ingest(many) == 199  # one gap is there
    assert await ingest(many) == 0


async def test_a_gap_takes_part_in_a_transaction_and_follows_its_sensor(
    application: Database, cursor: Cursor
) -> None:
    await set_place(application, "set", DESK, "--room", "bedroom", "--zone", "bed")
    gap = replace(ALONE, state="unavailable")
    async with get_async_session() as session:
        assert await ingest([gap], session=session) == 1
        await session.rollback()
    assert ask(cursor, GAPS) == []
    async with get_async_session() as session:
        assert await ingest([gap, GAP], session=session) == 2
        await session.commit()
    assert [row[2] for row in ask(cursor, GAPS + ", zone")] == ["bed", "desk"]


@pytest.mark.parametrize(
    "change", [{"state": "off"}, {"room": "cellar"}, {"timestamp": NOW.replace(tzinfo=None)}]
)
@pytest.mark.usefixtures("application")
async def test_of_a_batch_with_an_invalid_gap_nothing_is_stored(
    cursor: Cursor, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidReadings):
        await ingest([GAP, replace(GAP, **change)])
    assert ask(cursor, GAPS) == []
