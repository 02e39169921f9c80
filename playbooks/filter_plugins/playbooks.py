"""Filters for the playbooks' own decisions: provisioning, from a playbook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible import context

from provisioning import migration_plan, run_tags, sudo


def sudo_problem(variables: Mapping[str, Any]) -> str:
    """The result of provisioning.sudo.find_problem; `variables` are those of the host."""
    given = context.CLIARGS.get("become_ask_pass") or context.CLIARGS.get("become_password_file")
    inventory = variables.get("ansible_become_password") or variables.get("ansible_become_pass")
    other = variables.get("ansible_become_method", "sudo") != "sudo"
    return sudo.find_problem(bool(given or inventory or other or variables.get("ansible_sudo_pass")))


def images_are_needed(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of `hosts` (their variables) gets its images from the controller."""
    return any(host.get("container_images_source", "archive") == "archive" for host in hosts)


def images_are_copied(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of `hosts` (their variables) has another engine than the controller."""
    return any(host.get("ansible_connection", "ssh") != "local" for host in hosts)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "batch_sizes": migration_plan.batch_sizes,
            "images_are_copied": images_are_copied,
            "images_are_needed": images_are_needed,
            "only_migrations": run_tags.only_migrations,
            "migrations_and_others": run_tags.migrations_and_others,
            "stop_reason": migration_plan.stop_reason,
            "sudo_problem": sudo_problem,
            "unknown_tags": run_tags.unknown,
        }
