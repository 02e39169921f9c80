"""The job of the checks, and the status of a host whose server or engine is down."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host

from occupancy_db.checks.catalogue import BY_NAME

testinfra_hosts = ["ansible://occupancy"]

STATUS = "/var/lib/occupancy/status"
CODES = {"good": 0, "warning": 20, "bad": 21}


def ask(host: Host, environment: str = "") -> dict[str, dict[str, Any]]:
    """The results by name; the exit code is that of the worst one."""
    done = host.run(f"{environment} occupancy-db --json status </dev/null")
    status = json.loads(done.stdout)
    assert done.rc == CODES[status["level"]], done.stderr
    return {one["name"]: one for one in status["checks"]}


def test_the_job_writes_results_and_metrics(host: Host) -> None:
    (line,) = re.findall(
        r"^\*/5 \* \* \* \* root (occupancy-job checks .+)$",
        host.file("/etc/cron.d/occupancy-checks").content_string,
        re.MULTILINE,
    )
    host.check_output(line)
    status = json.loads(host.file(f"{STATUS}/status.json").content_string)
    found = {one["name"]: one for one in status["checks"]}
    assert set(found) == set(BY_NAME)
    expected = (
        "server",
        "container",
        "schema",
        "cron",
        "certificate",
        "ca",
        "connections",
        "limits",
        "checks",
    )
    assert {
        name: (found[name]["level"], found[name]["summary"])
        for name in expected
        if found[name]["level"] != "good"
    } == {}
    assert "could not be checked" not in str(status)
    metrics = host.file("/var/lib/occupancy/metrics/occupancy_check_results.prom").content_string
    assert 'occupancy_check_level{check="server"} 1\n' in metrics
    listed = host.check_output(f"stat --format '%U %a %n' {STATUS}/* | sort")
    assert [line.rsplit("/", 1)[1] for line in listed.splitlines()] == [
        "disks.json", "host.json", "status.json", "thresholds.json",
    ]  # fmt: skip
    assert {line.split()[0] + line.split()[1] for line in listed.splitlines()} == {"root644"}


@pytest.mark.any_release
def test_a_server_that_is_stopped_is_bad_and_good_again(host: Host) -> None:
    host.check_output("docker stop occupancy-postgres-1")
    try:
        found = ask(host)
    finally:
        host.check_output("docker compose --project-directory /opt/occupancy up --detach --wait postgres")
    assert (found["server"]["level"], found["container"]["level"]) == ("bad", "bad")
    assert (found["schema"]["level"], found["cron"]["level"]) == ("skipped", "good")
    assert ask(host)["server"]["level"] == "good"


@pytest.mark.any_release
def test_an_engine_that_does_not_answer_is_bad(host: Host) -> None:
    down = "DOCKER_HOST=unix:///run/no-engine.sock"
    found = ask(host, down)
    assert (found["container"]["level"], found["disk_free"]["level"]) == ("bad", "skipped")
    shown = host.run(f"{down} occupancy-db status </dev/null")
    assert shown.rc == 21
    assert "systemctl start docker" in shown.stdout
