"""Preflight refuses in one message, before any change."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.hosts import Server

testinfra_hosts = ["ansible://occupancy"]
pytestmark = pytest.mark.any_release

Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refused(play: Play, server: Server, host: Host) -> Iterator[Callable[..., str]]:
    """Run the playbook with variables that must be refused; returns what it said. Fails if anything was changed."""
    before = host.check_output("ls -lR --time-style=full-iso /opt/occupancy /usr/local/bin | sha256sum")

    def run(*arguments: str, **variables: Any) -> str:
        said = play(*arguments, **variables)
        assert said.returncode != 0, said.stdout[-3000:]
        assert " changed=0 " in next(
            line for line in said.stdout.splitlines() if line.startswith(server.name + " ")
        )
        return " ".join(said.stdout.split())

    yield run
    assert (
        host.check_output("ls -lR --time-style=full-iso /opt/occupancy /usr/local/bin | sha256sum") == before
    )


def test_every_problem_is_in_one_message(refused: Callable[..., str]) -> None:
    said = refused(
        occupancy_min_memory_mb=99_999_999,
        occupancy_min_free_mb=99_999_998,
        occupancy_port=70_000,
        occupancy_listen_address="localhost",
        occupancy_allowed_cidrs=["192.168.1.7/24"],
        occupancy_database="Occupancy; DROP",
        occupancy_test_database="postgres",
        occupancy_users=[{"name": "occupancy", "role": "occupancy_app"}],
        ansible_facts={"distribution": "Fedora", "distribution_version": "41"},
    )
    for problem in (
        "Fedora 41 is not supported",
        "MB of memory and needs 99999999",
        "which needs 99999998",
        "70000, which is no port",
        "no IPv4 address",
        "no network in CIDR notation (like 192.168.1.0/24): 192.168.1.7/24",
        "lower-case letters, digits and _",
        "cannot be one of the server's own",
        "names in occupancy_users",
    ):
        assert problem in said


@pytest.mark.parametrize(
    "variables",
    [
        {
            "occupancy_port": "many",
            "occupancy_environment": "staging",
            "occupancy_users": [{"name": "x", "role": "superuser"}],
        },
        {"tls_days": "soon", "tuning_processes": "some", "container_images_source": "floppy"},
    ],
)
def test_every_variable_of_the_wrong_kind_is_named(
    refused: Callable[..., str], variables: dict[str, Any]
) -> None:
    said = refused(**variables)
    for name in variables:
        assert name in said


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"tls_certificate": "/nonexistent.pem"}, "tls_private_key"),
        (
            {"access_passwords": {"occupancy_app": "short", "nobody": "long-enough-for-anyone"}},
            "Not so: nobody, occupancy_app",
        ),
        ({"container_images_source": "registry"}, "container_images_ops"),
        ({"postgres_settings": {"work_mem": "32MB"}}, "sessions x (4.25 + 1.5 x work_mem 32.00)"),
        ({"postgres_settings": {"max_connections": 20}}, "max_connections 20 is less than"),
        ({"tuning_sysctl": {"net.ipv4.ip_forward": 0}}, "Not so: net.ipv4.ip_forward."),
        ({"retention_months": 0}, "between 1 and 1200, and are 0, 24, 12."),
        ({"retention_cleanup_schedule": "@daily"}, "Not so: @daily."),
    ],
)
def test_refused(refused: Callable[..., str], variables: dict[str, Any], says: str) -> None:
    assert says in refused(**variables)


def test_a_port_in_use_is_named_with_its_owner(refused: Callable[..., str], host: Host) -> None:
    host.check_output("systemd-run --unit=squatter /usr/bin/python3 -m http.server 5999")
    try:
        said = refused(occupancy_port=5999)
    finally:
        host.check_output("systemctl stop squatter")
    assert "Port 5999 is in use by" in said
    assert "python3" in said


def test_a_data_directory_of_another_major_version_is_left_alone(
    refused: Callable[..., str], host: Host
) -> None:
    host.check_output("mkdir -p /srv/fifteen/pgdata && echo 15 > /srv/fifteen/pgdata/PG_VERSION")
    assert "holds a cluster of PostgreSQL 15" in refused(occupancy_data_dir="/srv/fifteen")


def test_a_data_directory_with_something_else_in_it_is_left_alone(
    refused: Callable[..., str], host: Host
) -> None:
    host.check_output("mkdir -p /srv/photos/pgdata && touch /srv/photos/pgdata/holiday.jpg")
    assert "not empty" in refused(occupancy_data_dir="/srv/photos")
    assert host.file("/srv/photos/pgdata/holiday.jpg").exists


def test_no_empty_cluster_takes_the_place_of_missing_data(refused: Callable[..., str], host: Host) -> None:
    # As after a boot without the data disk
    assert "holds none: is its disk mounted" in refused(occupancy_data_dir="/srv/not-mounted")
    assert not host.file("/srv/not-mounted").exists
