"""The Compose project of the product among the containers of a host.

A name of a project is not unique: an application in a directory `occupancy` has the one of earlier releases.
The facts are those of roles/occupancy/files/probe.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def former(host: Mapping[str, Any], directory: str, name: str) -> dict[str, list[str]]:
    """Return what is left of the project under another name, from a release before this one.

    Args:
        host: The facts of the host.
        directory: The directory of the project.
        name: Its name.

    Returns:
        `containers` (the server's, no running tool) and `networks` (those that no other container is in).
    """
    found = [
        each
        for each in host["containers"]
        if (each["project.working_dir"], each["service"], each["oneoff"]) == (directory, "postgres", "False")
        and each["project"] != name
    ]
    projects = {each["project"] for each in found}
    used = {network for each in host["containers"] if each not in found for network in each["networks"]}
    return {
        "containers": [each["name"] for each in found],
        "networks": [
            network
            for network, of in host["networks"].items()
            if of in projects - {""} and network not in used
        ],
    }
