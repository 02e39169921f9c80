"""Which clients can connect over the network, and which are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import trustme
from testinfra.host import Host

from tests.hosts import ROOT, Server

testinfra_hosts = ["ansible://occupancy"]


def test_a_verifying_client_gets_tls_1_3_and_scram(server: Server) -> None:
    # Channel binding exists only for SCRAM over TLS: a connection that requires it proves both.
    rows = server.query(
        "occupancy_app",
        "SELECT version, bits >= 128 FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        channel_binding="require",
    )
    assert rows == [("TLSv1.3", True)]


def test_every_password_is_stored_as_scram(superuser: Callable[[str], str]) -> None:
    stored = superuser(
        "SELECT string_agg(DISTINCT split_part(rolpassword, '$', 1), ',') FROM pg_authid WHERE rolcanlogin AND rolname <> 'postgres'"
    )
    assert stored == "SCRAM-SHA-256"


def test_the_superuser_has_no_password(superuser: Callable[[str], str]) -> None:
    assert superuser("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"


def test_plaintext_is_refused(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        server.connect("occupancy_app", sslmode="disable")


def test_old_tls_is_refused(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"(?i)ssl|tls"):
        server.connect("occupancy_app", ssl_min_protocol_version="TLSv1", ssl_max_protocol_version="TLSv1.1")


def test_a_wrong_password_is_refused(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        server.connect("occupancy_app", password="not the password")


def test_a_client_with_another_ca_refuses_the_server(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        server.connect("occupancy_app", sslrootcert=other)


def test_a_client_that_expects_another_name_refuses_the_server(server: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        server.connect("occupancy_app", host="database.example", hostaddr=server.address)


def test_the_certificate_is_valid_for_the_inventory_name(server: Server) -> None:
    assert server.query("occupancy_app", "SELECT 1", host=server.name, hostaddr=server.address) == [(1,)]


@pytest.mark.parametrize("user", ["postgres", "occupancy_backup"])
def test_users_of_the_socket_are_refused_over_the_network(server: Server, user: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
        server.connect(user)


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_the_servers_own_databases_are_refused(server: Server, database: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
        server.connect("occupancy", dbname=database)


def test_a_client_of_another_network_is_refused(server: Server) -> None:
    # Its address is in the hosts' network, but not in occupancy_allowed_cidrs.
    assert "pg_hba.conf rejects connection" in server.connection_error_from_another_host()


def test_only_root_is_the_superuser_on_the_socket(host: Host) -> None:
    attempt = "import psycopg2; psycopg2.connect(host='/run/occupancy/postgresql', user='postgres', dbname='postgres')"
    assert host.run("/usr/bin/python3 -c %s", attempt).rc == 0
    refused = host.run("setpriv --reuid=nobody --clear-groups /usr/bin/python3 -c %s", attempt)
    assert refused.rc != 0
    assert "Peer authentication failed" in refused.stderr


@pytest.mark.parametrize(
    ("change", "exit_code", "says"),
    [
        ({}, 0, "TLSv1.3"),
        ({"POSTGRES_PASSWORD": "not the password"}, 5, "password"),
        ({"POSTGRES_SSLROOTCERT": "/etc/ssl/certs/ca-certificates.crt"}, 6, "certificate"),
        ({"POSTGRES_SSLMODE": "disable"}, 5, "pg_hba"),
        ({"POSTGRES_DB": "elsewhere"}, 5, "pg_hba"),
        ({"POSTGRES_PORT": "5998"}, 4, "refused"),
    ],
)
def test_the_cli_reports_an_error_in_one_line(
    server: Server, change: dict[str, str], exit_code: int, says: str
) -> None:
    said = subprocess.run(
        [ROOT / ".venv/bin/occupancy-db", "test-connection"],
        env=server.environment(**change),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == exit_code, said.stderr
    assert says in (said.stdout + said.stderr)
    assert "Traceback" not in said.stderr
    assert server.passwords["occupancy"] not in said.stdout + said.stderr
