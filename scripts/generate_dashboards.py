#!/usr/bin/env python3
"""Generate monitoring/grafana/dashboards, dashboards for Grafana, with the Grafana Foundation SDK."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import bargauge, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as promql
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import Dashboard, DataSourceRef

DASHBOARDS = Path(__file__).resolve().parents[1] / "monitoring" / "grafana" / "dashboards"

PROMETHEUS, POSTGRES = "prometheus", "postgres"
"""Names of the variables that select the data sources."""

PANELS: dict[str, Callable[[], Any]] = {
    "graph": timeseries.Panel,
    "number": stat.Panel,
    "bars": bargauge.Panel,
    "table": table.Panel,
}


@dataclass(frozen=True)
class Panel:
    """One panel with one query.

    Attributes:
        title: Its title.
        kind: A key of `PANELS`.
        unit: Unit of the values, by Grafana's name.
        query: PromQL, or SQL.
        legend: Name of a series, with labels in braces; not for SQL.
        width: Of 24 columns.
    """

    title: str
    kind: str
    unit: str
    query: str
    legend: str = "{{instance}}"
    width: int = 12


class Statement(Dataquery):
    """A statement for Grafana's data source for PostgreSQL, which the SDK does not have."""

    def __init__(self, text: str, as_series: bool) -> None:
        self.text, self.as_series = text, as_series

    def build(self) -> "Statement":
        """As a builder of the SDK."""
        return self

    def to_json(self) -> dict[str, Any]:
        """What Grafana reads."""
        return {
            "refId": "A",
            "format": "time_series" if self.as_series else "table",
            "rawQuery": True,
            "rawSql": self.text,
            "editorMode": "code",
        }


OPERATIONS = (
    Panel("Worst result of the checks", "number", "short", "max by (instance) (occupancy_check_level{$host})"),
    Panel(
        "Age of the checks", "number", "s", "time() - occupancy_checks_timestamp_seconds{$host}"
    ),
    Panel("Checks (1 good, 2 warning, 3 bad)", "bars", "short", "occupancy_check_level{$host}", "{{check}}", 24),
    Panel("Last success of the jobs", "bars", "s",
          "time() - occupancy_job_last_success_timestamp_seconds{$host}", "{{exported_job}}"),
    Panel("Exit codes of the jobs", "graph", "short", "occupancy_job_last_exit_code{$host}", "{{exported_job}}"),
    Panel("Duration of the jobs", "graph", "s",
          "occupancy_job_last_duration_seconds{$host}", "{{exported_job}}"),
    Panel("Last backup", "number", "s", "time() - occupancy_backup_last_success_timestamp_seconds{$host}"),
    Panel("Backup sets", "graph", "short", "sum by (instance, state) (occupancy_backup_sets{$host})",
          "{{instance}} {{state}}"),
    Panel("Size of the newest backup set", "graph", "bytes", "occupancy_backup_size_bytes{$host}"),
    Panel("Days until certificates end", "bars", "d", "occupancy_tls_days_left{$host}", "{{certificate}}"),
    Panel("Server answers", "number", "short", "pg_up{$host}"),
    Panel("Connections", "graph", "short",
          "sum by (instance, datname) (pg_stat_activity_count{$host})", "{{instance}} {{datname}}"),
    Panel("Transactions per second", "graph", "tps",
          'sum by (instance) (rate(pg_stat_database_xact_commit{$host}[$__rate_interval]))'),
    Panel("Size of the databases", "graph", "bytes", 'pg_database_size_bytes{$host,datname!~"template.*"}',
          "{{instance}} {{datname}}"),
    Panel("Locks", "graph", "short", "sum by (instance, mode) (pg_locks_count{$host})", "{{instance}} {{mode}}"),
    Panel("Free disk space", "graph", "percentunit",
          'min by (instance, device) (node_filesystem_avail_bytes{$host,fstype!~"tmpfs|overlay|squashfs"}'
          ' / node_filesystem_size_bytes{$host,fstype!~"tmpfs|overlay|squashfs"})', "{{instance}} {{device}}"),
    Panel("Available memory", "graph", "percentunit",
          "node_memory_MemAvailable_bytes{$host} / node_memory_MemTotal_bytes{$host}"),
    Panel("Load of the last five minutes", "graph", "short", "node_load5{$host}"),
)  # fmt: skip

FLEET = (
    Panel("Hosts that answer", "number", "short", 'sum(up{job="occupancy-node"})', "hosts", 8),
    Panel("Servers that answer", "number", "short", "sum(pg_up)", "servers", 8),
    Panel("Bad checks", "number", "short", "count(occupancy_check_level == 3) or vector(0)", "bad", 8),
    Panel("Worst result of each host (1 good, 2 warning, 3 bad)", "bars", "short",
          "max by (instance) (occupancy_check_level)"),
    Panel("Hosts by check that is not good", "bars", "short",
          "count by (check) (occupancy_check_level > 1) or vector(0)", "{{check}}"),
    Panel("Age of the checks", "bars", "s", "time() - occupancy_checks_timestamp_seconds"),
    Panel("Last backup", "bars", "s", "time() - occupancy_backup_last_success_timestamp_seconds"),
    Panel("Free disk space", "bars", "percentunit",
          'min by (instance) (node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs"}'
          ' / node_filesystem_size_bytes{fstype!~"tmpfs|overlay|squashfs"})'),
    Panel("Size of the databases", "graph", "bytes", "sum by (instance) (pg_database_size_bytes)"),
)  # fmt: skip

