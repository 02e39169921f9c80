"""Each user has the privileges of its purpose, and no others."""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
import pytest

from tests.hosts import Server

testinfra_hosts = ["ansible://occupancy"]

READING = "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES (now(), 'office', 'desk', true, 'binary_sensor.test')"


@pytest.mark.parametrize(
    ("user", "statement"),
    [
        ("occupancy", "CREATE TABLE scratch (); DROP TABLE scratch"),
        ("occupancy_app", READING),
        (
            "occupancy_app",
            "UPDATE sensor_readings SET confidence = 0.5 WHERE source_entity = 'binary_sensor.test'",
        ),
        ("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'binary_sensor.test'"),
        ("occupancy_app", "SELECT * FROM room_occupancy_status"),
        ("occupancy_readonly", "SELECT * FROM sensor_reading_stats"),
        ("occupancy_readonly", "SELECT version_num FROM alembic_version"),
        ("occupancy_monitor", "SELECT query FROM pg_stat_activity"),
    ],
)
def test_a_statement_that_the_user_needs_is_allowed(server: Server, user: str, statement: str) -> None:
    server.query(user, statement)


@pytest.mark.parametrize(
    ("user", "statement"),
    [
        ("occupancy_app", "CREATE TABLE mine ()"),
        ("occupancy_app", "DROP TABLE sensor_readings"),
        ("occupancy_app", "TRUNCATE sensor_readings"),
        ("occupancy_app", "ALTER TABLE sensor_readings ADD COLUMN mine integer"),
        ("occupancy_app", "CREATE SCHEMA mine"),
        ("occupancy_app", "CREATE TEMPORARY TABLE mine ()"),
        ("occupancy_app", "UPDATE alembic_version SET version_num = 'x'"),
        ("occupancy_app", "SELECT cleanup_old_sensor_readings(1)"),
        ("occupancy_app", "SELECT rolpassword FROM pg_authid"),
        ("occupancy_app", "COPY sensor_readings TO PROGRAM 'cat'"),
        ("occupancy_app", "COPY sensor_readings FROM '/etc/passwd'"),
        ("occupancy_app", "SET ROLE occupancy"),
        ("occupancy_readonly", READING),
        ("occupancy_readonly", "SET default_transaction_read_only = off; " + READING),
        ("occupancy_readonly", "SELECT rolpassword FROM pg_authid"),
        ("occupancy_monitor", "SELECT * FROM public.sensor_readings"),
        ("occupancy", "CREATE ROLE mine"),
        ("occupancy", "CREATE DATABASE mine"),
        ("occupancy", "COPY sensor_readings TO PROGRAM 'cat'"),
        ("occupancy", "SELECT pg_read_file('/etc/passwd')"),
    ],
)
def test_a_statement_beyond_the_users_privileges_is_refused(
    server: Server, user: str, statement: str
) -> None:
    with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ReadOnlySqlTransaction)):
        server.query(user, statement)


def test_the_backup_user_reads_everything_over_the_socket(
    superuser: Callable[[str], str], server: Server
) -> None:
    del server
    assert superuser("SET ROLE occupancy_backup; SELECT count(*) >= 0 FROM sensor_readings").endswith("t")
    assert superuser("SELECT pg_has_role('occupancy_backup', 'pg_read_all_data', 'member')") == "t"


def test_no_other_user_is_a_member_of_a_users_role(superuser: Callable[[str], str]) -> None:
    members = "SELECT format('%s in %s', member::regrole, roleid::regrole) FROM pg_auth_members WHERE member::regrole::text NOT LIKE 'pg%' ORDER BY 1"
    assert superuser(members).splitlines() == [
        "occupancy in pg_read_all_stats",
        "occupancy_backup in pg_read_all_data",
        "occupancy_monitor in pg_monitor",
        "occupancy_restore in occupancy",
        "occupancy_restore in pg_signal_backend",
    ]


def test_public_has_no_privileges(superuser: Callable[[str], str]) -> None:
    granted = superuser("""
        SELECT coalesce(string_agg(what, ', '), 'nothing')
        FROM (
            SELECT datname AS what, datacl AS acl FROM pg_database WHERE datname = current_database()
            UNION ALL SELECT nspname, nspacl FROM pg_namespace WHERE nspname = 'public'
            UNION ALL SELECT relname, relacl FROM pg_class WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT proname, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        ) AS objects, aclexplode(acl) AS granted
        WHERE granted.grantee = 0""")
    assert granted == "nothing"


def test_new_tables_get_the_same_privileges(server: Server) -> None:
    server.query("occupancy", "CREATE TABLE new_table (id integer)")
    try:
        server.query("occupancy_app", "INSERT INTO new_table VALUES (1)")
        assert server.query("occupancy_readonly", "SELECT id FROM new_table") == [(1,)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            server.query("occupancy_app", "TRUNCATE new_table")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            server.query("occupancy_monitor", "SELECT id FROM public.new_table")
    finally:
        server.query("occupancy", "DROP TABLE new_table")


def test_users_have_connection_limits_and_timeouts(superuser: Callable[[str], str]) -> None:
    unlimited = superuser(
        "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolconnlimit < 1 AND rolname <> 'postgres'"
    )
    assert unlimited == "0"
    settings = superuser("SELECT rolconfig FROM pg_roles WHERE rolname = 'occupancy_app'")
    assert "statement_timeout=1min" in settings
    assert "idle_in_transaction_session_timeout=15min" in settings
