"""The dashboards for Grafana: generated, and each panel finds rows in a real Prometheus and a real database.

Prometheus and the exporters are those of Debian's packages. No Grafana has shown the panels here.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.checks.catalogue import CHECKS
from scripts import generate_dashboards
from tests.database.conftest import Database
from tests.database.users import grant, password
from tests.packages import unpacked_package
from tests.waiting import wait_for

NAMES = list(generate_dashboards.DASHBOARDS_BY_NAME)


def panels(name: str) -> dict[str, dict[str, Any]]:
    """The query of each panel of a committed dashboard, by its title."""
    document = json.loads((generate_dashboards.DASHBOARDS / f"{name}.json").read_text())
    return {panel["title"]: panel["targets"][0] for panel in document["panels"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_dashboards_are_generated(name: str) -> None:
    path = generate_dashboards.DASHBOARDS / f"{name}.json"
    assert path.read_text() == generate_dashboards.text(name), "run `make docs`"
    panels = generate_dashboards.DASHBOARDS_BY_NAME[name][2]
    assert len({panel.title for panel in panels}) == len(panels)


# SQL


def test_each_statement_of_the_home_finds_rows(database: Database) -> None:
    for command in ("seed --days 2", "partitions maintain"):
        done = database.cli(*command.split())
        assert done.returncode == 0, done.stderr
    sensors = "entity_id,room,zone,label\nbinary_sensor.desk,office,desk,Desk\n"
    done = database.cli("sensors", "add", "-", stdin=sensors)
    assert done.returncode == 0, done.stderr
    grant(database.cluster, database.name)
    reader = "occupancy_readonly"
    connection = database.cluster.connect(database.name, reader, password(reader))
    empty = []
    with connection.cursor() as cursor:
        for title, target in panels("home").items():
            statement = (
                target["rawSql"].replace("$__timeFrom()", "'2000-01-01'").replace("$__timeTo()", "now()")
            )
            assert "$" not in statement
            cursor.execute(statement)
            rows = cursor.fetchall()
            columns = [column.name for column in cursor.description or ()]
            if target["format"] == "time_series":
                assert columns == ["time", "metric", "value"], title
            if not rows:
                empty.append(title)
    connection.close()
    assert empty == []


# PromQL


def metric_files(directory: Path) -> None:
    """The metrics of the jobs, by the names that tests/unit/test_documents.py compares with the code."""
    now = time.time()
    levels = [
        f'occupancy_check_level{{check="{check.name}"}} {1 + number % 3}'
        for number, check in enumerate(CHECKS)
    ]
    lines = [
        *levels,
        f"occupancy_checks_timestamp_seconds {now}",
        f'occupancy_job_last_success_timestamp_seconds{{job="maintain"}} {now}',
        'occupancy_job_last_exit_code{job="maintain"} 0',
        'occupancy_job_last_duration_seconds{job="maintain"} 2',
        f"occupancy_backup_last_success_timestamp_seconds {now}",
        'occupancy_backup_sets{state="verified"} 3',
        "occupancy_backup_size_bytes 1e6",
        'occupancy_tls_days_left{certificate="server"} 300',
    ]
    (directory / "occupancy.prom").write_text("\n".join(lines) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A Prometheus on loopback."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/api/v1/query?"

    def ask(self, query: str) -> list[Any]:
        """The result of a query; empty until it answers."""
        address = self._address + urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 -- loopback
                found: list[Any] = json.load(answer)["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            assert error.code == 503, f"{query}: {error.read().decode()}"
        except urllib.error.URLError:
            pass
        return []


@pytest.fixture
def prometheus(database: Database, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a node_exporter and a postgres_exporter, with the product's configuration."""
    programs = {
        name: unpacked_package(name, f"usr/bin/{name}")
        for name in ("prometheus", "prometheus-node-exporter", "prometheus-postgres-exporter")
    }
    metric_files(tmp_path)
    grant(database.cluster, database.name)
    # The password of the product's user has a backslash in these tests, which version 0.11 does not escape.
    database.cluster.execute("CREATE ROLE exporter LOGIN PASSWORD 'letters' IN ROLE occupancy_monitor")
    secret = tmp_path / "password"
    secret.write_text("letters")
    node, postgres, own = free_port(), free_port(), free_port()
    for name, port in {"node": node, "postgres": postgres}.items():
        (tmp_path / "targets").mkdir(exist_ok=True)
        target = {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "home"}}
        (tmp_path / f"targets/{name}-home.json").write_text(json.dumps([target]))
    source = generate_dashboards.DASHBOARDS.parents[1]
    text = (source / "prometheus.yml").read_text().replace("interval: 1m", "interval: 1s")
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "alerts.yml").write_text((source / "alerts.yml").read_text())
    address = f"127.0.0.1:{database.cluster.port}/{database.name}?sslmode=disable"
    commands: list[tuple[list[str | Path], dict[str, str]]] = [
        (
            [programs["prometheus"], f"--config.file={tmp_path}/prometheus.yml",
             f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"],
            {},
        ),
        (
            [programs["prometheus-node-exporter"], f"--web.listen-address=127.0.0.1:{node}",
             f"--collector.textfile.directory={tmp_path}", "--no-collector.systemd"],
            {},
        ),
        (
            [programs["prometheus-postgres-exporter"], f"--web.listen-address=127.0.0.1:{postgres}"],
            {"DATA_SOURCE_USER": "exporter", "DATA_SOURCE_PASS_FILE": str(secret),
             "DATA_SOURCE_URI": address},
        ),
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.callback(database.cluster.execute, "DROP ROLE exporter")
        log = stack.enter_context((tmp_path / "log").open("wb"))
        for command, environment in commands:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield Prometheus(own)


def test_each_query_of_prometheus_finds_samples(prometheus: Prometheus, tmp_path: Path) -> None:
    queries = {
        f"{name}: {title}": target["expr"].replace("$instance", ".+").replace("$__rate_interval", "15s")
        for name in ("operations", "fleet")
        for title, target in panels(name).items()
    }
    assert len(queries) > 20
    for title, query in queries.items():
        wait_for(partial(prometheus.ask, query), title, explain=(tmp_path / "log").read_text)
    assert [one["metric"]["instance"] for one in prometheus.ask("pg_up == 1")] == ["home"]
    assert prometheus.ask('ALERTS{severity="critical", instance="home"}')