HOME = (
    Panel("Rooms", "table", "short",
          "SELECT room, occupancy_status AS status, active_zones, total_zones, last_update, is_stale\n"
          "FROM room_occupancy_status ORDER BY room"),
    Panel("Zones", "table", "short",
          "SELECT room, zone, state, timestamp AS since, confidence FROM latest_readings ORDER BY room, zone"),
    Panel("Occupied hours of each day", "graph", "h",
          "SELECT day::timestamptz AS time, room AS metric, occupied_seconds / 3600 AS value\n"
          "FROM occupied_room_local_days\n"
          "WHERE day BETWEEN ($__timeFrom()::timestamptz)::date AND ($__timeTo()::timestamptz)::date\n"
          "ORDER BY 1, 2", width=24),
    Panel("Readings per hour", "graph", "short",
          "SELECT hour AS time, room AS metric, reading_count AS value FROM sensor_reading_stats\n"
          "WHERE hour BETWEEN $__timeFrom() AND $__timeTo() ORDER BY 1, 2"),
    Panel("Predictions", "graph", "percentunit",
          "SELECT prediction_made_at AS time, room AS metric, probability AS value FROM predictions\n"
          "WHERE prediction_made_at BETWEEN $__timeFrom() AND $__timeTo() ORDER BY 1, 2"),
    Panel("Transitions between rooms", "table", "short",
          "SELECT from_room, to_room, count(*) AS transitions,\n"
          "    avg(transition_duration_seconds) AS average_seconds\n"
          "FROM room_transitions WHERE timestamp BETWEEN $__timeFrom() AND $__timeTo()\n"
          "GROUP BY 1, 2 ORDER BY 3 DESC"),
    Panel("Sensors", "table", "short",
          "SELECT entity, room, zone, label, since, hold, max_silence FROM sensors ORDER BY entity"),
)  # fmt: skip

DASHBOARDS_BY_NAME: dict[str, tuple[str, str, tuple[Panel, ...]]] = {
    "operations": ("Occupancy database: operations", PROMETHEUS, OPERATIONS),
    "fleet": ("Occupancy database: fleet", PROMETHEUS, FLEET),
    "home": ("Occupancy database: home", POSTGRES, HOME),
}
"""Title, data source and panels of each file."""


def panel(one: Panel, source: str) -> Any:
    """A panel for the SDK's dashboard.

    Args:
        one: What it shows.
        source: The data source, `PROMETHEUS` or `POSTGRES`.
    """
    kind = "grafana-postgresql-datasource" if source == POSTGRES else source
    builder = PANELS[one.kind]()
    builder.title(one.title).unit(one.unit).span(one.width).height(8)
    builder.datasource(DataSourceRef(type_val=kind, uid=f"${{{source}}}"))
    if source == POSTGRES:
        return builder.with_target(Statement(one.query, one.kind == "graph"))
    query = one.query.replace("$host", 'instance=~"$instance"')
    target = promql.Dataquery().ref_id("A").expr(query).legend_format(one.legend)
    return builder.with_target(target.range() if one.kind == "graph" else target.instant())


def dashboard(name: str) -> Dashboard:
    """The dashboard of a file.

    Args:
        name: A key of `DASHBOARDS_BY_NAME`.
    """
    title, source, panels = DASHBOARDS_BY_NAME[name]
    plugin = "grafana-postgresql-datasource" if source == POSTGRES else source
    days = "now-30d" if source == POSTGRES else "now-24h"
    result = build.Dashboard(title).uid(f"occupancy-{name}").tags(["occupancy"]).readonly()
    result.time(days, "now").refresh("5m").timezone("browser")
    result.with_variable(build.DatasourceVariable(source).label("Data source").type(plugin))
    if name == "operations":
        chosen = build.QueryVariable("instance").label("Host").multi(True).include_all(True)
        chosen.query('label_values(up{job="occupancy-node"}, instance)').refresh(1)  # type: ignore[arg-type]
        chosen.datasource(DataSourceRef(type_val=source, uid=f"${{{source}}}"))
        result.with_variable(chosen)
    for one in panels:
        result.with_panel(panel(one, source))
    return result.build()


def text(name: str) -> str:
    """The content of a dashboard's file.

    Args:
        name: A key of `DASHBOARDS_BY_NAME`.
    """
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard(name)) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS_BY_NAME:
        (DASHBOARDS / f"{each}.json").write_text(text(each), encoding="utf-8")
