"""A host of release 0.1.0 is upgraded with its data, in this order: in use, upgraded, used and restored."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from occupancy_db.schema.runner import script_directory
from tests.application import Application
from tests.hosts import Server, find_server, run_playbook
from tests.releases import check_out

testinfra_hosts = ["ansible://occupancy"]

NAME = "occupancy-upgrade"
RELEASE = "0.1.0"
HEAD = script_directory().get_current_head()

# Variables of the operator, for both releases
PASSWORD = "set-by-the-operator"
INVENTORY: dict[str, Any] = {
    "access_passwords": {"occupancy_app": PASSWORD},
    "occupancy_users": [{"name": "grafana", "role": "occupancy_readonly"}],
    "occupancy_test_database": "occupancy_test",
    "retention_months": 18,
}
ROWS = """
    INSERT INTO predictions (room, prediction_made_at, prediction_type, confidence, model_version, expected_vacancy_minutes)
    SELECT 'office', now() - n * interval '1 hour', 'vacancy', 0.5, '1', n FROM generate_series(1, 50) AS n;
    INSERT INTO room_transitions (timestamp, from_room, to_room)
    SELECT now() - n * interval '1 minute', 'office', 'bedroom' FROM generate_series(1, 50) AS n
"""
ENTITY = "binary_sensor.upgrade"

# An application's Compose project in a directory of that name: its name is that of the product's project in release 0.1.0.
FOREIGN = "docker compose --project-directory /home/operator/occupancy"
FOREIGN_FILE = """
services:
  app: {{image: {image}, entrypoint: [sleep, infinity], init: true}}
"""
FOREIGN_STATE = "docker inspect --format '{{.Id}} {{.State.StartedAt}}' occupancy-app-1"
TABLES = ("sensor_readings", "room_transitions", "predictions")

# The columns of the release before; a migration may add others.
COLUMNS = """
    SELECT json_object_agg(table_name, columns)
    FROM (
        SELECT table_name, json_agg(column_name ORDER BY ordinal_position) AS columns
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN {tables} GROUP BY table_name
    ) AS found
"""

Superuser = Callable[..., str]
Play = Callable[..., subprocess.CompletedProcess[str]]


class Before:
    """The host as release 0.1.0 left it."""

    columns: dict[str, list[str]]
    contents: dict[str, str]
    passwords: dict[str, str]
    ca: str
    backup: str
    readings: int
    foreign: str


before = Before()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the release."""
    return check_out(RELEASE, tmp_path_factory.mktemp("release") / "checkout")


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    """An application that writes through the upgrade."""
    application = Application(find_server(NAME, testinfra.get_host(f"docker://{NAME}")), ENTITY)
    application.start()
    yield application
    application.end()


def contents(superuser: Superuser) -> dict[str, str]:
    """A fingerprint of each table's rows without those of the application."""
    found = {}
    for table, columns in before.columns.items():
        condition = f"source_entity <> '{ENTITY}'" if table == "sensor_readings" else "true"
        rows = f"SELECT {', '.join(columns)} FROM {table} WHERE {condition}"
        found[table] = superuser(
            f"SELECT count(*), md5(string_agg(t::text, ';' ORDER BY t::text)) FROM ({rows}) AS t"
        )
    return found


def changed(run: subprocess.CompletedProcess[str]) -> int:
    """How many tasks changed the host in a run that must have ended well."""
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    found = re.search(rf"^{NAME} .* changed=(\d+)", run.stdout, re.MULTILINE)
    assert found
    return int(found[1])


def sets(host: Host) -> dict[str, str]:
    """The state of each backup set."""
    listed = json.loads(host.check_output("occupancy-db --json backup list </dev/null"))["sets"]
    return {one["id"]: one["state"] for one in listed}


