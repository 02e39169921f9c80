"""The stack comes back by itself, with its data."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator

import psycopg2
import pytest
from testinfra.host import Host

from tests.hosts import Server

testinfra_hosts = ["ansible://occupancy"]

ROWS = 1000


def wait_until_it_serves(server: Server, seconds: float = 90) -> int:
    """Ask until the server answers, and return how many rows of this file it holds."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(psycopg2.OperationalError):  # not up yet: asked again below
            count: int = server.query(
                "occupancy_readonly", "SELECT count(*) FROM sensor_readings WHERE source_entity = 'recovery'"
            )[0][0]
            return count
        assert time.monotonic() < deadline, f"{server.name} did not come back within {seconds} s"
        time.sleep(0.5)


@pytest.fixture
def rows(server: Server) -> Iterator[int]:
    server.query(
        "occupancy_app",
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        f"SELECT now() - make_interval(secs => n), 'office', 'desk', n % 2 = 0, 'recovery' FROM generate_series(1, {ROWS}) AS n",
    )
    yield ROWS
    server.query("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'recovery'")


def test_after_the_engine_restarts(host: Host, server: Server, rows: int) -> None:
    host.check_output("systemctl restart docker")
    assert wait_until_it_serves(server) == rows


def test_after_the_server_is_killed(host: Host, server: Server, rows: int) -> None:
    pid = host.check_output("docker inspect --format '{{.State.Pid}}' occupancy-postgres-1")
    host.check_output(f"kill -9 {pid}")
    assert wait_until_it_serves(server) == rows


def test_after_the_host_restarts(server: Server, rows: int) -> None:
    subprocess.run(["docker", "restart", "--time", "60", server.name], check=True, capture_output=True)
    assert wait_until_it_serves(server) == rows
