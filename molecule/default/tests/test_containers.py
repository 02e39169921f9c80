"""The container is what the Compose file describes, and each secret is in its own file only."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from testinfra.host import Host

from occupancy_db.maintenance import LOCK_TABLE
from tests.hosts import ROOT, Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

CONTAINER = "occupancy-postgres-1"


@pytest.fixture
def container(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0]
    return found


def test_the_container_runs_with_minimal_privileges_and_limits(container: dict[str, Any]) -> None:
    said = container["HostConfig"]
    assert said["Privileged"] is False
    assert said["CapDrop"] == ["ALL"]
    assert not said["CapAdd"]
    assert "no-new-privileges:true" in said["SecurityOpt"]
    assert said["ReadonlyRootfs"] is True
    assert said["Memory"] == 512 * 1024**2
    assert said["NanoCpus"] > 0
    assert said["PidsLimit"] == 1024
    assert said["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "10m"}}
    assert said["RestartPolicy"]["Name"] == "unless-stopped"
    assert container["Config"]["User"] == "999:999"
    assert container["Config"]["StopTimeout"] == 120
    assert not [mount["Source"] for mount in container["Mounts"] if mount["Source"].endswith("docker.sock")]


def test_the_limits_are_in_force_inside_the_container(host: Host) -> None:
    status = host.check_output(f"docker exec {CONTAINER} cat /proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert host.run(f"docker exec {CONTAINER} touch /usr/lib/postgresql/mine").rc != 0


def test_import_uses_only_those_files_of_a_directory_that_it_is_told(host: Host) -> None:
    """Neither settings nor modules of somebody's directory; and Parquet, which the container writes and reads."""
    host.check_output("""
        rm -rf /tmp/somebody && mkdir -m 755 /tmp/somebody && cd /tmp/somebody
        echo POSTGRES_DB=of_somebody > .env && chmod 600 .env
        echo 'raise SystemExit("a module of somebody")' | tee json.py > csv.py
        echo timestamp,room,zone,state,source_entity > readings.csv
        echo 2026-01-01T00:00:00Z,office,desk,on,fp2 >> readings.csv
        occupancy-db export --room office --format parquet > office.zip
        cd / && python3 -m zipfile -e /tmp/somebody/office.zip /tmp/somebody
        chmod 644 /tmp/somebody/sensor_readings.parquet
    """)
    command = "cd /tmp/somebody && occupancy-db --json import --dry-run"
    done = json.loads(host.check_output(f"{command} readings.csv"))
    assert (done["imported"], done["warnings"]) == (1, [])
    done = json.loads(host.check_output(f"{command} sensor_readings.parquet"))
    assert (done["rejected"], done["recognised"]) == (0, {"sensor_readings.parquet": "Parquet"})
    host.check_output("rm -rf /tmp/somebody")


def test_a_recorder_in_use_is_read_in_the_container(host: Host) -> None:
    """Its last states are in the write-ahead log alone, and its writer goes on."""
    recorder = (ROOT / "tests/recorder/schema-50.sql").read_text()
    done = host.check_output(f"""
        rm -rf /tmp/recorder && mkdir -m 755 /tmp/recorder && cd /tmp/recorder && mkfifo end
        cat > recorder.sql <<'END'
{recorder}
END
        cat > writer.py <<'END'
import sqlite3, sys
connection = sqlite3.connect("home-assistant_v2.db")
connection.execute("PRAGMA journal_mode = WAL")
connection.executescript(open("recorder.sql").read())
print("ready", flush=True)
sys.stdin.read()
END
        python3 writer.py < end > state 2>&1 &
        exec 3> end
        until grep -q . state; do sleep 0.1; done
        occupancy-db sensors discover home-assistant_v2.db > found.csv
        occupancy-db --json import --dry-run home-assistant_v2.db --entities found.csv
        exec 3>&-
        wait
        rm -rf /tmp/recorder
    """)
    report = json.loads(done)
    assert (report["read"], report["imported"], report["unplaced"], report["rejected"]) == (12, 6, 3, 0)


def test_the_healthcheck_passes(host: Host) -> None:
    host.check_output(f"docker exec {CONTAINER} pg_isready --quiet --host=/var/run/postgresql")
    state = host.check_output("docker inspect --format '{{.State.Health.Status}}' " + CONTAINER)
    assert state in ("healthy", "starting"), state


def test_a_clean_stop_needs_no_recovery(host: Host) -> None:
    before = host.check_output("date --utc --iso-8601=seconds")
    host.check_output(f"docker restart --time 120 {CONTAINER}")
    ready = f"docker exec {CONTAINER} pg_isready --host=/var/run/postgresql"
    wait_for(lambda: host.run(ready).rc == 0, "the server", explain=lambda: host.run(ready).stdout)
    log = host.check_output(f"occupancy-db log --since {before} --level info")
    assert "database system is shut down" in log
    assert "was not properly shut down" not in log


