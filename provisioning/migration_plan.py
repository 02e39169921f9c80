"""Decisions of the playbooks about migrations: pending ones, failures, and whether a batch may begin.

The revisions of a release are those of the checkout, and not of an image, which may be of the release
before. They are numbered and named after their files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from occupancy_db.schema.revisions import is_unverified

DEFAULTS = Path(__file__).parents[1] / "roles/migrations/defaults/main.yml"
"""The defaults of role migrations, whose variables determine the batches."""


def release_revisions(root: Path) -> list[str]:
    """The revisions of the checkout in `root`, the oldest first."""
    return sorted(path.stem for path in (root / "migrations/versions").glob("*.py"))


def read_outcome(code: int, stdout: str, stderr: str) -> dict[str, Any]:
    """Return the result or the error of `occupancy-db --json migrate`.

    Args:
        code: Its exit code.
        stdout: Its output: the result as JSON.
        stderr: Its errors: one as JSON, perhaps among lines of Docker.
    """
    if code == 0:
        result: dict[str, Any] = json.loads(stdout)
        return result
    for line in stderr.splitlines():
        if line.startswith('{"error":'):
            error: dict[str, Any] = json.loads(line)["error"]
            return error
    return {}


def find_present(server: Mapping[str, Any] | None, release: Sequence[str]) -> dict[str, Any]:
    """Return the result of `occupancy-db migrate` where it would do nothing; empty if it must be asked.

    Args:
        server: The state of the server that the probe of role occupancy has read; None if it did not answer.
        release: The release's revisions.
    """
    match (server or {}).get("revisions"):
        case [[revision, comment]] if revision == release[-1] and not is_unverified(comment):
            return {
                "from": revision,
                "to": revision,
                "applied": [],
                "ahead": [],
                "phases": {},
                "slowest_lock_ms": 0,
            }
    return {}


def find_problem(
    code: int, outcome: Mapping[str, Any], stderr: str, release: Sequence[str], ops_image: str
) -> str:
    """Return why a host is not migrated; empty if it is.

    Args:
        code: The exit code of `occupancy-db migrate`.
        outcome: Its result or error (read_outcome).
        stderr: Its errors, for the case that no error can be read.
        release: The release's revisions.
        ops_image: The ops image that it ran from.
    """
    if code:
        return (
            f"{outcome.get('what', 'occupancy-db migrate failed')}. {outcome.get('hint') or stderr}".strip()
        )
    if outcome["to"] != release[-1] and not outcome["ahead"]:
        return (
            f"{ops_image} is of another release than this checkout: its newest revision is {outcome['to']}, "
            f"and the newest of this checkout is {release[-1]}. Make the images of this checkout first "
            "(make images), or leave out --limit."
        )
    return ""


def plan(said: Mapping[str, Any], brought: bool, release: Sequence[str]) -> dict[str, Any]:
    """Return what a run would do on a host.

    The release's own pre-check counts where its image is on the host already. Otherwise the revisions are
    compared: a check makes no image, and the one that was made last may be of another release.

    Args:
        said: The output of `occupancy-db migrate --plan`, or of `occupancy-db current`.
        brought: Whether the release's image is on the host.
        release: The release's revisions.
    """
    if brought and (said.get("to") == release[-1] or said.get("ahead") or said.get("problems")):
        pending = [step["revision"] for step in said.get("pending", [])]
        return {**said, "pending": pending, "applied": []}
    current = said.get("revision") or said.get("from") or ""
    known = not current or current in release
    pending = list(release[release.index(current) + 1 if current else 0 :]) if known else []
    return {
        "from": current,
        "to": pending[-1] if pending else current,
        "pending": pending,
        "applied": [],
        "ahead": [],
        "problems": [] if known else [f"it is at {current}, which this release does not know"],
    }


def online_hosts(group: str, groups: Mapping[str, Sequence[str]]) -> str:
    """The pattern of the hosts of a play: those of a group, without the ones that reach.yml has left out.

    Args:
        group: The inventory group.
        groups: The inventory's groups.
    """
    return f"{group}:&occupancy_online" if "occupancy_online" in groups else group


def batch_sizes(group: str, groups: Mapping[str, Sequence[str]], variables: Mapping[str, Any]) -> Any:
    """How many hosts a play takes at once: the variable migrations_serial of the group's first host.

    A play has no host whose variables it could take, and no defaults of roles.

    Args:
        group: The inventory group of the play.
        groups: The inventory's groups.
        variables: The hosts' variables.
    """
    first = next(iter(groups.get(group, ())), "localhost")
    try:
        return variables[first]["migrations_serial"]
    except KeyError:
        return yaml.safe_load(DEFAULTS.read_text())["migrations_serial"]


def stop_reason(play: Sequence[str], left: Sequence[str], allowed: int) -> str:
    """Why no further batch is begun; empty where one may begin.

    Args:
        play: All hosts of the play. Those that were offline at the beginning are not in it.
        left: Those of them that have not failed, and whose connection was not lost.
        allowed: How many may fail (migrations_max_failures).
    """
    failed = [host for host in play if host not in left]
    if len(failed) <= allowed:
        return ""
    return f"{len(failed)} failed ({', '.join(failed)}), and migrations_max_failures is {allowed}: not begun."


def offline_problem(play: Sequence[str], online: Sequence[str], allowed: int) -> str:
    """Why a run does not begin, since too many hosts are offline; empty where it may.

    Args:
        play: All hosts of the run.
        online: Those of them that answered.
        allowed: How many may be offline (migrations_max_unreachable).
    """
    offline = [host for host in play if host not in online]
    if len(offline) <= allowed:
        return ""
    return (
        f"{len(offline)} of {len(play)} hosts are offline ({', '.join(offline)}), and "
        f"migrations_max_unreachable is {allowed}: nothing was changed on any host. Is the "
        "controller's own network up?"
    )
