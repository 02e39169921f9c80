"""Constraints of the tables, partitions of rows, and the plan of the manual's main query."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg2.errors
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from occupancy_db.connection import connect
from occupancy_db.models import Prediction, PredictionType, RoomTransition, RoomType, SensorReading
from tests.database.conftest import Database

NOW = datetime.now(UTC)

GOOD: dict[str, dict[str, Any]] = {
    "sensor_readings": {
        "timestamp": NOW, "room": "bedroom", "zone": "bed", "state": True,
        "source_entity": "binary_sensor.bed",
    },
    "room_transitions": {"timestamp": NOW, "from_room": "office", "to_room": "bedroom"},
    "predictions": {
        "room": "office", "prediction_made_at": NOW, "prediction_type": "occupancy", "confidence": 0.7,
        "horizon_minutes": 15, "probability": 0.4,
    },
}  # fmt: skip
VACANCY = {
    "prediction_type": "vacancy", "expected_vacancy_minutes": 30, "horizon_minutes": None,
    "probability": None,
}  # fmt: skip


def insert(cursor: Cursor, table: str, **changes: Any) -> Any:
    row = GOOD[table] | changes
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))}) RETURNING id",
        list(row.values()),
    )
    return cursor.fetchone()


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("sensor_readings", {}),
        ("sensor_readings", {"confidence": 0}),
        ("sensor_readings", {"confidence": 1}),
        ("room_transitions", {"from_room": None}),
        ("room_transitions", {"transition_duration_seconds": 0}),
        (
            "predictions",
            {
                "probability": 1,
                "horizon_minutes": 120,
                "probability_distribution": '[{"minutes": 3, "probability": 0.5}]',
            },
        ),
        ("predictions", VACANCY),
        ("predictions", VACANCY | {"expected_vacancy_minutes": 0}),
    ],
)
def test_valid_rows_are_accepted_and_get_an_id(cursor: Cursor, table: str, changes: dict[str, Any]) -> None:
    first, second = insert(cursor, table, **changes), insert(cursor, table, **changes)
    assert second[0] == first[0] + 1


@pytest.mark.parametrize(
    ("table", "changes", "constraint"),
    [
        ("sensor_readings", {"confidence": 1.01}, "ck_sensor_readings_confidence"),
        ("sensor_readings", {"confidence": -0.01}, "ck_sensor_readings_confidence"),
        ("sensor_readings", {"confidence": float("nan")}, "ck_sensor_readings_confidence"),
        ("room_transitions", {"confidence": 2}, "ck_room_transitions_confidence"),
        ("room_transitions", {"transition_duration_seconds": -1}, "ck_room_transitions_transition_duration"),
        (
            "room_transitions",
            {"transition_duration_seconds": float("nan")},
            "ck_room_transitions_transition_duration",
        ),
        ("predictions", {"confidence": 1.5}, "ck_predictions_confidence"),
        ("predictions", {"probability": -0.5}, "ck_predictions_probability"),
        ("predictions", {"horizon_minutes": 0}, "ck_predictions_horizon_minutes"),
        ("predictions", {"horizon_minutes": None}, "ck_predictions_occupancy_complete"),
        ("predictions", {"probability": None}, "ck_predictions_occupancy_complete"),
        ("predictions", VACANCY | {"expected_vacancy_minutes": None}, "ck_predictions_vacancy_complete"),
        (
            "predictions",
            VACANCY | {"expected_vacancy_minutes": -1},
            "ck_predictions_expected_vacancy_minutes",
        ),
    ],
)
def test_invalid_rows_are_refused_by_a_named_constraint(
    cursor: Cursor, table: str, changes: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation) as refused:
        insert(cursor, table, **changes)
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("sensor_readings", {"room": "garage"}),
        ("room_transitions", {"to_room": "garage"}),
        ("room_transitions", {"from_room": "garage"}),
        ("predictions", {"prediction_type": "weather"}),
        ("sensor_readings", {"zone": "z" * 51}),
        ("sensor_readings", {"source_entity": "e" * 101}),
        ("sensor_readings", {"state": None}),
        ("sensor_readings", {"timestamp": None}),
    ],
)
def test_unknown_rooms_long_names_and_gaps_are_refused(
    cursor: Cursor, table: str, changes: dict[str, Any]
) -> None:
    with pytest.raises((psycopg2.DataError, psycopg2.IntegrityError)):
        insert(cursor, table, **changes)


def months(first: int, last: int) -> list[datetime]:
    """The beginnings of UTC months, counted from this one."""
    number = NOW.year * 12 + NOW.month - 1
    return [
        datetime((number + n) // 12, (number + n) % 12 + 1, 1, tzinfo=UTC) for n in range(first, last + 1)
    ]


def test_partitions_are_utc_months_around_now_without_a_gap(cursor: Cursor) -> None:
    cursor.execute("SET timezone = 'UTC'")
    cursor.execute("""
        SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition AND relkind = 'r'
        ORDER BY relname
    """)
    starts = months(-7, 13)
    assert cursor.fetchall() == [
        (
            f"sensor_readings_{start:%Y_%m}",
            f"FOR VALUES FROM ('{start:%F} 00:00:00+00') TO ('{end:%F} 00:00:00+00')",
        )
        for start, end in pairwise(starts)
    ]  # fmt: skip


def test_readings_are_stored_in_their_utc_month(cursor: Cursor) -> None:
    start = months(0, 0)[0]
    for moment in (start - timedelta(microseconds=1), start):
        insert(cursor, "sensor_readings", timestamp=moment)
    cursor.execute("SELECT tableoid::regclass::text FROM sensor_readings ORDER BY timestamp")
    before = start - timedelta(days=1)
    assert cursor.fetchall() == [(f"sensor_readings_{before:%Y_%m}",), (f"sensor_readings_{start:%Y_%m}",)]


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "infinity"])
def test_a_reading_without_a_partition_is_refused_with_a_reason(cursor: Cursor, moment: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation, match='no partition of relation "sensor_readings"'):
        insert(cursor, "sensor_readings", timestamp=moment)


async def test_models_read_what_they_write(database: Database) -> None:
    made = {
        "timestamp": NOW,
        "room": RoomType.SMALL_BATHROOM,
    }
    async with connect(database.settings(), "test") as connection:
        session = AsyncSession(connection, expire_on_commit=False)
        session.add_all([
            SensorReading(**made, zone="sink", state=False, source_entity="binary_sensor.sink"),
            RoomTransition(timestamp=NOW, to_room=RoomType.OFFICE, transition_duration_seconds=4.5),
            Prediction(
                room=RoomType.OFFICE,
                prediction_made_at=NOW,
                prediction_type=PredictionType.VACANCY,
                confidence=0.5,
                expected_vacancy_minutes=12.5,
                probability_distribution=[{"minutes": 12.5, "probability": 0.5}],
            ),
        ])  # fmt: skip
        await session.commit()
        session.expunge_all()
        reading = (await session.scalars(select(SensorReading))).one()
        assert (reading.room, reading.state, reading.confidence) == (RoomType.SMALL_BATHROOM, False, 1.0)
        assert reading.created_at.utcoffset() == timedelta(0)
        transition = (await session.scalars(select(RoomTransition))).one()
        assert (transition.from_room, transition.to_room) == (None, RoomType.OFFICE)
        prediction = (await session.scalars(select(Prediction))).one()
        assert prediction.probability_distribution == [{"minutes": 12.5, "probability": 0.5}]
        await session.close()


LAST_HOUR = "SELECT * FROM sensor_readings WHERE room = 'bedroom' AND timestamp > NOW() - INTERVAL '1 hour'"


def fill(cursor: Cursor, rows: int) -> None:
    """Readings spread evenly over the past of the window, in 24 zones of 6 rooms."""
    cursor.execute(
        """
        INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity)
        SELECT now() - n * (interval '200 days' / %(rows)s), (enum_range(NULL::room_type))[1 + n %% 6],
               'zone ' || n %% 24, n %% 7 < 3, (n %% 100) / 100.0, 'binary_sensor.zone'
        FROM generate_series(1, %(rows)s) AS n
        """,
        {"rows": rows},
    )
    cursor.execute("ANALYZE sensor_readings")


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found = [plan] if "Relation Name" in plan else []
    return found + [scan for child in plan.get("Plans", []) for scan in scans(child)]


@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
def test_the_last_hour_of_a_room_touches_only_current_partitions_by_index(
    cursor: Cursor, plan_cache_mode: str
) -> None:
    fill(cursor, 60_000)
    cursor.execute(f"SET plan_cache_mode = {plan_cache_mode}")
    cursor.execute(f"PREPARE last_hour AS {LAST_HOUR}")
    cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE last_hour")
    row = cursor.fetchone()
    assert row is not None
    found = scans(row[0][0]["Plan"])

    current = f"sensor_readings_{datetime.now(UTC) - timedelta(hours=1):%Y_%m}"
    assert min(scan["Relation Name"] for scan in found) >= current, json.dumps(row[0], indent=1)
    # A future month holds no page, one that has just begun hardly any: read as a whole, if at all.
    cursor.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relpages > 30")
    filled = {name for (name,) in cursor.fetchall()}
    assert len(filled) >= 6
    assert {scan["Node Type"] for scan in found if scan["Relation Name"] in filled} <= {
        "Index Scan",
        "Bitmap Heap Scan",
    }


@pytest.mark.parametrize("plan_cache_mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    ("query", "value", "index"),
    [
        ("room = $1 ORDER BY timestamp DESC LIMIT 5", "'office'", "room_timestamp"),
        ("room = $1::room_type ORDER BY timestamp DESC LIMIT 5", "'office'", "room_timestamp"),
        ("room = $1 ORDER BY timestamp DESC LIMIT 5", "'not a room'", "room_timestamp"),
        ("zone = $1 ORDER BY timestamp DESC LIMIT 5", "'zone 5'", "zone_timestamp_state"),
        ("zone = $1 AND timestamp > now() - interval '190 days'", "'zone 5'", "zone_timestamp_state"),
        ("id = $1", "17", "id"),
    ],
)
def test_indexes_serve_readers(
    cursor: Cursor, plan_cache_mode: str, query: str, value: str, index: str
) -> None:
    fill(cursor, 60_000)
    cursor.execute(f"SET plan_cache_mode = {plan_cache_mode}")
    cursor.execute(f"PREPARE reading AS SELECT * FROM sensor_readings WHERE {query}")
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE reading ({value})")
    row = cursor.fetchone()
    assert row is not None
    cursor.execute("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relpages > 30")
    filled = {name for (name,) in cursor.fetchall()}
    used = {
        scan["Relation Name"]: json.dumps(scan)
        for scan in scans(row[0][0]["Plan"])
        if scan["Relation Name"] in filled and scan["Actual Loops"]
    }
    assert len(used) >= 1
    for partition, scan in used.items():
        month = partition.removeprefix("sensor_readings")
        names = (f"ix_sensor_readings_{index.removesuffix('_state')}{month}", f"{partition}_{index}_idx")
        assert any(f'"Index Name": "{name}"' in scan for name in names), scan


def test_the_gin_index_finds_distributions_by_their_content(cursor: Cursor) -> None:
    cursor.execute("""
        INSERT INTO predictions (room, prediction_made_at, prediction_type, confidence,
                                 expected_vacancy_minutes, probability_distribution)
        SELECT 'office', now(), 'vacancy', 0.5, n, jsonb_build_array(jsonb_build_object('minutes', n))
        FROM generate_series(1, 5000) AS n
    """)
    cursor.execute("ANALYZE predictions")
    cursor.execute("""
        EXPLAIN SELECT * FROM predictions WHERE probability_distribution @> '[{"minutes": 7}]'
    """)
    assert "ix_predictions_probability_distribution" in str(cursor.fetchall())
