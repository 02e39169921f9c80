"""The examples of the documents run as written, in a copy of the checkout beside a server with TLS."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from provisioning.env_file import assign
from tests.database.cluster import Cluster
from tests.database.conftest import create
from tests.database.tunnel import tls_tunnel
from tests.database.users import OWNER, grant, make_users, password
from tests.documents import DOCUMENTS, Block, blocks_to_run, inline_code, scratch_checkout

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""The programs of the tests' environment come first, uv among them, so that make installs nothing."""

APP_PASSWORD = "of the application"
TEMPLATE = "documents"
DATABASES = ("occupancy_dev", "occupancy_test")
"""The databases that `make up` creates on a developer's machine; the second is empty."""


@dataclass(frozen=True)
class Server:
    """A server, its port for TLS, and the CA of its certificate."""

    cluster: Cluster
    port: int
    ca: trustme.CA


@dataclass(frozen=True)
class Machine:
    """A checkout on a machine after `make up`, and its server."""

    checkout: Path
    server: Server

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as a developer does in the checkout.

        Args:
            command: The program and its arguments.
            stdin: What the developer types.
        """
        return subprocess.run(
            command,
            cwd=self.checkout,
            env={
                "PATH": f"{self.server.cluster.bin}:{PATH}",
                "HOME": str(self.checkout.parent),
                # The examples name the host and leave the port to its default, 5432 on a real host.
                "PGPORT": str(self.server.port),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with TLS and the product's users, and a database at head to copy."""
    cluster, ca = Cluster(), trustme.CA()
    cluster.start()
    try:
        make_users(cluster)
        # In ~/.pgpass, where asyncpg and libpq have different rules for escaping.
        cluster.execute(f"ALTER ROLE occupancy_app PASSWORD '{APP_PASSWORD}'")
        create(cluster, TEMPLATE)
        migrate(cluster, tmp_path_factory.mktemp("template"))
        grant(cluster, TEMPLATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        with tls_tunnel(context, cluster.host, cluster.port) as port:
            yield Server(cluster, port, ca)
    finally:
        cluster.stop()


def migrate(cluster: Cluster, directory: Path) -> None:
    """Migrate the database that is copied for each example."""
    migrated = subprocess.run(
        ["occupancy-db", "migrate"],
        env={
            "PATH": PATH,
            "POSTGRES_HOST": cluster.host,
            "POSTGRES_PORT": str(cluster.port),
            "POSTGRES_DB": TEMPLATE,
            "POSTGRES_PASSWORD": password(OWNER),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    """A fresh checkout and fresh databases."""
    cluster = server.cluster
    for name in DATABASES:
        cluster.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    cluster.execute(f"CREATE DATABASE occupancy_dev OWNER {OWNER} TEMPLATE {TEMPLATE}")
    cluster.execute("GRANT CONNECT ON DATABASE occupancy_dev TO occupancy_app")
    create(cluster, "occupancy_test")
    checkout = scratch_checkout(tmp_path / "checkout")
    certificate = checkout / "dist/ca/localhost.crt"
    certificate.parent.mkdir(parents=True)
    server.ca.cert_pem.write_to_path(str(certificate))
    dotenv = {
        "ENVIRONMENT": "development",
        "POSTGRES_HOST": "localhost",
        "POSTGRES_PORT": server.port,
        "POSTGRES_DB": "occupancy_dev",
        "POSTGRES_TEST_DB": "occupancy_test",
        "POSTGRES_USER": OWNER,
        "POSTGRES_PASSWORD": f'"{password(OWNER)}"',
        "POSTGRES_SSLMODE": "verify-full",
        "POSTGRES_SSLROOTCERT": certificate,
    }
    (checkout / ".env").write_text("".join(f"{name}={value}\n" for name, value in dotenv.items()))
    write_app_env(checkout, {name: str(value) for name, value in dotenv.items()})
    pgpass = tmp_path / ".pgpass"
    passwords = {OWNER: password(OWNER), "occupancy_app": APP_PASSWORD}
    pgpass.write_text("".join(f"*:*:*:{user}:{text}\n" for user, text in passwords.items()))
    pgpass.chmod(0o600)
    write_readings(checkout)
    return Machine(checkout, server)


def write_app_env(checkout: Path, owner: dict[str, str]) -> None:
    """The file with the login of the application, as the access role writes it."""
    login = {
        "POSTGRES_HOST": owner["POSTGRES_HOST"],
        "POSTGRES_PORT": owner["POSTGRES_PORT"],
        "POSTGRES_DB": owner["POSTGRES_DB"],
        "POSTGRES_PASSWORD": APP_PASSWORD,
        "POSTGRES_USER": "occupancy_app",
        "POSTGRES_SSLMODE": owner["POSTGRES_SSLMODE"],
        "POSTGRES_SSLROOTCERT": owner["POSTGRES_SSLROOTCERT"],
    }
    libpq = {
        name.replace("POSTGRES_DB", "PGDATABASE").replace("POSTGRES_", "PG"): value
        for name, value in login.items()
    }
    lines = [assign(value, name) for name, value in {**login, **libpq}.items()]
    (checkout / "app.env").write_text("\n".join(lines) + "\n")


def write_readings(directory: Path) -> None:
    """The files that the examples of docs/readings.md import."""
    start = datetime(2025, 1, 1, 12, tzinfo=UTC)
    header = "timestamp,room,zone,state,source_entity\n"
    for month in range(2):
        moments = [start + timedelta(days=31 * month, minutes=minute) for minute in range(10)]
        rows = "".join(f"{moment.isoformat()},office,desk,on,binary_sensor.desk\n" for moment in moments)
        (directory / f"2025-0{month + 1}.csv.gz").write_bytes(gzip.compress((header + rows).encode()))
    exported = {
        "when": start.isoformat(),
        "room": "office",
        "area_name": "desk",
        "state": True,
        "source_entity": "binary_sensor.x",
    }
    (directory / "export.ndjson").write_text(json.dumps(exported) + "\n")
    (directory / "clock.csv").write_text(f"{header}2025-03-01 12:00:00,office,desk,on,binary_sensor.desk\n")
    (directory / "history.csv").write_text(
        f"entity_id,state,last_changed\nbinary_sensor.fp2_office_desk,on,{start.isoformat()}\n"
    )
    (directory / "entities.csv").write_text(
        "entity_id,room,zone\nbinary_sensor.fp2_office_desk,office,desk\n"
    )


EXAMPLES = blocks_to_run("database")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_example_runs(example: Block, machine: Machine) -> None:
    if example.language == "python":
        (machine.checkout / "example.py").write_text(example.text)
        done = machine.run(".venv/bin/python", "example.py")
    elif example.language == "sql":
        done = machine.run(
            "psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", "localhost", "-U", OWNER, "occupancy_dev",
            stdin=example.text,
        )  # fmt: skip
    else:
        done = machine.run("bash", "-euo", "pipefail", "-c", example.text, stdin="SELECT current_user;\n")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout
    assert "Traceback" not in done.stderr


TARGETS = sorted(
    {
        text
        for path in DOCUMENTS
        for text in inline_code(path)
        if text.startswith(("make db-", "make migrate-"))
    }
)


@pytest.mark.parametrize("command", TARGETS)
def test_make_target_runs(command: str, machine: Machine) -> None:
    done = machine.run("bash", "-euo", "pipefail", "-c", command, stdin="y\n")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout
