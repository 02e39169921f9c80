"""The plots of the report of bench.timeseries, as SVG files."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"

Details = dict[str, Any]

OURS, MANUALS, LIMIT = "#1f6f8b", "#c8553d", "#9a9a9a"


def configure() -> None:
    """Make plots reproducible, and draw no frame."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "bench",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def short(value: float) -> str:
    """Return a number with three digits, or without a fraction if it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _save(figure: Any, name: str) -> None:
    figure.savefig(RESULTS / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def plot_loads(details: Details) -> None:
    """Plot rows per second by the method of loading."""
    bars = [
        ("ORM, manual's schema", "manual_orm", MANUALS),
        ("live, manual's schema", "manual_live", MANUALS),
        ("live, ours", "live", OURS),
        ("COPY, manual's schema", "manual_copy", MANUALS),
        ("import, ours", "import", OURS),
        ("COPY, no index at all", "raw_copy", LIMIT),
    ]
    figure, axes = plt.subplots(figsize=(7, 2.8))
    values = [details["loads"][key]["rows_per_second"] / 1000 for _, key, _ in bars]
    drawn = axes.barh([label for label, _, _ in bars], values, color=[colour for _, _, colour in bars])
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set_xlabel("thousand rows a second")
    _save(figure, "loads")


def plot_queries(details: Details) -> None:
    """Plot milliseconds by query, schema and size."""
    labels = {
        "status": "status",
        "stats_day": "stats, 24 h",
        "last_hour": "last hour",
        "zone_day": "zone's day",
    }
    figure, axes = plt.subplots(figsize=(7, 3.2))
    sizes = {"_small": details["small_rows"], "": details["rows"]}
    bars = [
        (
            party,
            f"{party}{suffix}",
            details["manual_rows"] if party == "manual" and not suffix else rows,
            colour,
            alpha,
        )
        for party, colour in (("ours", OURS), ("manual", MANUALS))
        for (suffix, rows), alpha in zip(sizes.items(), (0.55, 1.0), strict=True)
    ]
    for n, (party, database, rows, colour, alpha) in enumerate(bars):
        values = [details["queries"][party][query][database]["median_ms"] for query in labels]
        places = [place + (n - 1.5) * 0.2 for place in range(len(labels))]
        drawn = axes.bar(
            places, values, 0.2, color=colour, alpha=alpha, label=f"{party}, {rows / 1e6:g} M rows"
        )
        axes.bar_label(drawn, labels=[short(value) for value in values], fontsize=7, padding=1)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds, logarithmic")
    axes.set_xticks(range(len(labels)), list(labels.values()))
    axes.legend(frameon=False, fontsize=8)
    _save(figure, "queries")


def plot_bytes(details: Details) -> None:
    """Plot bytes per reading by schema."""
    parties = [("ours", "ours_live", details["rows"]), ("manual's schema", "manual", details["manual_rows"])]
    figure, axes = plt.subplots(figsize=(7, 1.8))
    left = [0.0] * len(parties)
    for part, label, colour in (
        ("tables", "tables", OURS),
        ("indexes", "indexes", MANUALS),
        ("hourly_sums", "hourly sums", LIMIT),
    ):
        values = [details["bytes"][database][part] / rows for _, database, rows in parties]
        drawn = axes.barh([name for name, _, _ in parties], values, left=left, color=colour, label=label)
        axes.bar_label(
            drawn, labels=[f"{v:.0f}" if v > 10 else "" for v in values], label_type="center", color="white"
        )
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_xlabel("bytes per reading")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, "bytes")