def test_the_host_of_the_release_before_is_in_use(host: Host, release: Path, superuser: Superuser) -> None:
    assert changed(run_playbook("site.yml", root=release, **INVENTORY)) > 0
    server = find_server(NAME, host)
    before.ca = (release / "dist/ca" / f"{NAME}.crt").read_text()
    server.ca.parent.mkdir(parents=True, exist_ok=True)
    server.ca.write_text(before.ca)

    # The tools of that release, in the environment of this one.
    program = "import sys; from occupancy_db.cli import main; sys.argv = ['occupancy-db', 'seed', '--days', '7']; main()"
    seeded = subprocess.run(
        [sys.executable, "-c", program],
        env=server.environment(ENVIRONMENT="development", PYTHONPATH=str(release)),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert seeded.returncode == 0, seeded.stderr
    server.query("occupancy_app", ROWS)
    before.columns = json.loads(superuser(COLUMNS.format(tables=TABLES)))
    assert set(before.columns) == set(TABLES)
    before.contents = contents(superuser)
    before.readings = int(superuser("SELECT sum(reading_count) FROM sensor_reading_stats"))
    assert before.readings > 500
    before.passwords = server.passwords
    assert before.passwords["occupancy_app"] == PASSWORD

    host.check_output("occupancy-db backup create </dev/null")
    (before.backup,) = sets(host)
    assert sets(host) == {before.backup: "verified"}

    image = host.check_output("docker inspect --format '{{.Config.Image}}' occupancy-postgres-1")
    file = FOREIGN_FILE.format(image=image)
    host.check_output(
        "mkdir --parents /home/operator/occupancy && echo %s >/home/operator/occupancy/compose.yaml", file
    )
    host.check_output(f"{FOREIGN} up --detach")
    host.check_output(
        "useradd --system --uid 999 homeassistant"
    )  # as its manual says, on a host without system accounts
    before.foreign = host.check_output(FOREIGN_STATE)


def test_the_upgrade_brings_the_schema_to_head_while_the_application_writes(
    application: Application, superuser: Superuser
) -> None:
    application.write_more()
    run = run_playbook("site.yml", **INVENTORY)
    assert changed(run) > 0
    assert superuser("SELECT version_num FROM alembic_version") == HEAD
    application.write_more()
    application.end()
    # A new image or setting restarts the server once: the application connects again, and no confirmed row is lost.
    assert application.rows() >= application.written
    lost = (
        "terminating connection",
        "closed the connection",
        "closed unexpectedly",
        "starting up",
        "shutting down",
        "refused",
    )
    assert [error for error in application.failures if not any(words in error for words in lost)] == []


def test_a_project_with_the_former_name_and_the_product_leave_each_other_alone(
    host: Host, superuser: Superuser
) -> None:
    assert host.check_output(FOREIGN_STATE) == before.foreign
    started = superuser("SELECT pg_postmaster_start_time()")
    host.check_output(f"{FOREIGN} up --detach --remove-orphans")
    assert superuser("SELECT pg_postmaster_start_time()") == started
    assert host.check_output(FOREIGN_STATE) == before.foreign
    label = "docker inspect --format '{{index .Config.Labels \"com.docker.compose.project\"}}' occupancy-postgres-1"
    assert host.check_output(label) == "occupancy-database"


def test_an_account_with_the_id_of_the_servers_user_is_kept_out(host: Host) -> None:
    attempt = "import psycopg2; psycopg2.connect(host='/run/occupancy/postgresql', user='postgres', dbname='postgres')"
    as_account = "setpriv --reuid=999 --clear-groups"
    assert host.check_output(f"{as_account} id --user --name") == "homeassistant"
    for command in (
        "/usr/bin/python3 -c %s",
        "cat /opt/occupancy/secrets/occupancy",
        "ls /var/lib/occupancy/pgdata",
        "cat /var/lib/occupancy/pgdata/PG_VERSION",
    ):
        done = host.run(f"{as_account} {command}", *([attempt] if "%s" in command else []))
        assert done.rc != 0
        assert "Permission denied" in done.stderr
    # Its programs find the CA where those of other accounts do.
    assert host.check_output(f"{as_account} cat /opt/occupancy/tls/ca.crt").startswith("-----BEGIN")
    assert host.run("setpriv --reuid=nobody --clear-groups ls /var/lib/occupancy/metrics").rc == 0
    assert host.check_output("getent passwd 10001").startswith("occupancy-tools:")


def test_all_rows_are_unchanged(superuser: Superuser, application: Application) -> None:
    assert contents(superuser) == before.contents
    counted = int(superuser("SELECT sum(reading_count) FROM sensor_reading_stats"))
    assert counted == before.readings + application.rows()


def test_clients_connect_as_before(server: Server, release: Path) -> None:
    assert server.passwords == before.passwords
    assert server.ca.read_text() == before.ca
    ca = release / "dist/ca" / f"{NAME}.crt"  # the CA that existing clients have
    for user in ("occupancy", "occupancy_app", "occupancy_readonly", "occupancy_monitor"):
        assert server.query(user, "SELECT 1", sslrootcert=ca) == [(1,)]
    grafana = server.passwords["grafana"]
    assert server.query("grafana", "SELECT count(*) > 0 FROM sensor_readings", password=grafana) == [(True,)]


def test_settings_of_the_operator_are_still_in_force(host: Host) -> None:
    assert "--months 18 " in host.file("/etc/cron.d/occupancy-retention").content_string
    check = json.loads(host.check_output("occupancy-db --json check-tables </dev/null"))
    assert check, check


@pytest.mark.usefixtures("host")  # tests without it are run last
def test_a_second_run_changes_nothing() -> None:
    run = run_playbook("site.yml", "--diff", **INVENTORY)
    assert changed(run) == 0, re.findall(r"TASK (?:(?!TASK).)*?changed:.*?(?=\n\n)", run.stdout, re.DOTALL)


def test_the_backup_set_of_the_release_before_is_listed_verified_and_restored(
    host: Host, superuser: Superuser, play: Play
) -> None:
    assert sets(host)[before.backup] == "verified"
    host.check_output(f"occupancy-db backup verify {before.backup} </dev/null")
    superuser("DELETE FROM predictions")
    run = play("--tags", "restore", restore_set=before.backup, restore_confirm="occupancy", **INVENTORY)
    assert changed(run) > 0
    assert contents(superuser) == before.contents
    assert superuser("SELECT version_num FROM alembic_version") == HEAD
    assert superuser(f"SELECT count(*) FROM sensor_readings WHERE source_entity = '{ENTITY}'") == "0"


def test_the_host_goes_back_to_the_release_before(host: Host, release: Path, superuser: Superuser) -> None:
    # docs/releases.md: the project of that release has another name.
    host.run("systemctl disable --now occupancy")
    host.check_output("docker stop --time 120 occupancy-postgres-1 && docker rm occupancy-postgres-1")
    assert changed(run_playbook("site.yml", root=release, **INVENTORY)) > 0
    assert contents(superuser) == before.contents
    assert superuser("SELECT version_num FROM alembic_version") == HEAD
    server = find_server(NAME, host)
    server.query("occupancy_app", ROWS)
    assert contents(superuser) != before.contents