def test_the_log_has_errors_and_jobs_and_needs_no_engine(host: Host, server: Server) -> None:
    before = host.check_output("date --utc --iso-8601=seconds")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        server.query("occupancy_app", "SELECT 1/0 AS lookup, 'hidden'")
    host.check_output("occupancy-job maintain 600 occupancy-db partitions maintain")
    shown = (
        f"PATH=/usr/bin:/bin DOCKER_HOST=unix:///none /usr/local/bin/occupancy-db --json log --since {before}"
    )
    wait_for(
        lambda: "ended with exit code 0" in host.check_output(shown),
        "the job's line in the journal",
        explain=lambda: host.run(shown),
    )
    entries = json.loads(host.check_output(shown))["entries"]
    said = {
        source: "\n".join(one["text"] for one in entries if one["source"] == source)
        for source in ("server", "maintain")
    }
    assert "division by zero; statement: SELECT 1/0 AS lookup, '…'" in said["server"]
    assert "ended with exit code 0" in said["maintain"]
    assert host.file("/var/lib/occupancy/log").mode == 0o700


def test_an_orphan_of_docker_exec_ends_no_session(host: Host, server: Server) -> None:
    """PID 1 inherits orphans. PostgreSQL as PID 1 takes one that fails for a crashed process of its own.

    It then ends all sessions and recovers: https://github.com/docker-library/postgres/issues/1349. Compose's
    `init: true` gives each container an init process as PID 1.
    """
    before = host.check_output("date --utc --iso-8601=seconds")
    orphan = "sleep 1.349"  # long enough to outlive the shell, and a number that no other process has
    with closing(server.connect("occupancy")) as session, session.cursor() as cursor:
        host.check_output(f"docker exec {CONTAINER} sh -c '({orphan}; exit 2) & exit 0'")
        processes = f"docker top {CONTAINER} -o pid,args"
        wait_for(lambda: orphan not in host.check_output(processes), "the end of the orphan")
        server.connect("occupancy").close()  # whatever the end of the orphan causes has happened by now
        log = host.check_output(f"occupancy-db log --since {before} --level info")
        assert "exited with exit code 2" not in log
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    "path", ["secrets/occupancy", "secrets/occupancy_app", "tls/server.pem", "ca/ca.key"]
)
def test_only_its_owner_can_read_a_secret(host: Host, path: str) -> None:
    file = host.file(f"/opt/occupancy/{path}")
    assert file.mode == 0o600
    assert file.uid in (0, 999, 10001)


@pytest.mark.parametrize("path", ["secrets", "ca"])
def test_only_root_can_enter_the_directories_of_secrets(host: Host, path: str) -> None:
    directory = host.file(f"/opt/occupancy/{path}")
    assert (directory.mode, directory.user) == (0o700, "root")


def test_no_secret_is_anywhere_else(host: Host, server: Server) -> None:
    places = {
        "docker inspect": "docker inspect $(docker ps --all --quiet)",
        "process list and environments": "ps axwwe; cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
        "container log": f"docker logs {CONTAINER} 2>&1",
        "server's log": "cat /var/lib/occupancy/log/*",
        "journal": "journalctl --no-pager --quiet --all",
        "rendered files": "cat /opt/occupancy/.env /opt/occupancy/compose.yaml /opt/occupancy/postgresql/* /usr/local/bin/occupancy-db",
        "temporary files": "find /tmp /var/tmp /root -xdev -type f -size -1M -exec cat {} +",
    }
    # A container of the tools runs meanwhile, because it waits for the maintenance lock.
    with closing(server.connect("occupancy")) as holder, holder.cursor() as cursor:
        cursor.execute(f"BEGIN; LOCK TABLE {LOCK_TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
        host.check_output("occupancy-db partitions maintain --lock-wait 600 </dev/null >/dev/null 2>&1 &")
        waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'occupancy-db %'"
        wait_for(lambda: server.query("occupancy", waits)[0][0], "occupancy-db partitions maintain")
        shown = {place: host.run(command).stdout for place, command in places.items()}
    for place, text in shown.items():
        assert text or place == "temporary files", place
        leaked = [user for user, password in server.passwords.items() if password in text]
        assert not leaked, f"{place} shows the password of {leaked}"
        assert "PRIVATE KEY" not in text, place


def test_the_data_directory_has_checksums(host: Host) -> None:
    assert (
        host.check_output(f"docker exec {CONTAINER} psql -h /var/run/postgresql -Atc 'SHOW data_checksums'")
        == "on"
    )


def test_the_report_is_for_root_and_knows_the_host(host: Host) -> None:
    path = "/var/lib/occupancy/report/report.html"
    host.check_output("occupancy-checks run")
    assert path in host.check_output("occupancy-db report")
    assert host.check_output(f"stat -c '%a %u' {path} {path.rpartition('/')[0]}") == "600 10001\n700 10001"
    page = host.check_output(f"cat {path}")
    # What it reads of the server, of the checks and of the backups.
    for unknown in ("cannot be read here", "There are no results of the checks", "has no extension"):
        assert unknown not in page
    assert "The statements that took most time" in page
    assert host.check_output("occupancy-db report --days 2 --output - | head -1") == "<!doctype html>"
