"""Every command of the manual, called as a user calls it."""

import json
import re
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from tests.database.conftest import HEAD, REVISIONS, ROOT, Database
from tests.database.test_schema import fill


def answer(database: Database, *arguments: str, **environment: str) -> Any:
    result = database.cli("--json", *arguments, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_schema_is_created_inspected_rolled_back_and_created_again(empty: Database) -> None:
    assert answer(empty, "current") == {
        "database": empty.name, "revision": None, "head": HEAD, "up_to_date": False,
    }  # fmt: skip
    missing = empty.cli("check-tables")
    assert missing.returncode == ExitCode.FAILED
    assert "table predictions" in missing.stdout

    result = empty.cli("migrate")
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "look", "lock", *REVISIONS, "verify", empty.name,
    ]  # fmt: skip
    assert result.stdout.splitlines()[-1] == f"{empty.name}: base → {HEAD}"
    again = answer(empty, "migrate")
    assert (again["from"], again["to"], again["applied"]) == (HEAD, HEAD, [])
    assert empty.cli("current").stdout == f"{HEAD} (head)\n"

    tables = answer(empty, "check-tables")
    assert tables["missing"] == []
    assert {row["name"]: row["partitions"] for row in tables["tables"]} == {
        "alembic_version": 0, "predictions": 0, "room_transitions": 0, "rooms": 0, "sensor_readings": 20,
        "sensor_gaps": 0, "sensors": 0, "hourly.carried": 0, "hourly.forgotten": 0, "hourly.occupied": 0,
        "hourly.occupied_history": 0, "hourly.occupied_marks": 0,
        "hourly.clock": 0, "hourly.history": 0, "hourly.home": 0, "hourly.marks": 0, "hourly.sums": 0,
        "hourly.watermark": 0, "hourly.ingest_slots": 0, "maintenance_lock": 0,
    }  # fmt: skip

    assert answer(empty, "rollback")["reverted"] == [HEAD]
    assert answer(empty, "rollback", "--revision", "004_hourly_sums")["to"] == "004_hourly_sums"
    found = empty.cli("check-tables").stdout
    assert (
        "missing: table hourly.carried, table hourly.clock, table hourly.forgotten, table hourly.home, "
        "table hourly.ingest_slots, table hourly.occupied, table hourly.occupied_history, "
        "table hourly.occupied_marks, table rooms, table sensor_gaps, table sensors, "
        "view latest_readings, " in found
    )
    assert answer(empty, "rollback", "--revision", "base")["to"] is None
    beyond = empty.cli("rollback")
    assert beyond.returncode == ExitCode.FAILED
    assert len(beyond.stderr.splitlines()) == 1


def test_history_lists_the_revisions_without_a_server(empty: Database) -> None:
    revisions = answer(empty, "history", POSTGRES_PORT="1")["revisions"]
    assert [revision["revision"] for revision in revisions] == REVISIONS[::-1]
    assert "Initial schema" in empty.cli("history").stdout


def test_init_creates_the_testing_database(database: Database) -> None:
    testing = {"ENVIRONMENT": "testing", "POSTGRES_TEST_DB": "of_the_tests"}
    result = database.cli("test-connection", **testing)
    assert result.returncode == ExitCode.DATABASE_MISSING
    try:
        assert answer(database, "init", **testing)["applied"] == REVISIONS
        assert answer(database, "test-connection", **testing)["database"] == "of_the_tests"
        assert answer(database, "init", **testing)["applied"] == []
    finally:
        database.cluster.execute("DROP DATABASE IF EXISTS of_the_tests")


def test_init_names_the_command_if_it_may_not_create_a_database(database: Database) -> None:
    database.cluster.execute("CREATE ROLE guest LOGIN PASSWORD 'x'")
    try:
        result = database.cli("init", POSTGRES_DB="nowhere", POSTGRES_USER="guest", POSTGRES_PASSWORD="x")
    finally:
        database.cluster.execute("DROP ROLE guest")
    assert result.returncode == ExitCode.DATABASE_MISSING
    assert "CREATE DATABASE nowhere OWNER guest" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_init_drop_and_reset_keep_objects_of_others(database: Database, cursor: Cursor) -> None:
    cursor.execute("CREATE TABLE of_the_operator AS SELECT 1 AS one")
    for command in (["init", "--drop"], ["reset", "--yes"]):
        fill(cursor, 10)
        assert answer(database, *command)["to"] == HEAD
        cursor.execute("SELECT (SELECT count(*) FROM sensor_readings), (SELECT one FROM of_the_operator)")
        assert cursor.fetchone() == (0, 1)


def test_reset_asks_for_confirmation(database: Database, cursor: Cursor) -> None:
    fill(cursor, 10)
    for reply in ("n\n", ""):
        result = database.cli("reset", stdin=reply)
        assert result.returncode == ExitCode.REFUSED
        assert f"Destroy all data in {database.settings().where}?" in result.stderr
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (10,)
    assert database.cli("reset", stdin="y\n").returncode == ExitCode.OK
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (0,)


