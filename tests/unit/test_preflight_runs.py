"""Preflight depends on what a run does, and on what is in a cluster."""

from typing import Any

import pytest

from provisioning import host_checks
from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

SET = "occupancy-20261126T130000Z-0a1b2c"
OLDER = {"free_mb": 0, "images": ["occupancy-ops:0.0.9-1"]}


@pytest.mark.parametrize(
    ("databases", "named"),
    [
        ({"home": "occupancy", "occupancy_test": "occupancy", "home_replaced": "occupancy"}, "home"),
        ({"home": "occupancy", "occupancy": "occupancy"}, ""),
        ({"postgres": "postgres", "occupancy_template": "postgres", "occupancy_test": "occupancy"}, ""),
        ({'a"b': "occupancy"}, ""),
    ],
)
def test_a_database_of_another_name_is_noticed_without_the_files_of_the_project(
    databases: dict[str, str], named: str
) -> None:
    found = host_checks.owned(
        {name: {"owner": owner} for name, owner in databases.items()}, "occupancy", "occupancy_test"
    )
    said = host_checks.rename(found, "occupancy")
    assert (f"ALTER DATABASE {named} RENAME TO occupancy" in said) if named else said == ""
    server = {"databases": {name: {"owner": owner} for name, owner in databases.items()}}
    assert bool(problems(host={"server": server}, occupancy_test_database="occupancy_test")) == bool(named)


@pytest.mark.parametrize(("tag", "refused"), [("all", True), ("retention", False), ("backup", False)])
def test_a_run_that_brings_no_images_is_not_refused_for_their_size(tag: str, refused: bool) -> None:
    assert bool(problems(host=OLDER, more={"tags": [tag]})) == refused


RUNS = [
    (
        {"tags": ["restore"], "extra": {"restore_confirm": "occupancy"}},
        "Which set is to be restored?",
        {"tags": ["restore"], "extra": {"restore_set": "latest", "restore_confirm": "occupancy"}},
    ),
    (
        {"tags": ["restore"], "extra": {"restore_set": "elsewhere-1", "restore_confirm": "occupancy"}},
        "('elsewhere-1' is none)",
        {"tags": ["restore"], "extra": {"restore_set": SET, "restore_confirm": "occupancy"}},
    ),
    (
        {"tags": ["restore-rollback"]},
        "confirm it with -e restore_confirm=occupancy",
        {"tags": ["restore-rollback"], "extra": {"restore_confirm": "occupancy"}},
    ),
    (
        {"tags": ["restore-rollback"], "extra": {"restore_confirm": "occupancy"}, "hosts": ["home", "lab"]},
        "on 2 hosts: choose one, with --limit home",
        {"hosts": ["home", "lab"]},
    ),
    (
        {"refused_tuning": "the budget is exceeded"},
        "the budget is exceeded. Give the container more (occupancy_memory_mb)",
        {"refused_tuning": ""},
    ),
]


@pytest.mark.parametrize(("bad", "says", "good"), RUNS)
def test_runs_are_refused_or_accepted(bad: dict[str, Any], says: str, good: dict[str, Any]) -> None:
    (said,) = problems(more=bad)
    assert says in said
    assert problems(more=good) == []
