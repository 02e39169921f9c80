"""Preflight: decide, before anything is changed on a host, whether the inventory and the host can work.

The input is the roles' variables and the facts that the probe of role occupancy has read from the host.
The output is a list of problems. Each says what is wrong, where, and what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from provisioning import images, other_databases
from provisioning.host_checks import check_occupancy
from provisioning.job_checks import check_backup, check_retention
from provisioning.notify_checks import check_notify
from provisioning.request import Problems, Request
from provisioning.variables import Specs, convert, unknown

ROOT = Path(__file__).parents[1]


def problems(request: Mapping[str, Any], specs: Specs) -> list[str]:
    """Return all problems of the variables and the host.

    Args:
        request: Role occupancy assembles it: `hostname`, `host`, `variables` (values by role and name),
            `names` (all that inventory and command line set), `tags`, `hosts`, `product`, `version`,
            `refused_tuning` and `extra` (variables of the command line alone).
        specs: The argument_specs of all roles.

    Returns:
        Sentences, an empty list if the host can be provisioned. The values of a role are checked only if all
        of its variables have the right type.
    """
    found: list[str] = []
    values: dict[str, Any] = dict(request["extra"])
    usable = []
    for role, variables in request["variables"].items():
        converted, wrong = convert(specs[role], variables)
        values |= converted
        found += wrong
        if variables and not wrong:
            usable.append(role)
    foreign = values["occupancy_foreign_variables"] if "occupancy" in usable else []
    found = unknown(request["names"], specs, foreign) + found
    if "occupancy" not in usable:
        return found
    checked = Request(
        hostname=request["hostname"],
        host=request["host"],
        variables=values,
        tags=request["tags"],
        hosts=request["hosts"],
        product=request["product"],
        version=request["version"],
        refused_tuning=str(request["refused_tuning"]) if {"tuning", "postgres"} <= set(usable) else "",
    )
    return found + [text for role in usable for text in (CHECKS[role](checked) if role in CHECKS else ())]


def check_container_images(request: Request) -> list[str]:
    """The images can run on the host, are of the right version, and are meant for its environment."""
    problem = Problems()
    reference = request["container_images_postgres"]
    tag = re.search(r":(\d{1,2})(?:[.-][^:/]*)?$", reference.partition("@")[0])
    problem(
        tag and tag[1] != images.MAJOR,
        f"container_images_postgres is {reference}, and this product is made for PostgreSQL {images.MAJOR}.",
    )
    if request["container_images_source"] != "registry":
        own = request.host.get("architecture", "")
        _check_made(request, problem, images.read_manifest(ROOT, own)["postgres"]["image"])
        problem(
            own and own not in images.ARCHITECTURES,
            f"The host's architecture is {own}, and images are made for "
            f"{' and '.join(images.ARCHITECTURES)}. A 64-bit system may run on it.",
        )
        return problem.found
    image = request["container_images_ops"]
    problem(
        not re.search(rf":{re.escape(request.version)}(-[^:/@]+)?(@[^/]+)?$", image),
        "With container_images_source=registry, container_images_ops must name this release's ops image "
        "in your registry, "
        f"with a tag that is or begins with its version ({request.version}), and is '{image}'.",
    )
    return problem.found


def _check_made(request: Request, problem: Problems, image: str) -> None:
    """The images that the controller has made."""
    accepted = request.variables.get("container_images_allow_built", False)
    problem(
        image.startswith(images.BUILT)
        and request["occupancy_environment"] == "production"
        and not accepted
        # A host may have it from before this variable existed.
        and not request.host.get("postgres_image", "").startswith(images.BUILT),
        f"The controller's PostgreSQL image, {image}, is the substitute for places without a registry, and "
        "is not for production: see docs/images.md. Run with -e container_images_refresh=true where a "
        "registry answers, or set container_images_allow_built=true.",
    )


def check_tls(request: Request) -> list[str]:
    """The operator's own certificate is complete, or not used."""
    names = ("tls_certificate", "tls_private_key", "tls_ca_certificate")
    given = [request[name] for name in names if request[name]]
    if not given or (len(given) == len(names) and all(Path(path).is_file() for path in given)):
        return []
    return [
        f"{names[0]}, {names[1]} and {names[2]} must all be paths of files on the controller, or all be "
        "empty. Given: "
        f"{', '.join(given)}."
    ]


def check_tuning(request: Request) -> list[str]:
    """The plan fits the host, and kernel settings are vm.* settings."""
    problem = Problems()
    problem(
        request.refused_tuning,
        f"{request.refused_tuning}. Give the container more (occupancy_memory_mb), or change what "
        "postgres_settings, "
        "occupancy_users, occupancy_extra_databases and tuning_processes ask for.",
    )
    processes = request["tuning_processes"]
    problem(processes < 1, f"tuning_processes must be 1 or more, and is {processes}.")
    wrong = [name for name in request["tuning_sysctl"] if not re.fullmatch(r"vm\.[a-z_]+", name)]
    problem(
        wrong,
        "tuning_sysctl accepts the kernel's vm.* settings only, since Docker's networking and other "
        "programs rely on the "
        f"rest. Not so: {', '.join(wrong)}.",
    )
    return problem.found


def check_access(request: Request) -> list[str]:
    """The passwords belong to users and can be used."""
    others = other_databases.complete(request["occupancy_extra_databases"], [])
    users = [*request.product, *(user["name"] for user in request["occupancy_users"])]
    users += [one["owner"] for one in others]
    wrong = [
        name
        for name, password in request["access_passwords"].items()
        if name not in users or not isinstance(password, str) or not re.fullmatch(r"[^\r\n\0]{12,}", password)
    ]
    if not wrong:
        return []
    return [
        f"access_passwords must hold, for users that exist ({', '.join(users)}), passwords of 12 "
        "characters or more on one "
        f"line. Not so: {', '.join(sorted(wrong))}."
    ]


def check_monitoring(request: Request) -> list[str]:
    """The exporters listen on an address of IPv4, on two ports."""
    problem = Problems()
    address = request["monitoring_listen_address"]
    try:
        ipaddress.IPv4Address(address)
        wrong = False
    except ValueError:
        wrong = True
    problem(wrong, f"monitoring_listen_address must be one IPv4 address, and is {address}.")
    ports = [request["monitoring_node_port"], request["monitoring_postgres_port"]]
    problem(
        len({*ports, request["occupancy_port"]}) < 3 or not all(1 <= port <= 65535 for port in ports),
        "monitoring_node_port and monitoring_postgres_port must be two ports besides that of the server, "
        f"and are {ports[0]} and {ports[1]}.",
    )
    return problem.found


CHECKS: Mapping[str, Callable[[Request], list[str]]] = {
    "occupancy": check_occupancy,
    "container_images": check_container_images,
    "tls": check_tls,
    "tuning": check_tuning,
    "access": check_access,
    "backup": check_backup,
    "retention": check_retention,
    "notify": check_notify,
    "monitoring": check_monitoring,
}
"""The checks of each role's variables."""
