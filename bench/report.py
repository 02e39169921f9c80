"""The results: a table on the terminal, JSON, and a report with plots."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import plots, readers_report

RESULTS = plots.RESULTS

Details = dict[str, Any]
Figures = dict[str, float]

# The meaning of each figure, and its target: at least, or at most.
TARGETS: dict[str, tuple[str, str, float]] = {
    "live_vs_manual": ("live path, times as fast as the manual's schema", "≥", 1.5),
    "import_vs_manual": ("import, times as fast as COPY into the manual's schema", "≥", 2.5),
    "bytes_per_row": ("bytes of a reading, everything included", "≤", 260),
    "by_id_ms": ("one row by its id, ms", "≤", 5),
    "latest_silent_room_ms": ("latest 10 of a room silent for 20 days, ms", "≤", 5),
    "latest_silent_zone_ms": ("latest of a zone silent for 20 days, ms", "≤", 5),
    "latest_unknown_zone_ms": ("latest of an unknown zone, ms", "≤", 5),
    "rare_zone_7d_ms": ("a rare zone, 7 days, ms", "≤", 20),
    "zone_6_months_ms": ("6 months of a zone, grouped, ms", "≤", 200),
    "worst_vs_manual": ("largest (ours - 3 ms) / manual's of all queries", "≤", 1.2),
    "status_ms": ("room_occupancy_status, ms", "≤", 10),
    "stats_day_ms": ("sensor_reading_stats of 24 hours, ms", "≤", 50),
    "growth_status": ("room_occupancy_status, times as slow as in the small size", "≤", 1.3),
    "growth_stats_day": ("sensor_reading_stats of 24 hours, the same", "≤", 1.3),
    "growth_last_hour": ("a room's last hour, the same", "≤", 1.3),
    "retention_s": ("six of twelve months removed, whole months, seconds", "≤", 1),
    "retention_slowest_write_ms": ("slowest write beside the whole of it, ms", "≤", 100),
}


def figures(details: Details) -> Figures:
    """Return the figures of the details."""
    loads, answers, rows = details["loads"], details["queries"]["ours"], details["rows"]

    def times(faster: str, slower: str) -> float:
        ratio: float = loads[faster]["rows_per_second"] / loads[slower]["rows_per_second"]
        return round(ratio, 2)

    def growth(query: str) -> float:
        ratio: float = answers[query]["ours"]["median_ms"] / answers[query]["ours_small"]["median_ms"]
        return round(ratio, 2)

    def milliseconds(query: str) -> float:
        return round(float(answers[query]["ours"]["median_ms"]), 2)

    ours = max(_bytes_per_row(details, "ours"), _bytes_per_row(details, "ours_live"))
    return {
        "live_vs_manual": times("live", "manual_live"),
        "import_vs_manual": times("import_history", "manual_copy"),
        "import_vs_raw_copy": times("import", "raw_copy"),
        "bytes_per_row": round(ours, 1),
        "manual_bytes_per_row": round(_bytes_per_row(details, "manual"), 1),
        "status_ms": milliseconds("status"),
        "stats_day_ms": milliseconds("stats_day"),
        "last_hour_ms": milliseconds("last_hour"),
        **readers_report.figures(details),
        "growth_status": growth("status"),
        "growth_stats_day": growth("stats_day"),
        "growth_last_hour": growth("last_hour"),
        "retention_s": details["retention"]["ours"]["months_s"],
        "retention_slowest_write_ms": details["retention"]["ours"]["slowest_ms"],
        "rows": rows,
    }


def _bytes_per_row(details: Details, database: str) -> float:
    rows: int = details["manual_rows" if database == "manual" else "rows"]
    total: int = sum(details["bytes"][database].values())
    return total / rows


def met(name: str, value: float) -> bool:
    """Return whether a figure meets its target."""
    _, sense, target = TARGETS[name]
    return value >= target if sense == "≥" else value <= target


def write(details: Details) -> None:
    """Write all files, and print the figures."""
    found = figures(details)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"figures": found, **details}, indent=2, ensure_ascii=False)
    (RESULTS / "timeseries.json").write_text(text + "\n", encoding="utf-8")
    plots.configure()
    plots.plot_loads(details)
    plots.plot_queries(details)
    plots.plot_bytes(details)
    (RESULTS / "timeseries.md").write_text(_markdown(details, found), encoding="utf-8")
    table = Table(
        "Figure", "Measured", "Target", "", title=f"{details['rows']:,} rows, {details['seconds']} s"
    )
    for name, (meaning, sense, target) in TARGETS.items():
        verdict = "[green]met[/]" if met(name, found[name]) else "[red]missed[/]"
        table.add_row(meaning, f"{found[name]:g}", f"{sense} {target:g}", verdict)
    Console().print(table)
    Console().print(f"written: {RESULTS.relative_to(RESULTS.parents[1])}/timeseries.md and .json")


def _rows(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def _markdown(details: Details, found: Figures) -> str:
    return _summary(details, found) + _results(details) + _notes(details)


def _summary(details: Details, found: Figures) -> str:
    machine, rows = details["machine"], details["rows"]
    verdicts = _rows(
        ["Figure", "Measured", "Target", "Met"],
        [
            [
                f"`{name}`: {meaning}",
                f"{found[name]:g}",
                f"{sense} {target:g}",
                "yes" if met(name, found[name]) else "**no**",
            ]
            for name, (meaning, sense, target) in TARGETS.items()
        ],
    )
    return f"""# Readings over the years, beside the manual's schema

