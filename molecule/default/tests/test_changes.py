"""Running the playbook again: nothing changes by itself, and what the inventory says takes effect."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
from testinfra.host import Host

from tests.hosts import Server

# What a playbook does does not depend on the release it is pointed at; one host keeps the suite within its time.
testinfra_hosts = ["ansible://occupancy-debian13"]

Play = Callable[..., subprocess.CompletedProcess[str]]


def changed(run: subprocess.CompletedProcess[str], server: Server) -> int:
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    found = re.search(rf"^{server.name} .* changed=(\d+)", run.stdout, re.MULTILINE)
    assert found
    return int(found[1])


def served_serial(server: Server) -> str:
    """The serial number of the certificate that a client is shown."""
    shown = subprocess.run(
        f"openssl s_client -starttls postgres -connect {server.address}:5432 </dev/null 2>/dev/null | openssl x509 -noout -serial",
        shell=True,  # noqa: S602 -- a pipe between two constant commands
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip()


def started(superuser: Callable[[str], str]) -> str:
    return superuser("SELECT pg_postmaster_start_time()")


def test_a_check_with_diff_reports_nothing_and_shows_no_secret(play: Play, server: Server) -> None:
    run = play("--check", "--diff", "-vv")
    assert changed(run, server) == 0
    assert "PRIVATE KEY" not in run.stdout
    assert not [user for user, password in server.passwords.items() if password in run.stdout + run.stderr]


def test_a_changed_password_takes_effect_on_the_existing_volume(play: Play, server: Server) -> None:
    old = server.passwords["occupancy_app"]
    new = "A-new-password-with-%-and-'quotes'"
    run = play("--tags", "access", "--diff", "-v", access_passwords={"occupancy_app": new})
    assert changed(run, server) > 0
    assert new not in run.stdout + run.stderr
    try:
        assert server.query("occupancy_app", "SELECT 1", password=new) == [(1,)]
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            server.query("occupancy_app", "SELECT 1", password=old)
    finally:
        assert changed(play("--tags", "access", access_passwords={"occupancy_app": old}), server) > 0


def test_rotated_passwords_are_new_and_work(play: Play, server: Server, host: Host) -> None:
    assert changed(play("--tags", "rotate-passwords"), server) > 0
    now = host.check_output("cat /opt/occupancy/secrets/occupancy_app")
    assert now != server.passwords["occupancy_app"]
    assert server.query("occupancy_app", "SELECT 1", password=now) == [(1,)]
    assert host.check_output("occupancy-db --json current")


def test_a_user_comes_and_goes_with_the_inventory(play: Play, server: Server, host: Host) -> None:
    assert changed(play("--tags", "postgres,access", occupancy_users=[{"name": "grafana", "role": "occupancy_readonly"}]), server) > 0
    password = host.check_output("cat /opt/occupancy/secrets/grafana")
    session = server.connect("grafana", password=password)
    with session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sensor_readings")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')")
    assert changed(play("--tags", "postgres,access"), server) > 0
    assert not host.file("/opt/occupancy/secrets/grafana").exists
    with pytest.raises(psycopg2.OperationalError):
        server.query("grafana", "SELECT 1", password=password)
    with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:  # its open session ended too
        cursor.execute("SELECT 1")


def test_a_network_that_is_taken_away_is_refused(play: Play, server: Server, superuser: Callable[[str], str]) -> None:
    before = started(superuser)
    assert changed(play("--tags", "postgres", occupancy_allowed_cidrs=["10.99.0.0/16"]), server) > 0
    try:
        with pytest.raises(psycopg2.OperationalError, match="pg_hba.conf rejects connection"):
            server.connect("occupancy_app")
    finally:
        assert changed(play("--tags", "postgres"), server) > 0
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]
    assert started(superuser) == before


def test_a_setting_restarts_only_when_it_must(play: Play, server: Server, superuser: Callable[[str], str]) -> None:
    before = started(superuser)
    assert changed(play("--tags", "postgres", postgres_settings={"log_min_duration_statement": "250ms"}), server) > 0
    assert superuser("SHOW log_min_duration_statement") == "250ms"
    assert started(superuser) == before
    assert changed(play("--tags", "postgres", postgres_max_connections=90), server) > 0
    assert (superuser("SHOW max_connections"), superuser("SHOW log_min_duration_statement")) == ("90", "-1")
    assert started(superuser) != before
    assert changed(play("--tags", "postgres"), server) > 0


def test_a_setting_that_the_server_cannot_read_changes_nothing(play: Play, server: Server, host: Host) -> None:
    before = host.check_output("sha256sum /opt/occupancy/postgresql/postgresql.conf")
    run = play("--tags", "postgres", postgres_settings={"work_mem": "plenty"})
    assert run.returncode != 0
    assert "work_mem" in run.stdout
    assert host.check_output("sha256sum /opt/occupancy/postgresql/postgresql.conf") == before
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


def test_rotating_the_certificate_keeps_ca_and_server_running(
    play: Play, server: Server, superuser: Callable[[str], str]
) -> None:
    serial, ca, before = served_serial(server), server.ca.read_text(), started(superuser)
    assert changed(play("--tags", "rotate-tls"), server) > 0
    assert served_serial(server) != serial
    assert server.ca.read_text() == ca
    assert started(superuser) == before
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


def test_a_certificate_about_to_expire_is_renewed(play: Play, server: Server) -> None:
    serial = served_serial(server)
    assert changed(play("--tags", "tls", tls_renew_days=30), server) == 0
    assert served_serial(server) == serial
    assert changed(play("--tags", "tls", tls_renew_days=826), server) > 0
    assert served_serial(server) != serial


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Make certificates as an operator's own CA would: authority(name=…, days=…) returns the role's three variables."""
    home = tmp_path_factory.mktemp("authority")

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], cwd=home, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=operator", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=foreign", "-keyout", "foreign.key", "-out", "foreign.crt")

    def issue(name: str, days: int = 90, signed_by: str = "ca") -> dict[str, str]:
        stem = f"{name}-{days}-{signed_by}"
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        (home / "san").write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1")
        dates = ["-days", str(days)]
        if days < 0:
            dates = ["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"]
        try:
            openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", f"{signed_by}.crt", "-CAkey", f"{signed_by}.key", "-extfile", "san", "-out", f"{stem}.crt", *dates)
        except subprocess.CalledProcessError:  # an OpenSSL before 3.4 has no -not_after for this command
            openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", f"{signed_by}.crt", "-CAkey", f"{signed_by}.key", "-extfile", "san", "-out", f"{stem}.crt", "-days", str(days))
        return {
            "tls_certificate": str(home / f"{stem}.crt"),
            "tls_private_key": str(home / f"{stem}.key"),
            "tls_ca_certificate": str(home / "ca.crt"),
        }

    return issue