def test_commands_that_destroy_or_generate_data_are_refused_in_production(database: Database) -> None:
    for command in (["init", "--drop"], ["reset", "--yes"], ["seed"]):
        result = database.cli(*command, ENVIRONMENT="production", POSTGRES_SSLMODE="disable")
        assert result.returncode == ExitCode.REFUSED
        assert "is production" in result.stderr


def test_test_connection_describes_the_connection(database: Database) -> None:
    found = answer(database, "test-connection")
    assert found["latency_ms"] > 0
    assert found["server_version"].startswith("16.")
    assert (found["database"], found["user"]) == (database.name, "occupancy")
    assert (found["transport"], found["tls_version"]) == ("plaintext", None)


def test_a_socket_and_a_password_file_work_as_in_the_ops_container(database: Database) -> None:
    secret = database.directory / "secret"
    secret.write_text(database.environment()["POSTGRES_PASSWORD"] + "\n")
    result = database.cli(
        "test-connection",
        ENVIRONMENT="production",
        POSTGRES_HOST=str(database.cluster.directory),
        POSTGRES_PASSWORD=None,
        POSTGRES_PASSWORD_FILE=str(secret),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "socket" in result.stdout


def test_a_dry_run_of_cleanup_reports_what_cleanup_then_removes(database: Database, cursor: Cursor) -> None:
    fill(cursor, 2000)
    announced = answer(database, "cleanup", "--months", "3")
    assert announced["dry_run"] is True
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (2000,)

    removed = answer(database, "cleanup", "--months", "3", "--no-dry-run")["rows"]
    assert 900 < removed <= announced["rows"] + 1  # a row may have become old in between
    assert removed >= announced["rows"]
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (2000 - removed,)
    assert "0 sensor readings" in database.cli("cleanup", "--months", "3", "--dry-run").stdout


def test_seed_generates_the_same_rows_and_only_once(database: Database, cursor: Cursor) -> None:
    query = "SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM room_transitions AS t"
    arguments = ["seed", "--days", "2", "--seed", "7", "--until", "2026-11-20T10:00:00"]
    cursor.execute("SELECT to_regclass('sensor_readings_2026_11') IS NULL")
    if cursor.fetchone() == (True,):  # a fixed day would be outside the partitions some day
        cursor.execute("SELECT to_char(now() - interval '2 days', 'YYYY-MM-DD')")
        row = cursor.fetchone()
        assert row is not None
        arguments[-1] = row[0]
    counts = answer(database, *arguments)["rows"]
    assert min(counts.values()) > 20
    cursor.execute(query)
    first = cursor.fetchone()

    again = database.cli(*arguments)
    assert again.returncode == ExitCode.REFUSED
    assert "already holds rows" in again.stderr
    cursor.execute("SELECT count(*) FROM sensor_readings")
    assert cursor.fetchone() == (counts["sensor_readings"],)

    cursor.execute("TRUNCATE sensor_readings, room_transitions, predictions RESTART IDENTITY")
    assert answer(database, *arguments)["rows"] == counts
    cursor.execute(query)
    assert cursor.fetchone() == first


def test_the_script_of_the_manual_is_the_same_command_line(database: Database) -> None:
    script = str(ROOT / "scripts" / "manage_db.py")
    shown = database.run("python", script, "--help").stdout
    for command in (
        "init", "migrate", "rollback", "current", "history", "create-migration", "test-connection",
        "check-tables", "cleanup", "reset", "seed",
    ):  # fmt: skip
        assert f" {command} " in shown
    assert database.run("python", script, "cleanup", "--months", "6", "--dry-run").returncode == 0


MANUAL = """
import asyncio
from occupancy_db.connection import get_async_session
async def check():
    async with get_async_session() as s:
        r = await s.execute(\"\"\"
            SELECT schemaname, tablename,
                   pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) as size
            FROM pg_tables WHERE schemaname = 'public'
            ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC
        \"\"\")
        for row in r: print(row)
asyncio.run(check())
"""


def test_the_python_snippets_of_the_manual_run_without_warnings(database: Database) -> None:
    result = database.run("python", "-X", "dev", "-W", "error", "-c", MANUAL)
    # asyncio's debug mode reports steps of more than 0.1 s, which a busy machine has.
    errors = [
        line
        for line in result.stderr.splitlines()
        if not re.match(r"Executing .+ took [\d.]+ seconds$", line)
    ]
    assert (result.returncode, errors) == (0, [])
    assert "('public', 'predictions', " in result.stdout
    result = database.run("python", "-c", "from occupancy_db.settings import Settings; print(Settings())")
    assert "postgres_user='occupancy'" in result.stdout
    assert database.environment()["POSTGRES_PASSWORD"] not in result.stdout


def test_commands_do_not_log_sql_in_development(database: Database) -> None:
    result = database.cli("current", ENVIRONMENT="development")
    assert result.stdout == f"{HEAD} (head)\n"
    assert result.stderr == ""
