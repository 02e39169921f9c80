"""The variables of the roles: their types by argument_specs, and names that belong to no role."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = Path(__file__).parents[1] / "roles"

Specs = Mapping[str, Mapping[str, Any]]
"""The options of each role by name, as in its meta/argument_specs.yml."""

RUN = (
    "restore_set",
    "restore_confirm",
    "restore_without_safety_backup",
    "restore_unsigned",
    "restore_rollback",
)
"""Variables of the command line that belong to no role's argument_specs."""

RESULTS = (
    "container_images_names",
    "container_images_origin",
    "migrations_result",
    "occupancy_host",
    "occupancy_server",
    "tls_result",
)
"""Facts that tasks of the roles set for others."""

INPUTS = ("occupancy_preflight", "occupancy_refused_tuning", "occupancy_group")
"""Variables of the playbooks that belong to no role's argument_specs."""


def _load(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast, if PyYAML has it
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 # both are safe


@cache
def load_specs(roles: Path = ROLES) -> Specs:
    """The options of all roles.

    Args:
        roles: The directory of the roles.
    """
    return {
        path.parents[1].name: _load(path)["argument_specs"]["main"]["options"]
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }


@cache
def fixed_names(roles: Path = ROLES) -> frozenset[str]:
    """The names in the roles' vars/main.yml, which are not options but may appear among a host's variables.

    Args:
        roles: The directory of the roles.
    """
    found: set[str] = set()
    for path in roles.glob("*/vars/main.yml"):
        found |= set(_load(path) or {})
    return frozenset(found)


def convert(options: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Convert variables to the types of their specs; `-e name=value` on the command line gives strings.

    Args:
        options: The specs of one role.
        values: Its variables by name.

    Returns:
        The converted values, and a sentence for each that cannot be converted.
    """
    values = plain(values)
    problems = []
    for name, value in values.items():
        if (kind := options[name].get("type")) in ("list", "dict") and isinstance(value, str):
            example = '["…"]' if kind == "list" else '{"…": "…"}'
            problems.append(
                f"{name} must be a {kind}, and is a string: on the command line, pass it as JSON: -e "
                f"'{{\"{name}\": {example}}}'."
            )
    if problems:
        return {}, problems
    validator = ArgumentSpecValidator({name: _constraints(options[name]) for name in values})
    result = validator.validate(dict(values))
    return result.validated_parameters, [f"{message.rstrip('.')}." for message in result.error_messages]


def plain(value: Any) -> Any:
    """A copy of a value without Ansible's own types: to copy one of those copies all variables of a host."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def _constraints(option: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of an option without its default and documentation: the value is given."""
    return {
        key: {name: _constraints(inner) for name, inner in value.items()} if key == "options" else value
        for key, value in option.items()
        if key not in ("default", "description")
    }


def unknown(names: Iterable[str], specs: Specs, foreign: Iterable[str] = ()) -> list[str]:
    """A sentence for each variable with the prefix of a role that belongs to none: it would have no effect.

    Args:
        names: The names that the inventory, the command line and earlier tasks have set for a host.
        specs: The options of all roles.
        foreign: Names of variables of other software; ``*`` stands for any characters.
    """
    options = {name for role in specs.values() for name in role} | set(RUN)
    known = {*options, *RESULTS, *INPUTS, *specs, *fixed_names()}
    problems = []
    for name in sorted(set(names) - known):
        if not name.startswith(tuple(f"{role}_" for role in specs)) or name.startswith("__"):
            continue
        if any(fnmatchcase(name, pattern) for pattern in foreign):
            continue
        near = difflib.get_close_matches(name, sorted(options), n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/reference/roles.md lists all variables."
        problems.append(
            f"{name} is not a variable of these roles: {hint} If it belongs to other software, add it to "
            "occupancy_foreign_variables."
        )
    return problems
