"""The playbooks for one purpose, on a host that is in use, in this order: backup, rotate and uninstall."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from testinfra.host import Host

from tests.hosts import Server, run_playbook

testinfra_hosts = ["ansible://occupancy"]

Play = Callable[..., subprocess.CompletedProcess[str]]
Superuser = Callable[..., str]

EVERYTHING = """
    ls -d /opt/occupancy/* /opt/occupancy /var/lib/occupancy/* /var/lib/occupancy /run/occupancy \
        /etc/cron.d/occupancy-* /usr/local/bin/occupancy-* /etc/*/occupancy* /etc/apt/*/occupancy* 2>/dev/null
    docker ps --all --quiet; getent passwd | sed -n "s/^occupancy-.*/account/p"
"""
KEPT = {
    "/opt/occupancy", "/opt/occupancy/ca", "/opt/occupancy/initialised", "/opt/occupancy/secrets",
    "/opt/occupancy/signing", "/opt/occupancy/tls", "/var/lib/occupancy", "/var/lib/occupancy/backups", "/var/lib/occupancy/pgdata",
    "account",
}  # fmt: skip
COUNT = "SELECT count(*) FROM sensor_readings"


def everything(host: Host) -> set[str]:
    return set(host.run(EVERYTHING).stdout.split())


def changed(run: subprocess.CompletedProcess[str]) -> int:
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    found = re.search(r"^occupancy-backup .* changed=(\d+)", run.stdout, re.MULTILINE)
    assert found
    return int(found[1])


def test_a_backup_is_created_without_other_changes(host: Host) -> None:
    listed = "occupancy-db --json backup list </dev/null"
    before = {one["id"] for one in json.loads(host.check_output(listed))["sets"]}
    # Variables have no effect, because the playbook only takes a backup.
    assert changed(run_playbook("backup.yml", backup_schedule="")) == 1
    sets = json.loads(host.check_output(listed))["sets"]
    assert [one["state"] for one in sets if one["id"] not in before] == ["verified"]
    assert "backup create" in host.file("/etc/cron.d/occupancy-backup").content_string


def test_passwords_and_the_certificate_are_replaced(host: Host, server: Server) -> None:
    state = "sha256sum /opt/occupancy/secrets/* /opt/occupancy/tls/server.pem"
    before = dict(reversed(line.split()) for line in host.check_output(state).splitlines())
    assert changed(run_playbook("rotate.yml")) > 0
    after = dict(reversed(line.split()) for line in host.check_output(state).splitlines())
    assert after.keys() == before.keys()
    assert [path for path, checksum in after.items() if before[path] == checksum] == []
    password = host.check_output("cat /opt/occupancy/secrets/occupancy_app")
    assert password != server.passwords["occupancy_app"]
    assert server.query("occupancy_app", "SELECT 1", password=password) == [(1,)]


def test_uninstall_keeps_data_unless_they_are_confirmed(
    host: Host, superuser: Superuser, play: Play, tmp_path: Path
) -> None:
    login = tmp_path / "app.env"
    rows, before = superuser(COUNT), everything(host)
    check = run_playbook("uninstall.yml", "--check", uninstall_data="occupancy,homeassistant")
    assert changed(check) > 0
    assert "Would be removed: container occupancy-postgres-1" in " ".join(check.stdout.split())
    assert everything(host) == before

    assert changed(run_playbook("uninstall.yml")) > 0
    assert everything(host) == KEPT
    assert changed(run_playbook("uninstall.yml")) == 0
    renamed = play("--tags", "postgres,access", occupancy_database="another")
    assert renamed.returncode != 0
    assert "ALTER DATABASE occupancy RENAME TO another" in " ".join(renamed.stdout.split())
    assert changed(play(access_app_env_file=str(login))) > 0
    assert "PGPASSWORD=" in login.read_text()
    assert superuser(COUNT) == rows != "0"

    other = run_playbook("uninstall.yml", uninstall_data="occupancy")
    assert other.returncode == 2
    assert "the database of occupancy-backup is occupancy,homeassistant" in " ".join(other.stdout.split())
    assert superuser(COUNT) == rows
    assert "PGPASSWORD=" in login.read_text()
    everything_named = "occupancy,homeassistant"
    removed = run_playbook("uninstall.yml", uninstall_data=everything_named, access_app_env_file=str(login))
    assert changed(removed) > 0
    assert login.read_text() == ""
    assert everything(host) == set()
