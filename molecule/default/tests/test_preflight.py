"""Preflight refuses a host or an inventory in one message, before it changes anything."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.hosts import Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]
pytestmark = pytest.mark.any_release

Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refused(play: Play, server: Server, host: Host) -> Iterator[Callable[..., str]]:
    """Run the playbook with variables that must be refused; return its output. Fails if anything was changed."""
    before = host.check_output("ls -lR --time-style=full-iso /opt/occupancy /usr/local/bin | sha256sum")

    def run(*arguments: str, **variables: Any) -> str:
        result = play(*arguments, **variables)
        assert result.returncode != 0, result.stdout[-3000:]
        assert " changed=0 " in next(
            line for line in result.stdout.splitlines() if line.startswith(server.name + " ")
        )
        return " ".join(result.stdout.split())

    yield run
    assert (
        host.check_output("ls -lR --time-style=full-iso /opt/occupancy /usr/local/bin | sha256sum") == before
    )


def test_the_problems_of_all_roles_are_in_one_message(refused: Callable[..., str]) -> None:
    # tests/unit/test_preflight.py has every problem.
    output = refused(
        occupancy_min_memory_mb=99_999_999,
        occupancy_port=70_000,
        tls_certificate="/nonexistent.pem",
        access_passwords={"occupancy_app": "short", "nobody": "long-enough-for-anyone"},
        postgres_settings={"work_mem": "32MB"},
        container_images_source="floppy",
        retention_months=0,
        backup_schedule="@daily",
    )
    for problem in (
        "MB of memory and needs 99999999",
        "70000, which is no port",
        "tls_private_key",
        "Not so: nobody, occupancy_app",
        "sessions x (4.25 + 1.5 x work_mem 32.00)",
        "container_images_source",
        "between 1 and 1200, and are 0, 24, 12.",
        "Not so: @daily.",
    ):
        assert problem in output


def test_a_port_in_use_and_a_cluster_of_another_major_version_are_named(
    refused: Callable[..., str], host: Host
) -> None:
    host.check_output("mkdir -p /srv/fifteen/pgdata && echo 15 > /srv/fifteen/pgdata/PG_VERSION")
    host.check_output("systemd-run --unit=squatter /usr/bin/python3 -m http.server 5999")
    try:
        wait_for(lambda: host.socket("tcp://0.0.0.0:5999").is_listening, "the program on port 5999")
        output = refused(occupancy_port=5999, occupancy_data_dir="/srv/fifteen")
    finally:
        host.check_output("systemctl stop squatter")
    assert "Port 5999 is in use by" in output
    assert "python3" in output
    assert "holds a cluster of PostgreSQL 15" in output


def test_a_data_directory_with_other_files_is_refused(refused: Callable[..., str], host: Host) -> None:
    host.check_output("mkdir -p /srv/photos/pgdata && touch /srv/photos/pgdata/holiday.jpg")
    assert "not empty" in refused(occupancy_data_dir="/srv/photos")
    assert host.file("/srv/photos/pgdata/holiday.jpg").exists


def test_no_empty_cluster_replaces_missing_data(refused: Callable[..., str], host: Host) -> None:
    # As after a boot without the data disk
    assert "holds none: is its disk mounted" in refused(occupancy_data_dir="/srv/not-mounted")
    assert not host.file("/srv/not-mounted").exists
