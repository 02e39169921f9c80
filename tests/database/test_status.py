"""What the checks ask the server, as the user who sees no names."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.checks.catalogue import BY_NAME
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.database.test_hours import sum_up
from tests.database.users import grant, password

MONITOR = "occupancy_monitor"
HOST: dict[str, Any] = {
    "host": "home",
    "cron": True,
    "databases": ["occupancy"],
    "jobs": [{"name": "backup"}],
    "users": [{"name": "occupancy_readonly", "connections": 8, "settings": {
        "default_transaction_read_only": "on", "statement_timeout": "30s", "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "1min", "temp_file_limit": "1GB"}}],
}  # fmt: skip


@pytest.fixture
def home(database: Database, tmp_path: Path) -> Iterator[Database]:
    """A database of a host, with the collector's document in the directory of the test."""
    grant(database.cluster, database.name)
    now = datetime.now(UTC)
    backup = {
        "name": "occupancy_backup_last_success_timestamp_seconds",
        "value": now.timestamp() - 4 * 3600,
    }
    (tmp_path / "host.json").write_text(json.dumps(HOST | {"time": now.isoformat(), "metrics": [backup]}))
    yield database


def run(database: Database, *arguments: str, **changes: Any) -> tuple[int, dict[str, Any]]:
    """The exit code of the command, and the results by name."""
    user: dict[str, Any] = {"POSTGRES_USER": MONITOR, "POSTGRES_PASSWORD": password(MONITOR)}
    user["STATUS_DIR"] = database.directory
    done = database.cli("--json", "status", *arguments, **(user | changes))
    assert done.returncode in (0, 20, 21), done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def send(cursor: Cursor, *minutes_ago: float, entity: str = "binary_sensor.desk", zone: str = "desk") -> None:
    now = datetime.now(UTC)
    cursor.executemany(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (%s, 'office', %s, true, %s)",
        [(now - timedelta(minutes=minutes), zone, entity) for minutes in minutes_ago],
    )


def level(database: Database, name: str) -> str:
    found = run(database)[1][name]
    assert "binary_sensor" not in found["summary"]
    return str(found["level"])


def test_every_fact_can_be_asked_by_the_monitoring_user(home: Database, cursor: Cursor) -> None:
    send(cursor, 5)
    code, found = run(home)
    assert code == 21  # of the host's checks
    asked = ("server", "schema", "silent_sensors", "stale_zones", "clock", "connections", "limits")
    assert {name: found[name]["level"] for name in asked} == dict.fromkeys(asked, "good")
    assert set(found) == set(BY_NAME)


def test_the_monitoring_user_sees_no_names(home: Database) -> None:
    connection = home.cluster.connect(home.name, MONITOR, password(MONITOR))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for query in (
            "SELECT zone FROM sensor_readings",
            "SELECT state FROM sensor_readings",
            "SELECT entity FROM silent_sensors",
            "SELECT room FROM latest_readings",
            "SELECT room FROM hourly.sums",
            "TABLE sensors",
            "TABLE predictions",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(query)
    connection.close()


def test_silent_sensors_and_stale_zones_are_noticed(home: Database, cursor: Cursor) -> None:
    send(cursor, 30 * 60)
    assert (level(home, "silent_sensors"), level(home, "stale_zones")) == ("warning", "warning")
    send(cursor, 2)
    assert (level(home, "silent_sensors"), level(home, "stale_zones")) == ("good", "good")


def test_readings_are_compared_with_the_same_hour_of_earlier_weeks(home: Database, cursor: Cursor) -> None:
    assert level(home, "ingest") == "skipped"
    week = 7 * 24 * 60
    for weeks in (1, 2, 3):
        send(cursor, *(weeks * week + minute for minute in range(-90, 180)))
    sum_up(cursor)
    assert level(home, "ingest") == "bad"
    send(cursor, *range(1, 25))
    assert level(home, "ingest") == "warning"
    send(cursor, *(minute + 0.5 for minute in range(1, 30)))
    assert level(home, "ingest") == "good"


def test_the_readings_since_the_newest_set_are_counted(home: Database, cursor: Cursor) -> None:
    send(cursor, 241, 239, 200, 170, 100, 1)
    for _ in range(2):
        assert "a loss now costs 4 h, 5 readings" in run(home)[1]["backup_age"]["summary"]
        sum_up(cursor)


def test_limits_that_a_user_lifts_are_noticed(home: Database) -> None:
    home.cluster.execute("ALTER ROLE occupancy_readonly SET statement_timeout = 0")
    try:
        found = run(home)[1]["limits"]
    finally:
        home.cluster.execute("ALTER ROLE occupancy_readonly SET statement_timeout = '30s'")
    assert (found["level"], found["details"]) == ("warning", ["occupancy_readonly: statement_timeout"])
    assert level(home, "limits") == "good"


def test_connections_of_a_user_are_counted(home: Database) -> None:
    user = "occupancy_readonly"
    opened = [home.cluster.connect(home.name, user, password(user)) for _ in range(7)]
    assert level(home, "connections") == "warning"
    for connection in opened:
        connection.close()
    assert level(home, "connections") == "good"


def test_a_clock_that_contradicts_the_records_is_noticed(home: Database, cursor: Cursor) -> None:
    cursor.execute("SELECT hourly.record_clock('maintain')")
    cursor.execute("UPDATE hourly.clock SET checked_at = now() + interval '1 day'")
    assert level(home, "clock") == "bad"
    cursor.execute("UPDATE hourly.clock SET checked_at = now()")
    assert level(home, "clock") == "good"


def test_pending_migrations_and_older_schemas_are_shown(home: Database) -> None:
    assert home.cli("rollback", "--revision", REVISIONS[-4], "--lose-data").returncode == 0
    found = run(home)[1]
    assert (found["schema"]["level"], found["schema"]["value"]) == ("warning", 3)
    assert found["silent_sensors"]["level"] == "warning"
    assert home.cli("migrate").returncode == 0
    grant(home.cluster, home.name)
    assert run(home)[1]["schema"]["summary"] == f"at {HEAD}"


def test_a_server_that_is_down_is_bad_and_no_traceback(home: Database) -> None:
    code, found = run(home, POSTGRES_PORT=1)
    assert (code, found["server"]["level"], found["schema"]["level"]) == (21, "bad", "skipped")


def test_the_screen_shows_the_worst_first_with_what_helps(home: Database, cursor: Cursor) -> None:
    send(cursor, 30 * 60)
    user = {"POSTGRES_USER": MONITOR, "POSTGRES_PASSWORD": password(MONITOR)}
    done = home.cli("status", **user, STATUS_DIR=home.directory)
    levels = [line.split()[0] for line in done.stdout.splitlines()[2:] if not line.startswith(" ")]
    order = ["bad", "warning", "good", "skipped"]
    assert levels == sorted(levels, key=order.index)
    assert set(levels) == set(order)
    assert "TABLE silent_sensors" in done.stdout
    assert "docs/sensors.md#silent-sensors" in done.stdout


def test_thresholds_of_the_inventory_are_read(home: Database, cursor: Cursor) -> None:
    send(cursor, 30 * 60)
    thresholds = home.directory / "thresholds.json"
    thresholds.write_text('{"silent_sensors": {"bad": 1}, "of_another_release": {"bad": 1}}')
    assert level(home, "silent_sensors") == "bad"
    thresholds.write_text('{"silent_sensors": {"bad": "many"}}')
    done = home.cli("status", STATUS_DIR=home.directory)
    assert done.returncode == 1
    assert "silent_sensors must have numbers" in done.stderr
