"""Why the server of a host restarts in a run: decided before it happens, so that a check can show it.

The facts are those of roles/occupancy/files/probe.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

SETTING = re.compile(r"^([a-z_.]+) = (?:'((?:[^']|'')*)'|(\S+))$", re.MULTILINE)
"""A line of postgresql.conf as role postgres writes it."""


def reasons(
    host: Mapping[str, Any],
    server: Mapping[str, Any] | None,
    files: Iterable[Mapping[str, Any]],
    compose: str,
) -> list[str]:
    """Return why the running server restarts; empty if it does not, or does not run.

    Args:
        host: The facts of the host.
        server: The state of its server, None if that does not answer.
        files: The files that differ: `path` and `text`.
        compose: The text of compose.yaml.
    """
    if not host["container"].get("running"):
        return []
    wanted = {file["path"].rsplit("/", 1)[-1]: file["text"] for file in files}
    found = ["compose.yaml has changed"] if "compose.yaml" in wanted else []
    if ".env" in wanted:
        found += _container(host["project"], wanted[".env"], compose)
    if not found and not host["container"].get("current"):
        found.append("its container has another image or configuration than the project")
    fixed = (server or {}).get("fixed") or {}
    if "postgresql.conf" in wanted and fixed:
        found += _settings(fixed, wanted["postgresql.conf"])
    if not found and (server or {}).get("restart"):
        found.append("settings of an earlier run wait for a restart")
    return found


def _container(present: Mapping[str, str], text: str, compose: str) -> list[str]:
    """The changed variables of .env that the server's container is made of."""
    service = str(yaml.safe_load(compose)["services"]["postgres"])
    new = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return [
        f"{name}: {present.get(name, 'not set')} → {value}"
        for name, value in new.items()
        if f"${{{name}:" in service and present.get(name) != value
    ]


def _settings(fixed: Mapping[str, str | None], text: str) -> list[str]:
    """The changed settings that need a restart; `fixed` has the value of each in the present file."""
    new = {name: quoted.replace("''", "'") or plain for name, quoted, plain in SETTING.findall(text)}
    return [
        f"{name}: {fixed[name] or 'default'} → {new.get(name, 'default')}"
        for name in sorted(fixed)
        if (fixed[name] or None) != new.get(name)
    ]