def test_an_operators_certificate_is_served_and_taken_back(play: Play, server: Server, authority: Callable[..., dict[str, str]]) -> None:
    own = authority(server.name)
    assert changed(play("--tags", "tls,access", **own), server) > 0
    options = {"host": server.name, "hostaddr": server.address, "sslrootcert": own["tls_ca_certificate"]}
    assert server.query("occupancy_app", "SELECT 1", **options) == [(1,)]
    assert changed(play("--tags", "tls,access", **own), server) == 0
    assert changed(play("--tags", "tls,access"), server) > 0
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ("mismatched key", "not the key"),
        ("expired", "expired"),
        ("foreign", "not issued by"),
        ("another name", "none of"),
    ],
)
def test_a_certificate_that_clients_would_refuse_replaces_nothing(
    play: Play, server: Server, authority: Callable[..., dict[str, str]], flaw: str, says: str
) -> None:
    own = authority(
        "elsewhere.example" if flaw == "another name" else server.name,
        days=-1 if flaw == "expired" else 91,
        signed_by="foreign" if flaw == "foreign" else "ca",
    )
    if flaw == "mismatched key":
        own["tls_private_key"] = authority(server.name, days=92)["tls_private_key"]
    if flaw == "another name":
        own["tls_names"] = [server.name]  # type: ignore[assignment]
    serial = served_serial(server)
    run = play("--tags", "tls", **own)
    assert run.returncode != 0
    assert says in " ".join(run.stdout.split())
    assert served_serial(server) == serial
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


def test_a_run_cut_short_before_the_reload_is_finished_by_the_next(play: Play, server: Server, host: Host) -> None:
    # As a run that was killed between writing pg_hba.conf and reloading leaves it.
    host.check_output("sleep 1.1; touch /opt/occupancy/postgresql/pg_hba.conf")
    assert changed(play("--tags", "postgres"), server) == 1
    assert changed(play("--tags", "postgres"), server) == 0


def test_a_cluster_that_was_never_finished_is_not_taken_for_one(play: Play, server: Server, host: Host) -> None:
    # As an initdb that was killed leaves it, on a data directory of its own.
    host.check_output("mkdir -p /srv/half/pgdata.new && echo 16 > /srv/half/pgdata.new/PG_VERSION")
    run = play("--tags", "postgres", "--check", occupancy_data_dir="/srv/half")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "Clear away a cluster that was never finished" in run.stdout
    assert host.file("/srv/half/pgdata.new/PG_VERSION").exists
