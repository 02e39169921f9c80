"""The status of all hosts, from the answers of ``occupancy-db --json status``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LEVELS = ("good", "warning", "bad", "unreachable")
"""From the best to the worst."""


def collect(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the status of the fleet.

    Args:
        answers: The result of the task that asked each host, by name of the host.

    Returns:
        `level`, the worst one, and `hosts`: for each its `level`, its document `status` (or None)
        and `error` (why there is none).
    """
    hosts = {name: _of_host(answer) for name, answer in sorted(answers.items())}
    worst = max((host["level"] for host in hosts.values()), key=LEVELS.index, default="good")
    return {"level": worst, "hosts": hosts}


def _of_host(answer: Mapping[str, Any]) -> dict[str, Any]:
    if answer.get("unreachable"):
        return {"level": "unreachable", "status": None, "error": _line(answer.get("msg"))}
    try:
        status = json.loads(str(answer.get("stdout", "")))
        level = status["level"] if status["level"] in LEVELS else "good"
    except (ValueError, KeyError, TypeError):
        said = answer.get("stderr") or answer.get("msg")
        return {"level": "bad", "status": None, "error": f"no answer: {_line(said)}"}
    return {"level": level, "status": status, "error": ""}


def _line(text: Any) -> str:
    return " ".join(str(text or "nothing was said").split())[-300:]


def table(fleet: Mapping[str, Any]) -> list[str]:
    """Return the lines for people: each host, with what is not good, the worst first.

    Args:
        fleet: The result of `collect`.
    """
    hosts = fleet["hosts"]
    width = max((len(name) for name in hosts), default=0)
    lines = []
    for name in sorted(hosts, key=lambda name: (-LEVELS.index(hosts[name]["level"]), name)):
        host = hosts[name]
        checks = host["status"]["checks"] if host["status"] else []
        wrong = [
            f"{one['name']}: {one['summary']}"
            for level in ("bad", "warning")
            for one in checks
            if one["level"] == level
        ]
        said = [host["error"]] if host["error"] else wrong or [f"{len(checks)} checks"]
        lines += [f"{name:<{width}}  {host['level']:<11}  {said[0]}"]
        lines += [f"{'':<{width}}  {'':<11}  {more}" for more in said[1:]]
    return lines


def problem(fleet: Mapping[str, Any]) -> str:
    """Return which hosts are bad or do not answer, or that there is none; empty if all is well.

    Args:
        fleet: The result of `collect`.
    """
    if not fleet["hosts"]:
        return "no host was asked: the inventory, or --limit, has none"
    found = [name for name, host in fleet["hosts"].items() if host["level"] in ("bad", "unreachable")]
    return f"bad or unreachable: {', '.join(found)}" if found else ""
