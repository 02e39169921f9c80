"""The generated home has silent and rare zones, and the figures are the worst of all measurements."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench import home, readers_report
from bench.questions import QUESTIONS, Known
from bench.readers import GENERIC, KINDS

END = datetime(2026, 11, 26, 12, tzinfo=UTC)
ROWS = 600_000
"""22 days."""


@pytest.fixture(scope="module")
def readings() -> list[tuple[Any, ...]]:
    return list(home.records(ROWS, END))


def test_a_room_and_a_zone_are_silent_for_20_days(readings: list[tuple[Any, ...]]) -> None:
    of_room = [moment for moment, room, *_ in readings if room == home.SILENT_ROOM]
    of_zone = [moment for moment, _, zone, *_ in readings if zone == home.SILENT_ZONE]
    for moments in (of_room, of_zone):
        assert timedelta(days=20) <= END - max(moments) <= timedelta(days=21)


def test_one_reading_in_a_hundred_is_of_the_rare_zone(readings: list[tuple[Any, ...]]) -> None:
    zones = Counter(zone for _, _, zone, *_ in readings)
    assert 0.009 <= zones[home.RARE_ZONE] / ROWS <= 0.013
    assert zones[home.RARE_ZONE] < min(
        count for zone, count in zones.items() if zone not in (home.RARE_ZONE, home.SILENT_ZONE)
    )


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_parameter_of_a_query_is_replaced(name: str) -> None:
    question = QUESTIONS[name]
    known = {Known.OLD_ID: 7, Known.NEW_ID: 8, Known.MOMENT: END}
    statement = question.literal(question.values(END, known))
    assert "$" not in statement
    assert len(question.parameters) == len([text for text in question.types.split(", ") if text])


def measured() -> dict[str, Any]:
    """Details in which every query takes 4 ms, and 2 ms in the manual's schema."""
    answers = {
        order: {
            name: {
                f"{database} {kind}": {"ms": 4.0 if database == order else 2.0}
                for kind in KINDS
                for database in (order, "manual")
            }
            for name in QUESTIONS
        }
        for order in readers_report.ORDERS
    }
    views = {
        schema: {
            query: {schema: {"median_ms": 4.0 if schema == "ours" else 2.0}}
            for query in ("status", "stats_day", "last_hour", "zone_day", "distribution")
        }
        for schema in ("ours", "manual")
    }
    created = {"ours": {"median_ms": 4.0}, "manual": {"median_ms": 2.0}}
    return {"readers": answers, "queries": views, "orm_create": created}


@pytest.mark.parametrize("order", readers_report.ORDERS)
def test_the_slowest_kind_and_order_is_the_figure(order: str) -> None:
    details = measured()
    assert readers_report.figures(details)["by_id_ms"] == 4.0
    assert readers_report.figures(details)["worst_vs_manual"] == 0.5
    details["readers"][order]["by_new_id"][f"{order} {GENERIC}"]["ms"] = 9.0
    assert readers_report.figures(details)["by_id_ms"] == 9.0
    assert readers_report.figures(details)["worst_vs_manual"] == 3.0


def test_views_and_the_orm_count_for_the_worst_ratio() -> None:
    details = measured()
    details["queries"]["ours"]["last_hour"]["ours"]["median_ms"] = 13.0
    assert readers_report.figures(details)["worst_vs_manual"] == 5.0
    details["orm_create"]["ours"]["median_ms"] = 23.0
    assert readers_report.figures(details)["worst_vs_manual"] == 10.0
