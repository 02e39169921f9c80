"""monitoring/alerts.yml: generated from the list of checks, and what its rules do, by promtool."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from occupancy_db.checks.catalogue import CHECKS
from scripts import generate_alerts
from tests.packages import unpacked_package

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(generate_alerts.ALERTS.read_text())["groups"] for rule in group["rules"]
]
NODE = 'up{job="occupancy-node", instance="home"}'
TIME = 'occupancy_checks_timestamp_seconds{instance="home"}'


@pytest.fixture(scope="module")
def promtool() -> Path:
    return unpacked_package("prometheus", "usr/bin/promtool")


def run(promtool: Path, place: Path, tests: list[dict[str, Any]]) -> None:
    """Run tests of the rules; times begin at 0."""
    path = place / "tests.yml"
    document = {"rule_files": [str(generate_alerts.ALERTS)], "evaluation_interval": "1m", "tests": tests}
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expected(name: str, minute: int, *severities: str, **labels: str) -> dict[str, Any]:
    """The alerts of this name that fire at this minute."""
    found = []
    for severity in severities:
        annotations = {
            key: text.replace("{{ $labels.instance }}", labels.get("instance", "")).replace(
                "{{ $labels.job }}", labels.get("job", "")
            )
            for rule in RULES
            if (rule["alert"], rule["labels"]["severity"]) == (name, severity)
            for key, text in rule["annotations"].items()
        }
        found.append({"exp_labels": labels | {"severity": severity}, "exp_annotations": annotations})
    return {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": found}


def test_the_rules_are_generated_from_the_list() -> None:
    assert generate_alerts.ALERTS.read_text() == generate_alerts.alerts(), "run `make docs`"
    assert {f'occupancy_check_level{{check="{check.name}"}} == 3' for check in CHECKS} <= {
        rule["expr"] for rule in RULES
    }


def test_names_are_unique_with_their_severity() -> None:
    names = [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]
    assert len(names) == len(set(names))


def test_promtool_finds_no_mistake(promtool: Path) -> None:
    command: list[str | Path] = [promtool, "check", "rules", generate_alerts.ALERTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_every_check_alerts_at_its_level_and_ends_when_it_is_good(promtool: Path, tmp_path: Path) -> None:
    tests = []
    for check in CHECKS:
        name = generate_alerts.of_check(check)[0]["alert"]
        labels = {"check": check.name, "instance": "home"}
        series = f'occupancy_check_level{{check="{check.name}", instance="home"}}'
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": "1x9 2x19 3x9 1x9 _x20"}],
                "alert_rule_test": [
                    expected(name, 9),
                    expected(name, 15),  # a warning has ten minutes to end by itself
                    expected(name, 25, "warning", **labels),
                    expected(name, 30, "critical", **labels),
                    expected(name, 41),
                    expected(name, 60),  # skipped: no sample
                ],
            }
        )
    run(promtool, tmp_path, tests)


def test_checks_that_are_late_from_the_future_or_missing_alert(promtool: Path, tmp_path: Path) -> None:
    home = {"instance": "home"}

    def case(series: list[tuple[str, str]], *alerts: dict[str, Any]) -> dict[str, Any]:
        inputs = [{"series": name, "values": values} for name, values in series]
        return {"interval": "1m", "input_series": inputs, "alert_rule_test": list(alerts)}

    run(
        promtool,
        tmp_path,
        [
            case(
                [(TIME, "0x20 1260x20"), (NODE, "1x40")],
                expected("OccupancyChecksOverdue", 14),
                expected("OccupancyChecksOverdue", 16, "critical", **home),
                expected("OccupancyChecksOverdue", 22),
                expected("OccupancyChecksAbsent", 30),
            ),
            case(
                [(TIME, "3600x70"), (NODE, "1x70")],
                expected("OccupancyChecksInFuture", 1, "critical", **home),
                expected("OccupancyChecksInFuture", 58),
            ),
            case(
                [(NODE, "1x30")],
                expected("OccupancyChecksAbsent", 10),
                {
                    "alertname": "OccupancyChecksAbsent",
                    "eval_time": "20m",
                    "exp_alerts": [
                        *expected("OccupancyChecksAbsent", 20, "critical")["exp_alerts"],
                        *expected("OccupancyChecksAbsent", 20, "critical", job="occupancy-node", **home)[
                            "exp_alerts"
                        ],
                    ],
                },
            ),
            case(
                [(TIME, "0+60x30"), (NODE, "1x9 0x20")],
                expected("OccupancyExporterDown", 9),
                expected("OccupancyExporterDown", 20, "critical", job="occupancy-node", **home),
                expected("OccupancyChecksAbsent", 20),
            ),
            case(
                [('pg_up{job="occupancy-postgres", instance="home"}', "1x9 0x9 1x9"), (TIME, "0+60x30")],
                expected("OccupancyServerDown", 9),
                expected("OccupancyServerDown", 12, "critical", job="occupancy-postgres", **home),
                expected("OccupancyServerDown", 20),
            ),
        ],
    )
