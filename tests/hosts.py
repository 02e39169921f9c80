"""Fixtures of the Molecule scenarios: connections to a host's server, and runs of the playbooks.

Everything here runs on the controller, against the hosts' addresses on the network that Docker gave them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from testinfra.host import Host

from provisioning import images

ROOT = Path(__file__).parents[1]
DATABASE = "occupancy"
NETWORK = "occupancy-molecule_default"
"""The network of the hosts, which molecule/shared/create.yml makes."""
PLAYBOOK_LIMIT = 1800
"""Seconds after which a playbook is ended. On a busy machine a run takes minutes."""


@dataclass(frozen=True)
class Server:
    """The server of a provisioned host, for its clients."""

    name: str
    address: str
    passwords: dict[str, str] = field(repr=False)

    @property
    def ca(self) -> Path:
        """The CA certificate that the playbook copied to the controller."""
        return ROOT / "dist" / "ca" / f"{self.name}.crt"

    def connect(self, user: str, **options: Any) -> psycopg2.extensions.connection:
        """Connect over the network and verify the server; `options` replace libpq parameters."""
        parameters: dict[str, Any] = {
            "host": self.address,
            "port": 5432,
            "dbname": DATABASE,
            "user": user,
            "password": self.passwords.get(user, ""),
            "sslmode": "verify-full",
            "sslrootcert": self.ca,
            "connect_timeout": 60,
        }
        connection: psycopg2.extensions.connection = psycopg2.connect(**parameters | options)
        connection.autocommit = True
        return connection

    def query(self, user: str, statement: str, **options: Any) -> list[tuple[Any, ...]]:
        """Run one statement as `user` over the network and return its rows."""
        connection = self.connect(user, **options)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def connection_error_from_another_host(self) -> str:
        """Connect from another address of the hosts' network with a wrong password, and return the error."""
        manifest = images.read_manifest(ROOT)
        conninfo = f"host={self.address} dbname={DATABASE} user=occupancy_app password=x sslmode=require"
        result = subprocess.run(
            f"docker run --rm --network {NETWORK} --entrypoint psql {manifest['postgres']['image']} '{conninfo}'",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2, f"psql ended with {result.returncode}: {result.stdout}{result.stderr}"
        return result.stderr

    def environment(self, user: str = "occupancy", **changes: str) -> dict[str, str]:
        """The environment in which a developer's occupancy-db reaches this server."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("POSTGRES_", "PG"))}
        return (
            kept
            | {
                "ENVIRONMENT": "production",
                "POSTGRES_HOST": self.address,
                "POSTGRES_DB": DATABASE,
                "POSTGRES_USER": user,
                "POSTGRES_PASSWORD": self.passwords[user],
                "POSTGRES_SSLROOTCERT": str(self.ca),
            }
            | changes
        )


def read_passwords(host: Host) -> dict[str, str]:
    """The password of each user, from the files on the host."""
    lines = host.check_output(
        'cd /opt/occupancy/secrets && for f in *; do echo "$f $(cat $f)"; done'
    ).splitlines()
    return dict(line.split(" ", 1) for line in lines)


known: dict[str, Server] = {}
"""The servers by name, with their passwords. A playbook run clears it."""


@pytest.fixture
def server(host: Host) -> Server:
    """The host's server."""
    name: str = host.backend.get_hostname()
    if name not in known:
        known[name] = find_server(name, host)
    return known[name]


def find_server(name: str, host: Host) -> Server:
    """Read the host's address from Docker, and the passwords of the users from the host."""
    address = subprocess.run(
        ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return Server(name, address, read_passwords(host))


@pytest.fixture
def superuser(host: Host) -> Callable[[str], str]:
    """Run SQL as the superuser: as root on the host, over the socket."""

    def run(statement: str, database: str = DATABASE) -> str:
        said: str = host.check_output(
            "docker exec --user 999 occupancy-postgres-1 "
            "psql --host=/var/run/postgresql --no-psqlrc --tuples-only --no-align --dbname=%s --command=%s",
            database,
            statement,
        )
        return said

    return run


@pytest.fixture
def play(server: Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the product's playbook again on this one host, with further arguments and variables."""

    def run(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return run_playbook("site.yml", "--limit", server.name, *arguments, **variables)

    return run


def run_playbook(
    name: str,
    *arguments: str,
    root: Path = ROOT,
    engine: Any = "",
    **variables: Any,
) -> subprocess.CompletedProcess[str]:
    """Run one of the product's playbooks on the scenario's hosts as an operator does.

    Args:
        name: The playbook.
        arguments: Further arguments.
        root: The checkout of the product, for instance of another release.
        engine: The address of the engine that Docker commands on the controller go to, if it is not its own.
        variables: Extra variables.
    """
    command = ["ansible-playbook", f"playbooks/{name}"]
    command += ["--inventory", os.environ["MOLECULE_INVENTORY_FILE"], *arguments]
    if variables:
        command += ["--extra-vars", json.dumps(variables)]
    known.clear()
    # With the project's ansible.cfg, not with Molecule's settings.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    # Filter plugins import the tools of the same checkout.
    environment["PYTHONPATH"] = str(root)
    if engine:
        environment["DOCKER_HOST"] = engine
    return subprocess.run(
        command,
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PLAYBOOK_LIMIT,
        check=False,
    )


def check_collection(session: pytest.Session, expected: int) -> None:
    """End a run of all tests that collected another number of tests than the scenario has.

    Args:
        session: The run, after collection.
        expected: How many tests the scenario has.
    """
    chosen = session.config.args
    if session.config.getoption("keyword") or any("::" in item or item.endswith(".py") for item in chosen):
        return
    if len(session.items) != expected:
        pytest.exit(
            f"{len(session.items)} tests were collected, and the scenario has {expected}: was a file renamed so that "
            "pytest does not collect it? If you added or removed tests, change the number in conftest.py.",
            returncode=1,
        )
