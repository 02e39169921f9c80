"""The server starts again without help, with every row whose commit a client has seen."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

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


def test_rows_are_there_after_the_server_is_killed(host: Host, server: Server, rows: int) -> None:
    pid = host.check_output("docker inspect --format '{{.State.Pid}}' occupancy-postgres-1")
    host.check_output(f"kill -9 {pid}")
    assert rows_after_restart(server) == rows


class Writer:
    """A client on the controller that writes a row every 20 ms, and connects again when its connection is lost.

    Attributes:
        acknowledged: The numbers of the rows whose commit it has seen.
    """

    def __init__(self, server: Server) -> None:
        self.acknowledged: list[int] = []
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: len(self.acknowledged) > 50, f"writes to {self._server.name}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_a_write(self) -> float:
        """Wait until a row that is written from now on is acknowledged; return the seconds."""
        before, began = len(self.acknowledged), time.monotonic()
        wait_for(lambda: len(self.acknowledged) > before + 1, f"a write to {self._server.name}")
        return time.monotonic() - began

    def lost(self) -> set[int]:
        """The acknowledged rows that the server does not have."""
        acknowledged = set(self.acknowledged)  # before the query: the thread goes on
        rows = self._server.query(
            "occupancy_readonly", "SELECT zone::integer FROM sensor_readings WHERE source_entity = 'writer'"
        )
        return acknowledged - {number for (number,) in rows}

    def _write(self) -> None:
        number = 0
        while not self._stopped.is_set():
            try:
                connection = self._server.connect("occupancy_app", connect_timeout=2, tcp_user_timeout=2000)
                with connection.cursor() as cursor:
                    while not self._stopped.wait(0.02):
                        number += 1
                        cursor.execute(
                            "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
                            "VALUES (now(), 'office', %s, true, 'writer')",
                            [str(number)],
                        )
                        self.acknowledged.append(number)
            except psycopg2.Error:
                self._stopped.wait(0.1)


def cut_power(_host: Host, server: Server) -> None:
    subprocess.run(["docker", "kill", server.name], check=True, capture_output=True)
    subprocess.run(["docker", "start", server.name], check=True, capture_output=True)


def restart_host(_host: Host, server: Server) -> None:
    subprocess.run(["docker", "restart", "--time", "60", server.name], check=True, capture_output=True)


def restart_engine(host: Host, _server: Server) -> None:
    host.check_output("systemctl restart docker")


def upgrade_engine(host: Host, _server: Server) -> None:
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes docker.io")


def flush_the_firewall(host: Host, _server: Server) -> None:
    host.check_output("iptables --flush && iptables --table nat --flush")


def remove_container_and_images(host: Host, server: Server) -> None:
    """As `docker compose down` and `docker system prune --all` before a boot."""
    host.check_output("docker rm --force occupancy-postgres-1 && docker system prune --all --force")
    assert host.check_output("docker image ls --quiet") == ""
    restart_host(host, server)


def wait_until_the_unit_fails(host: Host) -> None:
    """Wait until the server could not be started after the boot."""
    failures = "systemctl show --property=NRestarts --value occupancy"
    wait_for(lambda: int(host.run(failures).stdout.strip() or 0) > 0, "a failed start", interval=0.5)


def mount_the_disk_late(host: Host, server: Server) -> None:
    data, disk = "/var/lib/occupancy/pgdata", "/var/lib/occupancy/disk"
    host.check_output("docker stop --time 60 occupancy-postgres-1")
    host.check_output(f"mv {data} {disk}")
    cut_power(host, server)
    wait_until_the_unit_fails(host)
    host.check_output(f"mv {disk} {data}")


EVENTS: tuple[Callable[[Host, Server], None], ...] = (
    restart_engine,
    cut_power,
    restart_host,
    upgrade_engine,
    flush_the_firewall,
    remove_container_and_images,
    mount_the_disk_late,
)


@pytest.fixture
def writer(server: Server) -> Iterator[Writer]:
    with Writer(server) as found:
        yield found
    server.query("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'writer'")


@pytest.mark.parametrize("event", EVENTS)
def test_clients_write_again_after(
    host: Host, server: Server, writer: Writer, event: Callable[[Host, Server], None]
) -> None:
    """Within seconds after the event, and nothing that was acknowledged before it is lost."""
    event(host, server)
    report(event.__name__, writer)


def test_clients_write_again_after_the_address_has_come_late(
    host: Host, server: Server, writer: Writer
) -> None:
    """The server listens on one address of the host, which it does not have yet when the engine starts."""
    env = "/opt/occupancy/.env"
    start = "docker compose --project-directory /opt/occupancy up --detach postgres"
    listen = "sed --in-place s/^OCCUPANCY_LISTEN_ADDRESS=.*/OCCUPANCY_LISTEN_ADDRESS={}/ " + env
    before = host.check_output(f"sed -n s/^OCCUPANCY_LISTEN_ADDRESS=//p {env}")
    address = host.check_output("ip -4 -brief address show dev eth0").split()[2]
    gateway = host.check_output("ip -4 route show default").split()[2]
    host.check_output(f"{listen.format(server.address)} && {start}")
    host.check_output(f"systemctl stop docker docker.socket && ip address del {address} dev eth0")
    host.check_output("systemctl start docker")
    wait_until_the_unit_fails(host)
    host.check_output(f"ip address add {address} dev eth0 && ip route add default via {gateway}")
    report("add_the_address_late", writer)
    host.check_output(f"{listen.format(before)} && {start}")
    writer.wait_for_a_write()


def report(event: str, writer: Writer) -> None:
    """Print how long clients waited for their first write, and fail if an acknowledged row is lost."""
    seconds, lost = writer.wait_for_a_write(), writer.lost()
    print(
        f"{event}: first write after {seconds:.1f} s, {len(lost)} of {len(writer.acknowledged)} rows lost",
        file=sys.stderr,
    )
    assert lost == set()


def test_commands_and_jobs_load_images_that_were_pruned(host: Host) -> None:
    host.check_output("docker system prune --all --force")
    assert "occupancy-ops" not in host.check_output("docker image ls")
    said = host.run("occupancy-db --json current")
    assert said.rc == 0, said.stderr
    assert "loading it again" in said.stderr
    assert host.run("occupancy-db --json current").stderr == ""
