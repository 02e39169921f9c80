"""The views and the retention function, compared with a recount."""

from datetime import UTC, datetime

import psycopg2
import psycopg2.errors
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.conftest import Database
from tests.database.test_schema import fill, insert, scans

NAIVE_STATUS = """
    WITH latest AS (
        SELECT DISTINCT ON (room, zone) * FROM sensor_readings
        ORDER BY room, zone, timestamp DESC, id DESC
    )
    SELECT room, count(CASE WHEN state THEN 1 END), count(*), max(timestamp),
           round(avg(confidence)::numeric, 9),
           CASE WHEN count(CASE WHEN state THEN 1 END) > 0 THEN 'occupied' ELSE 'vacant' END
    FROM latest GROUP BY room ORDER BY room
"""
STATUS = """
    SELECT room, active_zones, total_zones, last_update, round(avg_confidence::numeric, 9), occupancy_status
    FROM room_occupancy_status ORDER BY room
"""


def columns(cursor: Cursor, view: str) -> list[str]:
    cursor.execute(f"SELECT * FROM {view} LIMIT 0")
    assert cursor.description is not None
    return [column.name for column in cursor.description]


def test_views_have_the_columns_that_clients_expect(cursor: Cursor) -> None:
    assert columns(cursor, "sensor_reading_stats") == [
        "room", "hour", "reading_count", "active_zones", "avg_confidence", "first_reading", "last_reading",
    ]  # fmt: skip
    assert columns(cursor, "room_occupancy_status") == [
        "room", "active_zones", "total_zones", "last_update", "avg_confidence", "occupancy_status",
        "evidence_age", "is_stale",
    ]  # fmt: skip
    assert columns(cursor, "latest_readings") == [
        "room", "zone", "timestamp", "state", "confidence", "source_entity", "age",
    ]  # fmt: skip


def test_status_equals_a_recount_with_rooms_without_readings_and_equal_timestamps(cursor: Cursor) -> None:
    cursor.execute(STATUS)
    assert cursor.fetchall() == []
    fill(cursor, 5000)
    cursor.execute(
        "DELETE FROM sensor_readings WHERE room = 'office' AND timestamp > now() - interval '4 months'"
    )
    cursor.execute("DELETE FROM sensor_readings WHERE room = 'guest_bedroom'")
    moment = datetime.now(UTC)
    for state in (True, False):  # two states of one timestamp: the later row counts
        insert(cursor, "sensor_readings", timestamp=moment, room="bathroom", zone="tie", state=state)
    insert(cursor, "sensor_readings", timestamp=moment, room="bathroom", zone="Ärger '; --", state=True)

    cursor.execute(STATUS)
    found = cursor.fetchall()
    cursor.execute(NAIVE_STATUS)
    assert found == cursor.fetchall()
    status = {room: (total, word) for room, _, total, _, _, word in found}
    assert "guest_bedroom" not in status
    assert status["bathroom"][1] == "occupied"
    assert "office" in status
    assert {word for _, word in status.values()} == {"occupied", "vacant"}


def test_status_of_summed_hours_reads_one_row_per_zone(cursor: Cursor) -> None:
    fill(cursor, 20_000)
    cursor.execute("SELECT hourly.close(now() + interval '1 hour')")
    cursor.execute("SELECT hourly.refresh(100000)")
    cursor.execute("VACUUM ANALYZE hourly.sums, hourly.marks")
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {STATUS}")
    row = cursor.fetchone()
    assert row is not None
    found = scans(row[0][0]["Plan"])
    rows = sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in found)
    assert 24 <= rows <= 6 * 24, [
        (scan["Relation Name"], scan["Actual Rows"], scan["Actual Loops"]) for scan in found
    ]


