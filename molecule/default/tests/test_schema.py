"""The schema exists, and the application's user works with it over the network."""

from __future__ import annotations

import subprocess

import psycopg2
import pytest

from tests.hosts import ROOT, Server

testinfra_hosts = ["ansible://occupancy"]


def names(server: Server, statement: str) -> set[str]:
    return {row[0] for row in server.query("occupancy", statement)}


def test_the_tables_exist(server: Server) -> None:
    tables = names(server, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {"sensor_readings", "room_transitions", "predictions", "alembic_version"} <= tables


def test_readings_are_partitioned_by_month_without_a_default(server: Server) -> None:
    assert server.query("occupancy", "SELECT pg_get_partkeydef('sensor_readings'::regclass)") == [
        ('RANGE ("timestamp")',)
    ]
    bounds = names(
        server,
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition AND relkind = 'r'",
    )
    assert len(bounds) >= 13
    assert "DEFAULT" not in bounds


def test_the_enums_have_their_values(server: Server) -> None:
    rows = server.query(
        "occupancy",
        "SELECT typname, array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum JOIN pg_type t ON t.oid = enumtypid GROUP BY 1 ORDER BY 1",
    )
    assert rows == [
        ("prediction_type", ["occupancy", "vacancy"]),
        ("room_type", ["bedroom", "bathroom", "small_bathroom", "office", "living_kitchen", "guest_bedroom"]),
    ]


def test_the_indexes_exist(server: Server) -> None:
    definitions = " ".join(names(server, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"))
    for part in (
        '("timestamp", id)',
        '(room, "timestamp")',
        '(zone, "timestamp")',
        "USING brin (id)",
        "USING gin (probability_distribution",
        "WHERE (probability_distribution IS NOT NULL)",
    ):
        assert part in definitions


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO sensor_readings (timestamp, room, zone, state, confidence, source_entity) VALUES (now(), 'office', 'desk', true, 1.5, 'x')",
        "INSERT INTO room_transitions (timestamp, to_room, transition_duration_seconds) VALUES (now(), 'office', -1)",
        "INSERT INTO predictions (room, prediction_made_at, prediction_type, confidence, model_version) VALUES ('office', now(), 'occupancy', 0.5, '1')",
    ],
)
def test_constraints_refuse_impossible_values(server: Server, statement: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        server.query("occupancy_app", statement)


def test_rooms_are_an_enum(server: Server) -> None:
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        server.query(
            "occupancy_app",
            "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES (now(), 'garage', 'car', true, 'x')",
        )


def test_views_show_new_rows(server: Server) -> None:
    insert = (
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES "
        "(now() - interval '2 minutes', 'guest_bedroom', 'bed', false, 'binary_sensor.view'), "
        "(now() - interval '1 minute', 'guest_bedroom', 'bed', true, 'binary_sensor.view')"
    )
    server.query("occupancy_app", insert)
    try:
        status = "SELECT active_zones, total_zones, occupancy_status FROM room_occupancy_status WHERE room = 'guest_bedroom'"
        assert server.query("occupancy_readonly", status) == [(1, 1, "occupied")]
        counted = "SELECT sum(reading_count) FROM sensor_reading_stats WHERE room = 'guest_bedroom'"
        assert server.query("occupancy_readonly", counted) == [(2,)]
    finally:
        server.query(
            "occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'binary_sensor.view'"
        )


def test_the_application_ingests_batches_and_reads_them_back(server: Server) -> None:
    program = """
import asyncio
from datetime import UTC, datetime, timedelta
from occupancy_db.connection import dispose_engine
from occupancy_db.readings import Reading, ingest

async def main():
    now = datetime.now(UTC)
    batch = [
        Reading(now - timedelta(seconds=n), "office", "desk", n % 2 == 0, "binary_sensor.batch") for n in range(2000)
    ]
    print(await ingest(batch))
    await dispose_engine()

asyncio.run(main())
"""
    said = subprocess.run(
        [ROOT / ".venv/bin/python", "-c", program],
        env=server.environment("occupancy_app"),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        assert (said.returncode, said.stdout) == (0, "2000\n"), said.stderr
        counted = "SELECT sum(reading_count) FROM sensor_reading_stats WHERE room = 'office' AND hour > now() - interval '3 hours'"
        assert server.query("occupancy_readonly", counted) == [(2000,)]
    finally:
        server.query(
            "occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'binary_sensor.batch'"
        )


@pytest.mark.parametrize("user", ["occupancy_app", "occupancy_readonly"])
@pytest.mark.parametrize(
    "statement", ["DELETE FROM hourly.sums", "DELETE FROM hourly.occupied", "SELECT hourly.refresh(1)"]
)
def test_only_the_owner_can_change_the_hourly_sums(server: Server, user: str, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        server.query(user, statement)


def test_cleanup_removes_old_readings_and_counts_them(server: Server) -> None:
    server.query(
        "occupancy_app",
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES "
        "(now() - interval '4 months', 'office', 'desk', true, 'binary_sensor.old'), (now(), 'office', 'desk', true, 'binary_sensor.new')",
    )
    try:
        assert server.query("occupancy", "SELECT cleanup_old_sensor_readings(3)") == [(1,)]
        left = "SELECT source_entity FROM sensor_readings WHERE source_entity LIKE 'binary_sensor.%'"
        assert server.query("occupancy_app", left) == [("binary_sensor.new",)]
    finally:
        server.query("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'binary_sensor.new'")


def test_check_tables_finds_all_objects(server: Server) -> None:
    said = subprocess.run(
        [ROOT / ".venv/bin/occupancy-db", "check-tables"],
        env=server.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
