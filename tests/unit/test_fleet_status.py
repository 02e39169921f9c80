"""The status of all hosts, from what each has answered."""

import json
from typing import Any

import pytest

from provisioning.fleet_status import collect, problem, table


def answer(level: str, *checks: tuple[str, str, str]) -> dict[str, Any]:
    found = [{"name": name, "level": its, "summary": summary} for name, its, summary in checks]
    return {"rc": 21, "stdout": json.dumps({"level": level, "checks": found}), "stderr": ""}


GOOD = answer("good", ("cron", "good", "runs"))
WARNING = answer("warning", ("cron", "good", "runs"), ("ca", "warning", "100 days left"))
BAD = answer("bad", ("ca", "warning", "100 days left"), ("cron", "bad", "does not run"))
GONE = {"unreachable": True, "msg": "Failed to connect\nto the host"}
OLD = {"rc": 2, "stdout": "", "stderr": "No such command 'status'."}


def test_each_host_has_its_line_the_worst_first() -> None:
    fleet = collect({"attic": GOOD, "barn": BAD, "cellar": GONE, "den": WARNING, "elder": OLD})
    assert table(fleet) == [
        "cellar  unreachable  Failed to connect to the host",
        "barn    bad          cron: does not run",
        "                     ca: 100 days left",
        "elder   bad          no answer: No such command 'status'.",
        "den     warning      ca: 100 days left",
        "attic   good         1 checks",
    ]
    assert fleet["hosts"]["barn"]["status"]["checks"][1]["summary"] == "does not run"


@pytest.mark.parametrize(
    ("answers", "level", "text"),
    [
        ({"attic": GOOD, "den": WARNING}, "warning", ""),
        ({"attic": GOOD, "barn": BAD}, "bad", "bad or unreachable: barn"),
        ({"attic": GONE, "barn": BAD}, "unreachable", "bad or unreachable: attic, barn"),
        ({}, "good", "no host was asked: the inventory, or --limit, has none"),
    ],
)
def test_a_warning_is_no_failure_of_the_run(answers: dict[str, Any], level: str, text: str) -> None:
    fleet = collect(answers)
    assert (fleet["level"], problem(fleet)) == (level, text)