def test_stats_equal_a_recount_in_hours_of_utc(cursor: Cursor) -> None:
    fill(cursor, 5000)
    cursor.execute("SELECT * FROM sensor_reading_stats ORDER BY room, hour")
    found = cursor.fetchall()
    cursor.execute("SELECT room, zone, confidence, timestamp FROM sensor_readings")
    hours: dict[tuple[str, datetime], list[tuple[str, float, datetime]]] = {}
    for room, zone, confidence, timestamp in cursor.fetchall():
        hour = timestamp.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hours.setdefault((room, hour), []).append((zone, confidence, timestamp))
    assert len(found) == len(hours)
    for room, hour, reading_count, active_zones, avg_confidence, first_reading, last_reading in found:
        rows = hours[room, hour.astimezone(UTC)]
        assert reading_count == len(rows)
        assert active_zones == len({zone for zone, _, _ in rows})
        assert avg_confidence == pytest.approx(sum(row[1] for row in rows) / len(rows))
        assert (first_reading, last_reading) == (min(row[2] for row in rows), max(row[2] for row in rows))


def test_the_statistics_query_of_the_manual(cursor: Cursor) -> None:
    fill(cursor, 5000)
    cursor.execute("SELECT * FROM sensor_reading_stats WHERE hour > NOW() - INTERVAL '24 hours'")
    assert cursor.rowcount >= 20


@pytest.mark.parametrize("months", [None, 6, 2])
def test_cleanup_removes_exactly_what_is_older(cursor: Cursor, months: int | None) -> None:
    fill(cursor, 2000)
    cursor.execute("SET timezone = 'UTC'")
    cursor.execute("BEGIN")
    # One transaction has one now(): the remaining and the removed rows must add up to all rows.
    cursor.execute(
        "SELECT count(*) FROM sensor_readings "
        "WHERE timestamp < now() - interval '2 days' - make_interval(months => %s)",
        [months or 6],
    )
    old = cursor.fetchone()
    cursor.execute(f"SELECT cleanup_old_sensor_readings({'' if months is None else months})")
    assert cursor.fetchone() == old != (0,)
    cursor.execute(
        "SELECT count(*), min(timestamp) >= now() - interval '2 days' - make_interval(months => %s) "
        "FROM sensor_readings",
        [months or 6],
    )
    assert old is not None
    assert cursor.fetchone() == (2000 - old[0], True)
    cursor.execute("COMMIT")


@pytest.mark.parametrize("months", ["0", "-1", "NULL", "2000000000"])
def test_cleanup_refuses_bad_months_and_removes_nothing(cursor: Cursor, months: str) -> None:
    fill(cursor, 100)
    with pytest.raises(
        psycopg2.errors.InvalidParameterValue, match="months_to_keep must be between 1 and 1200"
    ):
        cursor.execute(f"SELECT cleanup_old_sensor_readings({months})")
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (100,)


def test_cleanup_uses_the_rights_of_the_caller_and_its_own_search_path(
    database: Database, cursor: Cursor
) -> None:
    fill(cursor, 100)
    database.cluster.execute("CREATE ROLE dashboard LOGIN PASSWORD 'x'")
    try:
        cursor.execute(f"GRANT CONNECT ON DATABASE {database.name} TO dashboard")
        cursor.execute("GRANT USAGE ON SCHEMA public TO dashboard")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO dashboard")
        cursor.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO dashboard")
        reader = database.cluster.connect(database.name, "dashboard", "x")
        with reader.cursor() as asking:
            asking.execute("SELECT count(*) FROM room_occupancy_status")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                asking.execute("SELECT cleanup_old_sensor_readings(1)")
        reader.close()
        # A table of the same name, earlier in the caller's search path, is not used.
        cursor.execute("CREATE TEMP TABLE sensor_readings (timestamp timestamptz)")
        cursor.execute("INSERT INTO pg_temp.sensor_readings VALUES ('2000-01-01')")
        cursor.execute("SELECT cleanup_old_sensor_readings(1)")
        cursor.execute("SELECT count(*) FROM pg_temp.sensor_readings")
        assert cursor.fetchone() == (1,)
    finally:
        database.cluster.execute("DROP OWNED BY dashboard", "DROP ROLE dashboard", database=database.name)
