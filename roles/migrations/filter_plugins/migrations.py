"""Filters that decide about migrations, rooms and sensors: modules of provisioning, from a playbook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provisioning import migration_plan, rooms, sensors


def release(root: str) -> list[str]:
    """The result of provisioning.migration_plan.release_revisions."""
    return migration_plan.release_revisions(Path(root))


def outcome(run: dict[str, Any]) -> dict[str, Any]:
    """The result of provisioning.migration_plan.read_outcome for a registered command."""
    return migration_plan.read_outcome(run["rc"], run["stdout"], run["stderr"])


def problem(run: dict[str, Any], revisions: list[str], ops_image: str) -> str:
    """The result of provisioning.migration_plan.find_problem for a registered command."""
    return migration_plan.find_problem(run["rc"], outcome(run), run["stderr"], revisions, ops_image)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "migrations_release": release,
            "migrations_outcome": outcome,
            "migrations_problem": problem,
            "migrations_plan": migration_plan.plan,
            "migrations_present": migration_plan.find_present,
            "migrations_missing_rooms": rooms.missing,
            "migrations_rooms_arguments": rooms.arguments,
            "migrations_missing_sensors": sensors.missing,
            "migrations_sensors_file": sensors.file,
        }