Generated by `make bench`, do not edit. {details["date"]}; {rows:,} rows in {details["seconds"] / 60:.1f} minutes on
{machine["cores"]} cores ({machine["cpu"]}), {machine["memory_gib"]:g} GiB; PostgreSQL {details["server"]["version"]}.

{verdicts}

"""


def _results(details: Details) -> str:
    return f"""## Loading

{_loads_table(details)}

![Rows a second](loads.svg)

## Queries

Medians in milliseconds, planning included.

{_queries_table(details)}

![Milliseconds by query and size](queries.svg)

## Queries of clients

Medians in milliseconds: as a statement with literals · as a prepared statement, whose plan is generic after five
executions where PostgreSQL prefers that · as a prepared statement with a forced generic plan. Buffers are those of the
generic plan: months with live rows / imported months / the manual's schema. The bar is 1.2 times the manual's, or 3 ms
more.

{_rows(*readers_report.table(details))}

{_orm(details)}

## Bytes per reading

{_bytes_table(details)}

![Bytes per reading](bytes.svg)

## Retention

Six months are kept, while two writers insert a row every 5 ms.

{_retention_table(details)}

Of ours, {details["retention"]["ours"]["months"]} whole months took {details["retention"]["ours"]["months_s"]:g} s
(`retention_s`: from the first one's detachment to the last one's end), and the rows of the month that is being left
{details["retention"]["ours"]["trim_s"]:g} s (in small transactions). After the DELETE, VACUUM took another
{details["retention"]["manual"]["vacuum_s"]:g} s until the space could be used again.

## Writers beside upkeep

Milliseconds of a single-row insert; two writers, one every 5 ms.

{_latency_table(details)}

"""


def _notes(details: Details) -> str:
    server = details["server"]
    rows, small, live, manual = (details[name] for name in ("rows", "small_rows", "live_rows", "manual_rows"))
    return f"""## How to repeat it

```bash
make bench                  # ten million rows
make bench ROWS=1000000     # or as many as you like, in steps of 100,000
```

It needs Docker, the cores for itself and {rows * 500 / 1e9 + 8:.0f} GB of disk, and leaves nothing behind but these files.
All details are in [timeseries.json](timeseries.json).

## What was compared

- **The home**: 6 rooms, 17 zones, ten million readings a year, in order, ending now. A larger number of rows is a longer
  history at the same rate. The newest rows are the same in every size. A room and a zone have no reading in the last
  20 days, and one reading in a hundred is of the rare zone.
- **The server**: one container of the product's image for all, {server["limits"]["cpus"]} CPUs,
  {server["limits"]["memory"]} of memory, the settings that the product computes for it, checksums and everything
  durable; clients on the same machine, over TLS. Between measurements it is vacuumed and checkpointed.
- **The manual's schema** is `bench/manual.py`: one table, seven indexes, plain views, DELETE. It is written to in the best
  way that there is, not in the manual's own: COPY of the same file, and on the live path COPY of batches that nobody
  validates. The manual's own way, objects of an ORM, is `ORM` above. It held {manual:,} rows.
