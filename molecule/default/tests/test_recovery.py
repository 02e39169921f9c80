"""The server starts again without help, with its data."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg2
import pytest
from testinfra.host import Host

from tests.hosts import Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

ROWS = 1000


def rows_after_restart(server: Server) -> int:
    """Wait until the server answers, and return how many rows of this file it has."""
    errors: list[str] = []

    def count() -> list[tuple[int]]:
        try:
            return server.query(
                "occupancy_readonly", "SELECT count(*) FROM sensor_readings WHERE source_entity = 'recovery'"
            )
        except psycopg2.OperationalError as error:  # not started yet
            errors.append(str(error))
            return []

    return wait_for(count, f"an answer of {server.name}", interval=0.5, explain=lambda: errors[-1])[0][0]


@pytest.fixture
def rows(server: Server) -> Iterator[int]:
    server.query(
        "occupancy_app",
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        f"SELECT now() - make_interval(secs => n), 'office', 'desk', n % 2 = 0, 'recovery' FROM generate_series(1, {ROWS}) AS n",
    )
    yield ROWS
    server.query("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'recovery'")


def test_rows_are_there_after_the_engine_restarts(host: Host, server: Server, rows: int) -> None:
    host.check_output("systemctl restart docker")
    assert rows_after_restart(server) == rows


def test_rows_are_there_after_the_server_is_killed(host: Host, server: Server, rows: int) -> None:
    pid = host.check_output("docker inspect --format '{{.State.Pid}}' occupancy-postgres-1")
    host.check_output(f"kill -9 {pid}")
    assert rows_after_restart(server) == rows


def test_rows_are_there_after_the_host_restarts(server: Server, rows: int) -> None:
    subprocess.run(["docker", "restart", "--time", "60", server.name], check=True, capture_output=True)
    assert rows_after_restart(server) == rows
