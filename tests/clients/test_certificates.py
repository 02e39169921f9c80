"""From one CA to the next: real clients that trust the old one, the new one or both connect meanwhile."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest

from bench.server import Server
from tests.clients.server import LIMITS, SETTINGS, Login
from tests.unit.test_certificates import job, old_authority
from tests.waiting import wait_for

INSTALL = """
set -eu
umask 077
cat >"$PGDATA/new.pem"
mv "$PGDATA/new.pem" "$PGDATA/server.pem"
kill -HUP "$(head -n1 "$PGDATA/postmaster.pid")"
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, whose certificate the tests replace."""
    with Server(tmp_path_factory.mktemp("ca"), LIMITS, SETTINGS, "occupancy-certificates") as server:
        yield server


@pytest.fixture(params=[300, 60], ids=["the old CA signs", "the new CA signs"])
def login(request: pytest.FixtureRequest, plain: Server, tmp_path: Path) -> Login:
    """The superuser's login, with a CA of release 0.1.0 that ends in so many days."""
    for name in ("ca", "tls"):
        (tmp_path / name).mkdir()
    host: dict[str, Any] = {
        "dir": str(tmp_path), "uid": tmp_path.stat().st_uid, "name": "home", "names": ["127.0.0.1"],
        "days": 825, "renew_days": 275,
    }  # fmt: skip
    now = datetime.now(UTC)
    old_authority(host, now - timedelta(days=3650 - request.param))
    job.converge(host, now)
    pem = (tmp_path / "tls/server.pem").read_bytes()
    command = ["docker", "exec", "--interactive", plain.name, "sh", "-c", INSTALL]
    subprocess.run(command, input=pem, check=True, capture_output=True)
    variables = plain.environment("postgres", "postgres")
    password = variables["POSTGRES_PASSWORD"]
    login = Login("postgres", password, "postgres", plain.port, tmp_path / "tls/ca.crt")
    wait_for(lambda: connects(login), "the server with its new certificate")
    return login


def connects(login: Login) -> bool:
    """Whether a client with the file of the host connects."""
    try:
        psycopg2.connect(**login.libpq()).close()
    except psycopg2.OperationalError:
        return False
    return True


@pytest.mark.parametrize("trusts", ["old", "new", "both"])
async def test_drivers_verify_the_server(login: Login, tmp_path: Path, trusts: str) -> None:
    both = job.certificates(login.ca_file.read_text())
    assert len(both) == 2
    chosen = {"old": both[:1], "new": both[1:], "both": both}[trusts]
    file = tmp_path / "trusted.crt"
    file.write_text("".join(map(job.pem, chosen)))
    client = replace(login, ca_file=file)
    psycopg2.connect(**client.libpq()).close()
    psycopg.connect(client.conninfo()).close()
    connection = await client.asyncpg()
    await connection.close()
