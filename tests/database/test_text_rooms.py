"""Rooms as text: the migration of a database in use, and what the new definitions do."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from sqlalchemy.exc import SQLAlchemyError

from occupancy_db.release import protocol
from occupancy_db.schema import runner
from tests.database.chain import NOWHERE, load
from tests.database.conftest import HEAD, Database
from tests.database.users import grant
from tests.waiting import wait_for_async

Cursor = Any

BEFORE = "004_hourly_sums"

HISTORY = """
    INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity)
    SELECT now() - n * interval '2 minutes', (enum_range(NULL::room_type))[1 + n % 6], 'zone ' || n % 17,
           n % 2 = 0, 0.5, 'binary_sensor.zone_' || n % 17
    FROM generate_series({rows}, 1, -1) AS n;
    INSERT INTO predictions
        (room, prediction_made_at, prediction_type, confidence, horizon_minutes, probability)
    SELECT 'office', now() - n * interval '5 minutes', 'occupancy', 0.5, 15, 0.5
    FROM generate_series(1, 5000) AS n;
    INSERT INTO room_transitions (timestamp, from_room, to_room)
    SELECT now() - n * interval '5 minutes', CASE WHEN n % 5 > 0 THEN 'office'::room_type END, 'bedroom'
    FROM generate_series(1, 5000) AS n;
"""
CONTENTS = " UNION ALL ".join(
    f"SELECT count(*), md5(string_agg(concat_ws('|', {columns}), ',' ORDER BY id)) FROM {table}"
    for table, columns in {
        "sensor_readings": "id, timestamp, room, zone, state",
        "predictions": "id, room, prediction_type",
        "room_transitions": "id, from_room, to_room",
    }.items()
).replace("FROM sensor_readings", "FROM sensor_readings WHERE source_entity <> 'binary_sensor.desk'")
# A parallel plan returns the tables in any order.
CONTENTS += " ORDER BY 1, 2"
HEAP = "SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('sensor_readings') WHERE isleaf"


def ask(cursor: Cursor, query: str, *values: Any) -> list[tuple[Any, ...]]:
    cursor.execute(query, values or None)
    return list(cursor.fetchall())


async def test_a_database_in_use_is_migrated_without_a_lost_or_changed_row(empty: Database) -> None:
    """The heap of many months grows by the text and by less than one month."""
    await runner.upgrade(empty.settings(), BEFORE)
    empty.psql(HISTORY.format(rows=140_000))
    empty.psql("SELECT hourly.close(now() - interval '5 minutes'); SELECT hourly.refresh(100000)")
    grant(empty.cluster, empty.name)
    with empty.connect().cursor() as cursor:
        contents = ask(cursor, CONTENTS)
        ((heap,),) = ask(cursor, HEAP)
        marks = ask(cursor, "SELECT count(*) FROM hourly.marks")
        async with load(empty, "occupancy_app", "occupancy_readonly") as writers:
            await protocol.deploy(empty.settings(), NOWHERE, print)
        assert writers.failed == []
        assert writers.during > 0
        assert ask(cursor, CONTENTS) == contents
        written = "SELECT count(*) FROM sensor_readings WHERE source_entity = 'binary_sensor.desk'"
        assert ask(cursor, written) == [(writers.written,)]
        assert ask(cursor, "SELECT count(*) FROM hourly.marks") == marks
        ((after,),) = ask(cursor, HEAP)
        assert float(after) < float(heap) * 1.3


async def test_an_interrupted_rewrite_is_completed_by_the_next_run(empty: Database) -> None:
    await runner.upgrade(empty.settings(), BEFORE)
    empty.psql(HISTORY.format(rows=60_000))
    with empty.connect().cursor() as cursor:
        contents = ask(cursor, CONTENTS)
        await runner.upgrade(empty.settings(), "005_text_rooms")
        filled = "SELECT count(*) FILTER (WHERE room_text IS NULL), count(room_text) FROM sensor_readings"

        def half_filled() -> bool:
            ((missing, present),) = ask(cursor, filled)
            return bool(missing and present)

        upgrade = asyncio.create_task(runner.upgrade(empty.settings()))
        await wait_for_async(half_filled, "a part of the rows to be filled")
        empty.cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{empty.name}' AND application_name = 'occupancy-db migrations'"
        )
        with pytest.raises(SQLAlchemyError):
            await upgrade
        assert (await runner.upgrade(empty.settings())).after == HEAD
        assert ask(cursor, CONTENTS) == contents
        assert ask(cursor, "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []


def test_an_update_that_changes_no_sum_marks_no_hour(cursor: Cursor) -> None:
    cursor.execute(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "SELECT now() - n * interval '1 hour', 'office', 'desk', true, 'e' FROM generate_series(2, 9) AS n"
    )
    cursor.execute("SELECT hourly.close(now())")
    cursor.execute("SELECT hourly.refresh(100)")
    cursor.execute("UPDATE sensor_readings SET source_entity = 'other', state = false")
    assert ask(cursor, "SELECT count(*) FROM hourly.marks") == [(0,)]
    cursor.execute("UPDATE sensor_readings SET confidence = 0.5 WHERE timestamp > now() - interval '4 hours'")
    assert ask(cursor, "SELECT count(*) FROM hourly.marks") == [(2,)]


@pytest.mark.parametrize("ago", [timedelta(), timedelta(days=3)])
def test_a_retired_room_takes_no_newer_readings_and_keeps_its_history(cursor: Cursor, ago: timedelta) -> None:
    retired = datetime.now(UTC) - ago
    insert = (
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (%s, %s, 'z', true, 'e')"
    )
    cursor.execute(insert, (retired - timedelta(hours=1), "office"))
    cursor.execute("INSERT INTO rooms (room, retired_at) VALUES ('office', %s)", (retired,))
    with pytest.raises(psycopg2.errors.CheckViolation, match='room "office" was retired on'):
        cursor.execute(insert, (retired, "office"))
    cursor.execute(insert, (retired - timedelta(hours=2), "office"))
    cursor.execute(insert, (datetime.now(UTC), "bedroom"))
    assert ask(cursor, "SELECT room, count(*) FROM sensor_readings GROUP BY room ORDER BY room") == [
        ("bedroom", 1),
        ("office", 2),
    ]


def test_latest_readings_and_the_evidence_of_a_status(cursor: Cursor) -> None:
    """An active zone that is silent makes its room stale, whatever another zone of the room sends."""
    insert = (
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (now() - %s * interval '1 hour', %s, %s, %s, 'e')"
    )
    for row in [
        (50, "office", "desk", False),
        (30, "office", "desk", True),
        (1, "office", "door", False),
        (2, "bedroom", "bed", False),
        (900, "bathroom", "sink", False),
    ]:
        cursor.execute(insert, row)
    for summed in (False, True):
        if summed:
            cursor.execute("SELECT hourly.close(now())")
            cursor.execute("SELECT hourly.refresh(100000)")
        latest = (
            "SELECT room, zone, state, round(extract(epoch FROM age) / 3600) "
            "FROM latest_readings ORDER BY room, zone"
        )
        assert ask(cursor, latest) == [
            ("bathroom", "sink", False, 900),
            ("bedroom", "bed", False, 2),
            ("office", "desk", True, 30),
            ("office", "door", False, 1),
        ]
        assert ask(cursor, "SELECT * FROM latest_readings WHERE zone = 'never seen'") == []
        status = (
            "SELECT room, occupancy_status, round(extract(epoch FROM evidence_age) / 3600), is_stale "
            "FROM room_occupancy_status ORDER BY room"
        )
        assert ask(cursor, status) == [
            ("bathroom", "vacant", 900, True),
            ("bedroom", "vacant", 2, False),
            ("office", "occupied", 30, True),
        ]
