"""The playbook is run again: without changes in the inventory nothing changes, and each change takes effect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import trustme
from dotenv import dotenv_values
from testinfra.host import Host

from tests.hosts import ROOT, Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]
pytestmark = pytest.mark.any_release

Play = Callable[..., subprocess.CompletedProcess[str]]


def changed(run: subprocess.CompletedProcess[str], server: Server) -> int:
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    found = re.search(rf"^{server.name} .* changed=(\d+)", run.stdout, re.MULTILINE)
    assert found
    return int(found[1])


def served_serial(server: Server) -> str:
    """The serial number of the certificate that the server sends."""
    shown = subprocess.run(
        f"openssl s_client -starttls postgres -connect {server.address}:5432 </dev/null 2>/dev/null | openssl x509 -noout -serial",
        shell=True,
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip()


# Of all roles; each is for another tag than the test's.
PENDING: dict[str, Any] = {
    "occupancy_users": [{"name": "grafana", "role": "occupancy_readonly"}],
    "occupancy_allowed_cidrs": ["10.215.16.0/24"],
    "retention_months": 6,
    "backup_schedule": "",
    "occupancy_application_idle_in_transaction": "14min",
}
STATE = """
    sha256sum /etc/cron.d/* /opt/occupancy/secrets/* /opt/occupancy/*.env /opt/occupancy/*.json /opt/occupancy/*.yaml
    sha256sum /opt/occupancy/postgresql/pg_*; grep -v '^#\\|MEMORY\\|CPUS\\|SHM' /opt/occupancy/.env
"""


def started(superuser: Callable[[str], str]) -> str:
    return superuser("SELECT pg_postmaster_start_time()")


def test_a_check_with_diff_reports_nothing_and_shows_no_secret(play: Play, server: Server) -> None:
    run = play("--check", "--diff", "-vv")
    assert changed(run, server) == 0
    assert "PRIVATE KEY" not in run.stdout
    assert not [user for user, password in server.passwords.items() if password in run.stdout + run.stderr]


def users_with_new_passwords(run: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the users whose new passwords the run has reported."""
    found = re.search(r"New passwords, which clients must get: ([\w, ]+)\.", " ".join(run.stdout.split()))
    assert found
    return set(found[1].split(", "))


def assert_read_only(session: psycopg2.extensions.connection) -> None:
    """Assert that the session of a dashboard can read but not write, even after changing its settings."""
    with session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sensor_readings")
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            cursor.execute("INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')")
        cursor.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')")


def test_changes_of_the_inventory_take_effect_and_are_reverted(
    play: Play, server: Server, host: Host, superuser: Callable[[str], str]
) -> None:
    before, serial, ca = started(superuser), served_serial(server), server.ca.read_text()
    schedules = host.file("/etc/cron.d/occupancy-retention").content_string
    old, new = server.passwords["occupancy_app"], "A-new-password-with-%-and-'quotes'"
    run = play(
        "--tags",
        "tls,postgres,access,retention",
        "--diff",
        "-v",
        tls_names=["db.example"],
        access_passwords={"occupancy_app": new},
        occupancy_users=[{"name": "grafana", "role": "occupancy_readonly"}],
        postgres_settings={"log_min_duration_statement": "250ms"},
        occupancy_allowed_cidrs=["10.215.16.1/32", "10.215.16.0/24"],
        retention_months=6,
        retention_maintain_schedule="",
    )
    assert changed(run, server) > 0
    assert new not in run.stdout + run.stderr

    # A password, for the existing cluster
    assert server.query("occupancy_app", "SELECT 1", password=new) == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        server.query("occupancy_app", "SELECT 1", password=old)
    # A user with the privileges of a dashboard
    password = host.check_output("cat /opt/occupancy/secrets/grafana")
    session = server.connect("grafana", password=password)
    assert_read_only(session)
    # A network: pg_hba.conf admits a client with another address, whose password is wrong
    assert "password authentication failed" in server.connection_error_from_another_host()
    # A renewed certificate and a setting, both without a restart
    renewed = served_serial(server)
    assert renewed != serial
    assert superuser("SHOW log_min_duration_statement") == "250ms"
    assert started(superuser) == before
    # Schedules
    table = host.file("/etc/cron.d/occupancy-retention").content_string
    assert "cleanup --no-dry-run --months 6 " in table
    assert "occupancy-job maintain" not in table

    # Back to the inventory without these variables, with a new certificate and new passwords
    run = play("--tags", "postgres,access,retention,rotate-tls,rotate-passwords")
    assert changed(run, server) > 0
    assert users_with_new_passwords(run) == set(server.passwords)
    assert host.file("/etc/cron.d/occupancy-retention").content_string == schedules
    rotated = host.check_output("cat /opt/occupancy/secrets/occupancy_app")
    assert rotated not in (old, new)
    assert server.query("occupancy_app", "SELECT 1", password=rotated) == [(1,)]
    assert host.check_output("occupancy-db --json current")
    assert served_serial(server) not in (serial, renewed)
    assert server.ca.read_text() == ca
    assert not host.file("/opt/occupancy/secrets/grafana").exists
    assert superuser("SELECT count(*) FROM pg_roles WHERE rolname = 'grafana'") == "0"
    with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:  # its open session has ended
        cursor.execute("SELECT 1")
    assert "pg_hba.conf rejects connection" in server.connection_error_from_another_host()
    assert superuser("SHOW log_min_duration_statement") == "1s"
    assert started(superuser) == before


def login(file: Path, server: Server) -> list[str]:
    """Who connects through libpq with the variables of the file, read by a shell, to the host's address."""
    program = "import psycopg2; c = psycopg2.connect('').cursor(); c.execute('SELECT current_user'); print(c.fetchone()[0])"
    done = subprocess.run(
        [
            "sh",
            "-c",
            'set -a; . "$1"; PGHOST=$2; exec "$3" -c "$4"',
            "sh",
            file,
            server.address,
            sys.executable,
            program,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_application_gets_a_login_that_follows_its_password(
    play: Play, server: Server, superuser: Callable[[str], str], tmp_path: Path
) -> None:
    file, secret = tmp_path / "app.env", 'it\'s $5 # "odd" \\ ${HOME} ü '
    chosen = {"access_app_env_file": str(file), "access_passwords": {"occupancy_app": secret}}
    run = play("--tags", "access", "-v", **chosen)
    assert changed(run, server) > 0
    assert secret not in run.stdout + run.stderr
    files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert files == {"app.env": 0o600, "app.settings.env": 0o600}
    assert login(file, server) == ["occupancy_app"]
    assert dotenv_values(file)["PGHOST"] == server.name  # not localhost, which is another machine here
    for path in tmp_path.iterdir():
        assert dotenv_values(path)["POSTGRES_PASSWORD"] == secret
    assert set(dotenv_values(tmp_path / "app.settings.env")) == {
        f"POSTGRES_{name}" for name in ("HOST", "PORT", "DB", "USER", "PASSWORD")
    }
    assert changed(play("--tags", "access", **chosen), server) == 0
    run = play("--tags", "rotate-passwords", access_app_env_file=str(file), **PENDING)
    assert superuser("SELECT count(*) FROM pg_roles WHERE rolname = 'grafana'") == "0"
    assert users_with_new_passwords(run) == set(server.passwords)
    assert login(file, server) == ["occupancy_app"]


def test_a_run_that_was_interrupted_before_the_reload_is_completed_by_the_next(
    play: Play, server: Server, host: Host, superuser: Callable[[str], str]
) -> None:
    # As after a run that was killed between writing pg_hba.conf and the reload.
    # The server compares whole seconds: the file must be of a later one.
    loaded = "SELECT clock_timestamp() > date_trunc('second', pg_conf_load_time()) + interval '1 second'"
    wait_for(lambda: superuser(loaded) == "t", "the second after the server loaded its configuration")
    host.check_output("touch /opt/occupancy/postgresql/pg_hba.conf")
    assert changed(play("--tags", "postgres"), server) == 1


def test_a_setting_that_needs_a_restart_restarts_the_server(
    play: Play, server: Server, host: Host, superuser: Callable[[str], str]
) -> None:
    state = host.check_output(STATE)
    for settings, expected in [({"max_worker_processes": 9}, "9"), ({}, "8")]:  # set, and removed
        before = started(superuser)
        run = play("--tags", "tuning", postgres_settings=settings, **PENDING)
        assert changed(run, server) > 0
        assert host.check_output(STATE) == state
        assert superuser("SELECT count(*) FROM pg_roles WHERE rolname = 'grafana'") == "0"
        assert "ALTER SYSTEM" not in run.stdout
        assert superuser("SHOW max_worker_processes") == expected
        assert started(superuser) != before
    assert changed(play("--tags", "postgres"), server) == 0


def test_a_setting_that_the_server_cannot_read_changes_nothing(
    play: Play, server: Server, host: Host
) -> None:
    before = host.check_output("sha256sum /opt/occupancy/postgresql/postgresql.conf")
    run = play("--tags", "postgres", postgres_settings={"work_mem": "plenty"})
    assert run.returncode != 0
    assert "work_mem" in run.stdout
    assert host.check_output("sha256sum /opt/occupancy/postgresql/postgresql.conf") == before
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """An operator's own CA: authority(name, …) issues a certificate and returns the role's three variables."""
    home = tmp_path_factory.mktemp("authority")
    cas = {"own": trustme.CA(), "foreign": trustme.CA()}
    cas["own"].cert_pem.write_to_path(home / "ca.crt")

    def issue(name: str, expired: bool = False, signed_by: str = "own") -> dict[str, str]:
        now = datetime.now(UTC)
        issued = cas[signed_by].issue_cert(
            name, not_before=now - timedelta(days=9), not_after=now + timedelta(days=-1 if expired else 90)
        )
        stem = home / f"{name}-{expired}-{signed_by}"
        issued.cert_chain_pems[0].write_to_path(f"{stem}.crt")
        issued.private_key_pem.write_to_path(f"{stem}.key")
        return {
            "tls_certificate": f"{stem}.crt",
            "tls_private_key": f"{stem}.key",
            "tls_ca_certificate": str(home / "ca.crt"),
        }

    return issue


def test_an_operators_certificate_is_served_and_removed(
    play: Play,
    server: Server,
    host: Host,
    superuser: Callable[[str], str],
    authority: Callable[..., dict[str, str]],
) -> None:
    own, state, before = authority(server.name), host.check_output(STATE), started(superuser)
    settings = {"max_worker_processes": 9}  # for another tag, as PENDING
    assert changed(play("--tags", "tls", **own, postgres_settings=settings, **PENDING), server) > 0
    assert (host.check_output(STATE), started(superuser)) == (state, before)
    assert superuser("SHOW max_worker_processes") == "8"
    options = {"host": server.name, "hostaddr": server.address, "sslrootcert": own["tls_ca_certificate"]}
    assert server.query("occupancy_app", "SELECT 1", **options) == [(1,)]
    assert changed(play("--tags", "tls"), server) > 0
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


def test_a_certificate_that_clients_would_refuse_replaces_nothing(
    play: Play, server: Server, authority: Callable[..., dict[str, str]]
) -> None:
    bad = authority("elsewhere.example", expired=True, signed_by="foreign")
    bad["tls_private_key"] = authority(server.name)["tls_private_key"]
    serial = served_serial(server)
    run = play("--tags", "tls", **bad, tls_names=[server.name])
    assert run.returncode != 0
    said = " ".join(run.stdout.split())
    for flaw in ("not the key", "It expired", "not issued by", "It is for elsewhere.example"):
        assert flaw in said
    assert served_serial(server) == serial
    assert server.query("occupancy_app", "SELECT 1") == [(1,)]


def test_changes_of_users_by_hand_are_undone(
    play: Play, server: Server, superuser: Callable[[str], str]
) -> None:
    for statement in (
        "ALTER ROLE occupancy_app SET statement_timeout = 0",
        "ALTER ROLE occupancy_app CONNECTION LIMIT -1",
        "ALTER ROLE occupancy_readonly CREATEDB",
        "ALTER ROLE occupancy_monitor PASSWORD 'another password'",
        "GRANT pg_read_all_data TO occupancy_monitor",
        "GRANT TRUNCATE ON sensor_readings TO occupancy_app",
    ):
        superuser(statement)
    # The tasks for users, memberships and the privileges of the database
    assert changed(play("--tags", "access"), server) == 3
    assert server.query("occupancy_app", "SHOW statement_timeout") == [("1min",)]
    assert server.query("occupancy_monitor", "SELECT 1") == [(1,)]
    assert superuser("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'occupancy_readonly'") == "f"
    assert superuser("SELECT pg_has_role('occupancy_monitor', 'pg_read_all_data', 'member')") == "f"
    assert superuser("SELECT has_table_privilege('occupancy_app', 'sensor_readings', 'TRUNCATE')") == "f"
    assert changed(play("--tags", "access"), server) == 0


def test_a_run_waits_for_a_server_that_is_starting(server: Server, host: Host, tmp_path: Path) -> None:
    host.check_output("docker stop occupancy-postgres-1")
    log = tmp_path / "playbook.log"
    command = ["ansible-playbook", "playbooks/site.yml", "--limit", server.name, "--tags", "access"]
    command += ["--inventory", os.environ["MOLECULE_INVENTORY_FILE"]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    with log.open("w") as output, subprocess.Popen(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
    ) as run:  # fmt: skip
        wait_for(
            lambda: "Wait until the server answers (" in log.read_text() or run.poll() is not None,
            "the task that waits for the server",
            limit=300,
            interval=0.2,
            explain=lambda: log.read_text()[-3000:],
        )
        assert run.poll() is None, log.read_text()[-3000:]
        host.check_output("docker start occupancy-postgres-1")
        assert run.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert f"{server.name} " in log.read_text().split("PLAY RECAP")[1]


def test_settings_made_by_alter_system_are_reported_and_kept(
    play: Play, server: Server, superuser: Callable[[str], str]
) -> None:
    superuser("ALTER SYSTEM SET work_mem = '3MB'")
    superuser("ALTER SYSTEM SET max_connections = 51")  # pending until a restart
    superuser("ALTER DATABASE occupancy SET jit = on")
    superuser("SELECT pg_reload_conf()")
    before = started(superuser)
    try:
        run = play("--tags", "tuning")
        said = " ".join(run.stdout.split())
        assert "RESET removes them: work_mem = 3MB, max_connections = 51, jit=on in occupancy" in said
        assert changed(run, server) == 0
        assert started(superuser) == before
        assert "skipped vm.swappiness: the host is a container (docker)" in run.stdout
    finally:
        superuser("ALTER SYSTEM RESET ALL")
        superuser("ALTER DATABASE occupancy RESET ALL")
        superuser("SELECT pg_reload_conf()")
