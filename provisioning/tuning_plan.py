"""Calculates the plan of occupancy_db.server.tuning for a host from the variables of the roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from occupancy_db.environment import Environment
from occupancy_db.server import tuning


def plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of occupancy_db.server.tuning.plan as facts.

    Args:
        request: `host` (facts of the probe), `cpus`, `memory` (MB, 0 for the default), `disk`, `workload`,
            `environment`, `users`, `wal_compression`, `huge_pages` and `overrides` (settings by name).

    Returns:
        The plan. If the request cannot be met, the only key is `refused`, the reason for preflight.
    """
    try:
        return _plan(request)
    except (tuning.BudgetError, ValueError, TypeError) as error:
        return {"refused": str(error)}


def _plan(request: Mapping[str, Any]) -> dict[str, Any]:
    cores = min(float(request["cpus"]), request["host"]["cores"])
    memory = int(request["memory"]) or tuning.default_memory(request["host"]["memory_mb"])
    disk = tuning.disk_kind(request["host"]["device"], bool(request["host"]["rotational"]))
    if request["disk"] != "auto":
        disk = tuning.Disk(request["disk"])
    if memory > (most := request["host"]["memory_mb"]):
        raise tuning.BudgetError(f"occupancy_memory_mb is {memory}, but the host has {most} MB of memory")
    found = tuning.plan(
        tuning.Request(
            cores=cores,
            memory=memory,
            disk=disk,
            disk_size=request["host"]["disk_mb"],
            workload=tuning.Workload(request["workload"]),
            environment=Environment(request["environment"]),
            clients={
                user["name"]: tuning.Client(int(user["connections"]), int(user.get("pools", 0)))
                for user in request["users"]
            },
            wal_compression=tuning.WalCompression(request["wal_compression"]),
            huge_pages=request["huge_pages"],
            overrides=request["overrides"],
        )
    )
    return {
        "refused": "",
        "inputs": f"{cores:g} cores, {memory} MB, {disk}, {request['workload']}",
        "settings": [{**asdict(setting), "text": str(setting)} for setting in found.settings],
        "container": {setting.name: str(setting) for setting in found.container},
        "host": [{**asdict(setting), "text": str(setting)} for setting in found.host],
        "reasons": {
            setting.name: f"{setting.reason} ({setting.source})"
            for setting in (*found.container, *found.application)
        },
        "pool": asdict(found.pool),
        "connections": dict(found.connections),
        "budget": str(found.budget),
    }
