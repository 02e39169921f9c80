"""The exporters: turned on, they answer with the metrics of server, host and jobs; turned off, nothing is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from testinfra.host import Host

from tests.hosts import ROOT, Server
from tests.waiting import wait_for

FETCH = "python3 -c 'import urllib.request; print(urllib.request.urlopen(\"http://127.0.0.1:%s/metrics\").read().decode())'"
CONTAINERS = "docker ps --all --format '{{.Names}} {{.ID}}'"


def test_exporters_come_and_go_without_the_server(
    host: Host, server: Server, play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = host.check_output(CONTAINERS)
    run = play("--tags", "monitoring", monitoring_enabled=True)
    assert run.returncode == 0, run.stdout
    wait_for(lambda: "\npg_up 1" in host.run(FETCH % 9187).stdout, "postgres_exporter")
    metrics = host.check_output(FETCH % 9100)
    assert 'occupancy_job_last_exit_code{job="maintain"} ' in metrics
    assert "node_filesystem_avail_bytes{device=" in metrics
    shown = host.check_output("docker inspect $(docker ps --all --quiet); ps axwwe")
    assert server.passwords["occupancy_monitor"] not in shown
    target = json.loads((ROOT / f"dist/monitoring/targets/node-{server.name}.json").read_text())
    assert target == [{"targets": ["127.0.0.1:9100"], "labels": {"instance": server.name}}]
    run = play("--tags", "monitoring")
    assert run.returncode == 0, run.stdout
    assert host.check_output(CONTAINERS) == before
    assert not host.file("/opt/occupancy/monitoring").exists
