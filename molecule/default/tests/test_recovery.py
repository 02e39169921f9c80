"""The server starts again without help, with every row whose commit a client has seen."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import psycopg2
import pytest
from testinfra.host import Host

from tests.hosts import NETWORK, Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

ROWS = 1000
LIMIT = 60.0
"""Seconds from the end of an event until the first row is acknowledged."""
OTHER_ADDRESS = "10.215.16.240"
PGDATA, DISK = "/var/lib/occupancy/pgdata", "/var/lib/occupancy/disk"
START = "docker compose --project-directory /opt/occupancy up --detach --wait postgres"


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
        address: Where the server is.
    """

    def __init__(self, server: Server) -> None:
        self.acknowledged: list[int] = []
        self.address = server.address
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            wait_for(lambda: len(self.acknowledged) > 50, f"writes to {self._server.name}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_a_write(self) -> float:
        """Wait until a row that is written from now on is acknowledged; return the seconds."""
        before, began = len(self.acknowledged), time.monotonic()
        wait_for(lambda: len(self.acknowledged) > before + 1, f"a write to {self._server.name}", interval=0.1)
        return time.monotonic() - began

    def lost(self) -> set[int]:
        """The acknowledged rows that the server does not have."""
        acknowledged = set(self.acknowledged)  # before the query: the thread goes on
        rows = self._server.query(
            "occupancy_readonly",
            "SELECT zone::integer FROM sensor_readings WHERE source_entity = 'writer'",
            host=self._server.name,
            hostaddr=self.address,
        )
        return acknowledged - {number for (number,) in rows}

    def _write(self) -> None:
        number = 0
        while not self._stopped.is_set():
            try:
                connection = self._server.connect(
                    "occupancy_app",
                    host=self._server.name,
                    hostaddr=self.address,
                    connect_timeout=2,
                    tcp_user_timeout=2000,
                )
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


def controller(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def cut_power(_host: Host, server: Server) -> None:
    controller("docker", "kill", server.name)
    controller("docker", "start", server.name)


def restart_host(_host: Host, server: Server) -> None:
    controller("docker", "restart", "--time", "60", server.name)


def restart_engine(host: Host, _server: Server) -> None:
    host.check_output("systemctl restart docker")


def upgrade_engine(host: Host, _server: Server) -> None:
    """As packages of Docker and containerd do it: both stop, their programs are replaced, both start."""
    services = ("docker", "containerd")
    pids = [host.check_output(f"systemctl show --property MainPID --value {name}") for name in services]
    host.check_output("systemctl stop docker.socket docker containerd && systemctl start containerd docker")
    after = [host.check_output(f"systemctl show --property MainPID --value {name}") for name in services]
    assert all(old != new for old, new in zip(pids, after, strict=True)), f"{pids}, then {after}"


def flush_the_firewall(host: Host, _server: Server) -> None:
    """As `nft flush ruleset`, or the restart of a firewall."""
    host.check_output(
        "iptables --policy FORWARD ACCEPT && for table in nat filter; do "
        "iptables --table $table --flush && iptables --table $table --delete-chain; done"
    )


def remove_the_container(host: Host, _server: Server) -> None:
    host.check_output("docker rm --force occupancy-postgres-1")


def remove_container_and_images(host: Host, server: Server) -> None:
    """As `docker compose down` and `docker system prune --all` before a boot."""
    host.check_output("docker rm --force occupancy-postgres-1 && docker system prune --all --force")
    assert host.check_output("docker image ls --quiet") == ""
    restart_host(host, server)


def mount_the_disk_late(host: Host, server: Server) -> None:
    host.check_output("systemctl stop occupancy && docker stop --time 60 occupancy-postgres-1")
    host.check_output(f"mv {PGDATA} {DISK} && mkdir {PGDATA} && mount --bind {DISK} {PGDATA} && {START}")
    cut_power(host, server)
    # Without the disk there is an empty directory: the server starts and ends at once, again and again.
    wait_for(
        lambda: "wrong ownership" in host.run("docker logs --tail 5 occupancy-postgres-1").stderr,
        "a start without the disk",
        explain=lambda: host.run("docker logs --tail 20 occupancy-postgres-1"),
    )
    host.check_output(f"mount --bind {DISK} {PGDATA}")


EVENTS: tuple[Callable[[Host, Server], None], ...] = (
    restart_engine,
    cut_power,
    restart_host,
    upgrade_engine,
    flush_the_firewall,
    remove_the_container,  # without the engine's rules, which the flush has dropped
    remove_container_and_images,
)


@pytest.fixture
def writer(server: Server) -> Iterator[Writer]:
    with Writer(server) as found:
        yield found
    server.query("occupancy_app", "DELETE FROM sensor_readings WHERE source_entity = 'writer'")


@pytest.fixture
def back(capsys: pytest.CaptureFixture[str], writer: Writer) -> Callable[[str], None]:
    """Wait for the first write after an event, print how long it took, and fail if it was too long or a row is lost."""

    def check(event: str) -> None:
        seconds, lost = writer.wait_for_a_write(), writer.lost()
        with capsys.disabled():
            print(
                f"\n{event}: first write after {seconds:.1f} s, {len(lost)} of {len(writer.acknowledged)} rows lost"
            )
        assert lost == set()
        assert seconds <= LIMIT

    return check


@pytest.mark.parametrize("event", EVENTS)
def test_clients_write_again_after(
    host: Host, server: Server, back: Callable[[str], None], event: Callable[[Host, Server], None]
) -> None:
    event(host, server)
    back(event.__name__)


def test_clients_write_again_after_the_disk_has_come_late(
    host: Host, server: Server, back: Callable[[str], None]
) -> None:
    try:
        mount_the_disk_late(host, server)
        back("mount_the_disk_late")
    finally:
        host.check_output("systemctl stop occupancy && docker stop --time 60 occupancy-postgres-1")
        host.check_output(f"! mountpoint --quiet {PGDATA} || umount {PGDATA}")
        host.check_output(f"rmdir {PGDATA} && mv {DISK} {PGDATA} && {START} && systemctl start occupancy")


def fill_the_disk(host: Host, superuser: Callable[[str], str]) -> None:
    """Leave no page, and wait until the server has tried to start several times."""
    host.run(f"dd if=/dev/zero of={PGDATA}/ballast bs=1M; dd if=/dev/zero of={PGDATA}/dregs bs=4096")
    with pytest.raises(AssertionError):  # the log needs a segment that has no room: PANIC
        superuser(
            "DO $$ BEGIN FOR n IN 1..200 LOOP "
            "PERFORM pg_logical_emit_message(false, 'full', 'disk'); PERFORM pg_switch_wal(); END LOOP; END $$"
        )
    starts: set[str] = set()

    def given_up() -> bool:
        starts.add(host.check_output("docker inspect --format '{{.State.StartedAt}}' occupancy-postgres-1"))
        return len(starts) > 3

    wait_for(
        given_up,
        "three starts on a full disk",
        explain=lambda: host.run("docker logs --tail 20 occupancy-postgres-1"),
    )


def test_clients_write_again_after_a_full_disk_was_emptied(
    host: Host, superuser: Callable[[str], str], back: Callable[[str], None]
) -> None:
    host.check_output("systemctl stop occupancy && docker stop --time 60 occupancy-postgres-1")
    host.check_output(
        f"mv {PGDATA} {DISK} && mkdir {PGDATA} && size=$(( $(du --summarize --block-size=1M {DISK} | cut --fields=1) + 50 )) && "
        f"mount --types tmpfs --options size=${{size}}m tmpfs {PGDATA} && cp --archive {DISK}/. {PGDATA} && {START}"
    )
    host.check_output("systemctl start occupancy")
    try:
        fill_the_disk(host, superuser)
        host.check_output(f"rm {PGDATA}/ballast {PGDATA}/dregs")
        back("empty_the_full_disk")
    finally:
        host.check_output("systemctl stop occupancy && docker stop --time 60 occupancy-postgres-1")
        host.check_output(f"rm --recursive {DISK} && cp --archive {PGDATA} {DISK}")
        host.check_output(f"umount {PGDATA} && rmdir {PGDATA} && mv {DISK} {PGDATA}")
        host.check_output(f"{START} && systemctl start occupancy")


def test_clients_write_again_after_the_host_has_another_address(
    server: Server, writer: Writer, back: Callable[[str], None]
) -> None:
    def move(address: str) -> None:
        controller("docker", "network", "disconnect", NETWORK, server.name)
        controller("docker", "network", "connect", "--ip", address, NETWORK, server.name)
        writer.address = address

    move(OTHER_ADDRESS)
    try:
        back("change_the_address")
    finally:
        move(server.address)
        writer.wait_for_a_write()


def test_clients_write_again_after_the_address_has_come_late(
    host: Host, server: Server, writer: Writer, back: Callable[[str], None]
) -> None:
    """The server listens on one address of the host, which it does not have yet when the engine starts."""
    listen = (
        "sed --in-place s/^OCCUPANCY_LISTEN_ADDRESSES=.*/OCCUPANCY_LISTEN_ADDRESSES={}/ /opt/occupancy/.env"
    )
    _, _, gateway, _, device = host.check_output("ip -4 route show default").split()[:5]
    address = host.check_output(f"ip -4 -brief address show dev {device}").split()[2]
    host.check_output(f"{listen.format(server.address)} && /opt/occupancy/publish-port")
    try:
        host.check_output(f"systemctl stop docker docker.socket && ip address del {address} dev {device}")
        host.check_output(f"systemctl start docker && {START}")
        host.check_output(f"ip address add {address} dev {device} && ip route add default via {gateway}")
        back("add_the_address_late")
    finally:
        host.check_output(f"{listen.format('0.0.0.0')} && /opt/occupancy/publish-port")  # noqa: S104
    writer.wait_for_a_write()


def test_a_flushed_firewall_lets_no_client_of_another_network_in(
    host: Host, server: Server, writer: Writer
) -> None:
    """Not even while nothing restores the rules. The host itself is not concerned."""
    local = (
        "import psycopg2; psycopg2.connect(host='127.0.0.1', dbname='occupancy', user='occupancy_app', sslmode='verify-full', "
        "password=open('/opt/occupancy/secrets/occupancy_app').read(), sslrootcert='/opt/occupancy/tls/ca.crt')"
    )
    assert "pg_hba.conf rejects connection" in server.connection_error_from_another_host()
    host.check_output("systemctl stop occupancy")
    try:
        flush_the_firewall(host, server)
        said = server.connection_error_from_another_host()
        assert "Connection refused" in said or "pg_hba.conf rejects connection" in said
        assert host.run("/usr/bin/python3 -c %s", local).rc == 0
    finally:
        host.check_output("systemctl start occupancy")
    writer.wait_for_a_write()
    assert "pg_hba.conf rejects connection" in server.connection_error_from_another_host()
    assert host.run("/usr/bin/python3 -c %s", local).rc == 0
    restart_engine(host, server)  # it writes its own rules again, which other tests may need
    writer.wait_for_a_write()


def test_commands_and_jobs_load_images_that_were_pruned(host: Host) -> None:
    host.check_output("docker system prune --all --force")
    assert "occupancy-ops" not in host.check_output("docker image ls")
    said = host.run("occupancy-db --json current")
    assert said.rc == 0, said.stderr
    assert "loading it again" in said.stderr
    assert host.run("occupancy-db --json current").stderr == ""
