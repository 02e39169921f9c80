"""Which clients can connect over the network, and which are refused."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import trustme
from testinfra.host import Host

from tests.hosts import ROOT, Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

Play = Callable[..., subprocess.CompletedProcess[str]]


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


def test_the_certificate_is_valid_for_the_name_in_other_containers(server: Server) -> None:
    assert server.query("occupancy_app", "SELECT 1", host="postgres", hostaddr=server.address) == [(1,)]


def test_the_job_renews_the_certificate_and_reloads(
    server: Server, host: Host, superuser: Callable[[str], str]
) -> None:
    table = host.file("/etc/cron.d/occupancy-tls").content_string
    (command,) = re.findall(r"^20 4 \* \* \* root (.+)$", table, re.MULTILINE)
    request = command.split()[-1]
    kept = host.check_output("cat %s", request)
    # Nothing but the time makes the job renew, or another request; the request can be changed here.
    changed = json.loads(kept) | {"names": [*json.loads(kept)["names"], "added.example"]}
    options: dict[str, Any] = {"host": "added.example", "hostaddr": server.address}
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        server.connect("occupancy_app", **options)
    started = superuser("SELECT pg_postmaster_start_time()")
    host.check_output("printf %%s %s > %s", json.dumps(changed), request)
    said = host.check_output(f"{command} 2>&1")
    assert "a server certificate was issued: its names differ" in said
    assert re.search(r"days left: \d+ of the server's certificate, \d+ of the CA", said)
    wait_for(lambda: connects(server, options), "the server with the new certificate")
    assert superuser("SELECT pg_postmaster_start_time()") == started
    metrics = host.file("/var/lib/occupancy/metrics/occupancy_tls.prom").content_string
    assert (
        len(
            re.findall(r'^occupancy_tls_days_left\{certificate="(?:server|ca)"\} \d+$', metrics, re.MULTILINE)
        )
        == 2
    )
    assert (
        'occupancy_job_last_exit_code{job="certificate"} 0'
        in host.file("/var/lib/occupancy/metrics/occupancy_certificate.prom").content_string
    )
    host.check_output("printf %%s %s > %s", kept, request)
    host.check_output(command)


def connects(server: Server, options: dict[str, Any]) -> bool:
    """Whether a verifying client connects under another name."""
    try:
        return server.query("occupancy_app", "SELECT 1", **options) == [(1,)]
    except psycopg2.OperationalError:
        return False


APPLICATION = """
services:
  application:
    image: {image}
    entrypoint: [sh, -c]
    user: "10001"
    command:
      - PGPASSWORD=$$(cat /run/password) psql --no-align --tuples-only --command 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'
    environment:
      {{PGHOST: "{name}", PGDATABASE: occupancy, PGUSER: occupancy_app, PGSSLMODE: verify-full, PGSSLROOTCERT: /run/ca.crt}}
    volumes:
      - /opt/occupancy/tls/ca.crt:/run/ca.crt:ro
      - /opt/occupancy/secrets/occupancy_app:/run/password:ro
    networks: [default, occupancy]
networks:
  occupancy: {{external: true}}
"""


@pytest.mark.parametrize("name", ["postgres", "occupancy-postgres"])
def test_an_application_in_a_container_joins_the_network_by_its_name(host: Host, name: str) -> None:
    image = host.check_output("docker inspect --format '{{.Config.Image}}' occupancy-postgres-1")
    text = APPLICATION.format(image=image, name=name)
    host.check_output("mkdir -p /root/application && printf %%s %s > /root/application/compose.yaml", text)
    try:
        run = "docker compose --project-directory /root/application run --rm application"
        assert host.check_output(run) == "t"
    finally:
        host.check_output(
            "docker compose --project-directory /root/application down && rm -r /root/application"
        )


def test_an_application_on_ipv6_of_the_host_itself(host: Host, play: Play) -> None:
    connect = (
        "import psycopg2; psycopg2.connect(host='{}', dbname='occupancy', user='occupancy_app', sslmode='verify-full', "
        "password=open('/opt/occupancy/secrets/occupancy_app').read(), sslrootcert='/opt/occupancy/tls/ca.crt')"
    )
    if not host.file("/proc/sys/net/ipv6/conf/lo/disable_ipv6").content_string.startswith("0"):
        pytest.skip("the host has no IPv6")
    try:
        run = play("--tags", "postgres", occupancy_listen_address=["0.0.0.0", "::1"])  # noqa: S104
        assert run.returncode == 0, run.stdout[-4000:]
        for address in ("::1", "127.0.0.1"):
            assert host.run("/usr/bin/python3 -c %s", connect.format(address)).rc == 0
    finally:
        assert play("--tags", "postgres").returncode == 0


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
    # 999 is postgres in the container, and 10001 the user of the tools.
    for user in ("nobody", "999", "10001"):
        refused = host.run(f"setpriv --reuid={user} --clear-groups /usr/bin/python3 -c %s", attempt)
        assert refused.rc != 0
        assert "Permission denied" in refused.stderr
        secrets = host.run(f"setpriv --reuid={user} --clear-groups cat /opt/occupancy/secrets/occupancy")
        assert (secrets.rc, secrets.stdout) == (1, "")
    for uid, name in (("999", "occupancy-server"), ("10001", "occupancy-tools")):
        account = host.check_output(f"getent passwd {uid}").split(":")
        assert (account[0], account[5:]) == (name, ["/nonexistent", "/usr/sbin/nologin"])


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
