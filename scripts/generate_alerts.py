#!/usr/bin/env python3
"""Generate monitoring/alerts.yml, the alert rules for Prometheus, from the list of checks."""

import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.model import Check, Level

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "monitoring" / "alerts.yml"
HEADER = "# Written by `make docs` from occupancy_db/checks/catalogue.py.\n"

SEVERITIES = {Level.WARNING: "warning", Level.BAD: "critical"}
PATIENCE = {Level.WARNING: "10m", Level.BAD: "0s"}
"""How long a level lasts before somebody is told."""

OVERDUE_SECONDS = 3 * 5 * 60
"""Three runs of the job `checks`, as it runs by default."""

CHECKS_TIME = "occupancy_checks_timestamp_seconds"
NODE, SERVER = 'up{job="occupancy-node"}', 'up{job="occupancy-postgres"}'
"""The jobs of the scrape configuration that role monitoring writes."""


class Dumper(yaml.SafeDumper):
    """Indents lists, as yamllint demands."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Begin a list or a mapping."""
        del indentless
        super().increase_indent(flow, False)


def rule(
    name: str, expression: str, patience: str, severity: str, summary: str, **annotations: str
) -> dict[str, Any]:
    """One alert.

    Args:
        name: What follows ``Occupancy``.
        expression: PromQL.
        patience: How long it must be true, as Prometheus writes it.
        severity: ``warning`` or ``critical``.
        summary: What is wrong, after the name of the host.
        **annotations: Further ones.
    """
    return {
        "alert": f"Occupancy{name}",
        "expr": expression,
        "for": patience,
        "labels": {"severity": severity},
        "annotations": {"summary": f"{{{{ $labels.instance }}}}: {summary}", **annotations},
    }


def of_check(check: Check) -> list[dict[str, Any]]:
    """The alerts of a check: one for each level.

    Args:
        check: An entry of the list.
    """
    return [
        rule(
            "".join(word.capitalize() for word in check.name.split("_")),
            f'occupancy_check_level{{check="{check.name}"}} == {level.rank}',
            PATIENCE[level],
            severity,
            f"{check.title} ({level})",
            description=check.reason,
            action=check.action,
            page=f"docs/{check.page}",
        )
        for level, severity in SEVERITIES.items()
    ]


def of_monitoring() -> list[dict[str, Any]]:
    """The alerts of what does not arrive, about which no check can say anything."""
    log = "sudo occupancy-db log --since yesterday"
    return [
        rule(
            "ChecksOverdue",
            f"time() - {CHECKS_TIME} > {OVERDUE_SECONDS}",
            "0s",
            "critical",
            "the list of checks is not evaluated",
            description="cron does not run, or the job checks fails: other alerts of this host are old",
            action=log,
        ),
        rule(
            "ChecksInFuture",
            f"{CHECKS_TIME} - time() > 300",
            "0s",
            "critical",
            "the checks are from the future",
            description="the clock of this host or of Prometheus is wrong: the age of the checks is unknown",
            action="timedatectl",
        ),
        rule(
            "ChecksAbsent",
            f"({NODE} == 1 unless on (instance) {CHECKS_TIME}) or absent({CHECKS_TIME})",
            "15m",
            "critical",
            "there is no result of checks",
            description="the job checks has not run, or node_exporter does not read the metrics of the jobs",
            action=log,
        ),
        rule(
            "ExporterDown",
            f"({NODE} or {SERVER}) == 0",
            "5m",
            "critical",
            "{{ $labels.job }} does not answer",
            description="the host, its network or the exporter is down",
            action="sudo docker ps --all --filter name=occupancy",
        ),
        rule(
            "ServerDown",
            'pg_up{job="occupancy-postgres"} == 0',
            "1m",
            "critical",
            "the server does not answer postgres_exporter",
            description="nothing is written or read without it",
            action=log,
        ),
    ]


def alerts() -> str:
    """The file of the alert rules."""
    rules = [one for check in CHECKS for one in of_check(check)]
    groups = [{"name": "occupancy-checks", "rules": rules}, {"name": "occupancy", "rules": of_monitoring()}]
    text: str = yaml.dump({"groups": groups}, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return HEADER + "---\n" + text


if __name__ == "__main__":
    ALERTS.write_text(alerts(), encoding="utf-8")
