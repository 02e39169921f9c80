"""Filters for the playbooks' own decisions: provisioning, from a playbook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible import context
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

from provisioning import fleet_status, images, migration_plan, run_tags, sudo


def sudo_problem(variables: Mapping[str, Any]) -> str:
    """The result of provisioning.sudo.find_problem; `variables` are those of the host."""
    given = context.CLIARGS.get("become_ask_pass") or context.CLIARGS.get("become_password_file")
    names = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")
    # playbooks/images.yml omits the first where this machine has none of its own. The type is not public.
    found = [variables.get(name) for name in names]
    inventory = [value for value in found if value and type(value).__name__ != "_OmitType"]
    other = variables.get("ansible_become_method", "sudo") != "sudo"
    return sudo.find_problem(bool(given or inventory or other))


def images_are_needed(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of `hosts` (their variables) gets its images from the controller."""
    return any(host.get("container_images_source", "archive") == "archive" for host in hosts)


def images_are_copied(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of `hosts` (their variables) has another engine than the controller."""
    return any(host.get("ansible_connection", "ssh") != "local" for host in hosts)


def images_refused_built(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hosts (their variables) in `hosts` that accept no PostgreSQL image built from packages.

    A host's variables say so themselves, or by its environment: role defaults are not known here.
    """
    return [
        str(host.get("inventory_hostname"))
        for host in hosts
        if host.get("container_images_source", "archive") == "archive"
        and not boolean(
            host.get(
                "container_images_allow_built",
                host.get("occupancy_environment", "production") != "production",
            )
        )
    ]


def images_refresh(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of `hosts` (their variables) that get images from the controller wants newer ones."""
    return any(
        boolean(host.get("container_images_refresh", False))
        for host in hosts
        if host.get("container_images_source", "archive") == "archive"
    )


def images_reference(hosts: Iterable[Mapping[str, Any]], default: str) -> str:
    """The PostgreSQL image that `hosts` (their variables) get from the controller.

    Raises:
        AnsibleFilterError: They name different ones: the controller makes one.
    """
    found = {
        str(host.get("container_images_postgres", default))
        for host in hosts
        if host.get("container_images_source", "archive") == "archive"
    }
    if len(found) > 1:
        raise AnsibleFilterError(
            f"container_images_postgres differs between hosts ({', '.join(sorted(found))}), and the "
            "controller makes one image for all of them. Set it in group_vars/all.yml. Nothing was changed."
        )
    return next(iter(found), default)


def images_architectures(hosts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The hosts (their variables) in `hosts` that get images from the controller, by their architecture.

    A host that did not answer has none. Where no host has one, images are made for this machine. Preflight
    refuses hosts whose architecture has no images.

    Raises:
        AnsibleFilterError: There is nothing that images can be made for.
    """
    found: dict[str, list[str]] = {}
    for host in hosts:
        answer = (host.get("host_architecture") or {}).get("stdout", "").strip()
        if answer in images.ARCHITECTURES and host.get("container_images_source", "archive") == "archive":
            found.setdefault(answer, []).append(str(host.get("inventory_hostname")))
    own = images.this_architecture()
    if not found and own not in images.ARCHITECTURES:
        raise AnsibleFilterError(
            f"Images are made for {' and '.join(images.ARCHITECTURES)}, and no host has one of these "
            f"architectures; this machine's is {own}. Nothing was changed."
        )
    return found or {own: []}


def images_references(hosts: Iterable[Mapping[str, Any]], default: str) -> list[str]:
    """The PostgreSQL images that `hosts` (their variables) name with a tag, the default one included."""
    named = {default} | {str(host.get("container_images_postgres", default)) for host in hosts}
    return sorted(reference for reference in named if "@" not in reference)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "brings_images": run_tags.brings_images,
            "batch_sizes": migration_plan.batch_sizes,
            "fleet_problem": fleet_status.problem,
            "fleet_status": fleet_status.collect,
            "fleet_table": fleet_status.table,
            "images_architectures": images_architectures,
            "images_are_copied": images_are_copied,
            "images_are_needed": images_are_needed,
            "images_reference": images_reference,
            "images_references": images_references,
            "images_refresh": images_refresh,
            "images_refused_built": images_refused_built,
            "offline_problem": migration_plan.offline_problem,
            "online_hosts": migration_plan.online_hosts,
            "only_migrations": run_tags.only_migrations,
            "migrations_and_others": run_tags.migrations_and_others,
            "stop_reason": migration_plan.stop_reason,
            "sudo_problem": sudo_problem,
            "unknown_tags": run_tags.unknown,
        }