- **Import**: `occupancy-db import` of CSV files as a person runs it, from the start of the interpreter to its end.
  `import_vs_manual` is of the same files (what the manual's table held before its live rows), `import_vs_raw_copy` of all.
- **Live**: the newest {live:,} rows in batches of 5,000 by four tasks with the application's pool, on top of the history,
  250,000 into one schema and then the same into the other. Their hours were open, as they were when such rows came in.
- **Queries of clients**: each as a statement with literals, and as prepared statements on one connection. The databases
  take turns query by query. A figure is the largest of all kinds of statement, of months with live rows and of imported
  ones. `worst_vs_manual` includes the views and the ORM.
- **Growth**: the times at {rows:,} rows divided by those at {small:,}; runs of both alternate.
- **Bytes**: tables, indexes and TOAST after VACUUM, and for ours the hourly sums and the empty months ahead. The figure is the
  larger one of a history that was imported as a whole and one whose newest rows came over the live path.
- **Limits**: one run on one machine, with warm caches; client and server share its cores; rows come in the order of their
  time, and nothing reads while they are loaded.
"""


def _orm(details: Details) -> str:
    ours, theirs = (details["orm_create"][database]["median_ms"] for database in ("ours", "manual"))
    worst, ratio = max(readers_report.ratios(details), key=lambda found: found[1])
    return f"""One row created by the ORM, committed, and read again by its id: {plots.short(ours)} ms, in the manual's schema
{plots.short(theirs)} ms. The largest ratio (`worst_vs_manual`) is {ratio:.2f}: {worst}."""


LOADS = {
    "raw_copy": "COPY into a table without indexes",
    "import": "`occupancy-db import`, everything",
    "import_history": "`occupancy-db import`, what is before the live rows",
    "manual_copy": "COPY into the manual's schema",
    "live": "`readings.ingest`",
    "manual_live": "COPY of the same batches into the manual's schema",
    "manual_orm": "ORM `add_all` and commit, the manual's schema",
}


def _loads_table(details: Details) -> str:
    return _rows(
        ["Way", "Rows", "Seconds", "Rows a second"],
        [
            [label, f"{load['rows']:,}", f"{load['seconds']:.1f}", f"{load['rows_per_second']:,}"]
            for label, load in ((label, details["loads"][key]) for key, label in LOADS.items())
        ],
    )


QUERIES = {
    "status": "`room_occupancy_status`",
    "stats_day": "`sensor_reading_stats`, 24 hours",
    "last_hour": "a room's last hour",
    "zone_day": "a zone's last day",
    "distribution": "predictions whose distribution contains a value",
}


def _queries_table(details: Details) -> str:
    databases = [("ours", "ours_small"), ("ours", "ours"), ("manual", "manual_small"), ("manual", "manual")]
    header = [
        "Query",
        f"ours, {details['small_rows']:,}",
        f"ours, {details['rows']:,}",
        f"manual's, {details['small_rows']:,}",
        f"manual's, {details['manual_rows']:,}",
    ]
    return _rows(
        header,
        [
            [
                label,
                *(
                    plots.short(details["queries"][party][query][database]["median_ms"])
                    for party, database in databases
                ),
            ]
            for query, label in QUERIES.items()
        ],
    )


def _bytes_table(details: Details) -> str:
    parties = {
        "ours": "ours, imported",
        "ours_live": "ours, the newest rows over the live path",
        "manual": "the manual's schema",
    }
    lines = []
    for database, label in parties.items():
        rows = details["manual_rows" if database == "manual" else "rows"]
        parts = [details["bytes"][database][part] / rows for part in ("tables", "indexes", "hourly_sums")]
        lines.append([label, *(f"{value:.1f}" for value in (*parts, sum(parts)))])
    return _rows(["", "Tables", "Indexes", "Hourly sums", "Together"], lines)


def _retention_table(details: Details) -> str:
    lines = []
    for party, label in (("ours", "`occupancy-db cleanup`"), ("manual", "the manual's DELETE")):
        found = details["retention"][party]
        returned = found["bytes_before"] - found["bytes_after"]
        lines.append(
            [
                label,
                f"{found['rows']:,}",
                f"{found['seconds']:.2f}",
                f"{max(returned, 0) / 1e6:,.0f} of {found['bytes_before'] / 1e6:,.0f} MB",
                *(f"{found[name]:g}" for name in ("p50_ms", "p99_ms", "slowest_ms")),
            ]
        )
    header = ["", "Rows", "Seconds", "Returned at once", "Writes: p50, ms", "p99, ms", "slowest, ms"]
    return _rows(header, lines)


def _latency_table(details: Details) -> str:
    return _rows(
        ["Beside", "Seconds", "Writes", "p50", "p99", "Slowest"],
        [
            [
                beside,
                f"{found['seconds']:.1f}",
                f"{found['writes']:,}",
                *(f"{found[n]:g}" for n in ("p50_ms", "p99_ms", "slowest_ms")),
            ]
            for beside, found in details["write_latency"].items()
        ],
    )
