"""The figures and the table of the clients' queries."""

from collections.abc import Iterator
from typing import Any

from bench import plots
from bench.questions import QUESTIONS
from bench.readers import GENERIC, KINDS, LITERAL, PREPARED

Details = dict[str, Any]

MARGIN_MS = 3.0
RATIO = 1.2
"""A query may take RATIO times as long as in the manual's schema, or MARGIN_MS longer."""

ORDERS = {"ours_live": "months with live rows", "ours": "imported months"}

_FIGURES = {
    "by_id_ms": ("by_id", "by_new_id"),
    "latest_silent_room_ms": ("latest_silent_room",),
    "latest_silent_zone_ms": ("latest_silent_zone",),
    "latest_unknown_zone_ms": ("latest_unknown_zone",),
    "rare_zone_7d_ms": ("rare_zone_7d",),
    "zone_6_months_ms": ("zone_6_months", "zone_6_months_states"),
}

_VIEWS = ("status", "stats_day", "last_hour", "zone_day", "distribution")


def figures(details: Details) -> dict[str, float]:
    """Return the figures; milliseconds are those of the slowest kind of statement and order of rows."""
    found = {
        figure: max(
            details["readers"][order][question][f"{order} {kind}"]["ms"]
            for order in ORDERS
            for question in questions
            for kind in KINDS
        )
        for figure, questions in _FIGURES.items()
    }
    return {
        **{figure: round(value, 2) for figure, value in found.items()},
        "orm_create_ms": round(details["orm_create"]["ours"]["median_ms"], 2),
        "worst_vs_manual": round(max(ratio for _, ratio in ratios(details)), 2),
    }


def ratios(details: Details) -> Iterator[tuple[str, float]]:
    """Yield a name and (ours - MARGIN_MS) / manual's of each query, kind and order, and of the ORM."""
    for order in ORDERS:
        for question, answers in details["readers"][order].items():
            for kind in KINDS:
                ours, theirs = answers[f"{order} {kind}"]["ms"], answers[f"manual {kind}"]["ms"]
                yield f"{question}, {kind}, {ORDERS[order]}", (ours - MARGIN_MS) / theirs
    for query in _VIEWS:
        ours = details["queries"]["ours"][query]["ours"]["median_ms"]
        theirs = details["queries"]["manual"][query]["manual"]["median_ms"]
        yield query, (ours - MARGIN_MS) / theirs
    created = details["orm_create"]
    yield "orm_create", (created["ours"]["median_ms"] - MARGIN_MS) / created["manual"]["median_ms"]


def table(details: Details) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table."""
    header = ["Query", "Live rows, ms", "Imported, ms", "Manual's, ms", "Buffers", "Within the bar"]
    rows = []
    for name, question in QUESTIONS.items():
        live, imported = details["readers"]["ours_live"][name], details["readers"]["ours"][name]
        rows.append(
            [
                question.meaning,
                _all_kinds(live, "ours_live"),
                _all_kinds(imported, "ours"),
                _all_kinds(live, "manual"),
                " / ".join(
                    f"{answers[f'{database} {GENERIC}']['buffers']:,}"
                    for answers, database in ((live, "ours_live"), (imported, "ours"), (live, "manual"))
                ),
                "yes" if _within(live, "ours_live") and _within(imported, "ours") else "**no**",
            ]
        )
    return header, rows


def _all_kinds(answers: Details, database: str) -> str:
    return " · ".join(
        plots.short(answers[f"{database} {kind}"]["ms"]) for kind in (LITERAL, PREPARED, GENERIC)
    )


def _within(answers: Details, database: str) -> bool:
    pairs = [(answers[f"{database} {kind}"]["ms"], answers[f"manual {kind}"]["ms"]) for kind in KINDS]
    return all(ours <= max(RATIO * theirs, theirs + MARGIN_MS) for ours, theirs in pairs)
