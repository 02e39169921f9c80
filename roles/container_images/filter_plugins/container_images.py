"""Filters that decide which images are made: provisioning.images, from a playbook."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from provisioning import digests, images


def plan(request: dict[str, Any]) -> dict[str, Any]:
    """The result of provisioning.images.plan for the role's variables."""
    chosen = request.get("chosen")
    found = images.plan(
        Path(request["root"]),
        Path(request["uv"]),
        request["present"],
        architecture=request["architecture"],
        reference=request["reference"],
        refresh=request["refresh"],
        chosen=images.Postgres(**chosen) if chosen else None,
    )
    return {**asdict(found), "complete": found.complete}


def choose(
    request: dict[str, Any], pull: dict[str, Any], official: list[dict[str, Any]], built: str
) -> dict[str, Any]:
    """The result of provisioning.images.choose.

    Args:
        request: The role's variables.
        pull: What community.docker.docker_image_pull returned.
        official: What the engine says of the image after it: one entry, or none.
        built: The name of the image that is built if there is no official one.
    """
    # The module puts the address of the engine's API before the reason.
    reason = re.sub(r"^.* for http\S+: ", "", str(pull.get("msg", "no answer")))
    error = "" if pull.get("image") else reason
    choice = images.choose(
        request["reference"],
        official[0]["Id"] if official else "",
        built,
        architecture=request["architecture"],
        before=images.Postgres(
            **images.read_manifest(Path(request["root"]), request["architecture"])["postgres"]
        ),
        present=request["present"],
        downloaded=bool(pull.get("changed")),
        error=error,
        refused=request["refused"],
    )
    return asdict(choice)


def incomplete(request: dict[str, Any], architectures: dict[str, list[str]]) -> dict[str, list[str]]:
    """The entries of `architectures` whose images are not all there, without this machine's."""
    own = images.this_architecture()
    return {
        name: hosts
        for name, hosts in architectures.items()
        if name != own and not plan({**request, "architecture": name})["complete"]
    }


def host_images(root: str, source: str, postgres: str, ops: str, architecture: str) -> dict[str, str]:
    """The result of provisioning.images.host_images."""
    return images.host_images(Path(root), source, postgres, ops, architecture)


def wrong_architecture(pulled: list[dict[str, Any]], architecture: str) -> str:
    """Which of a host's results of docker_image_pull are not for its architecture; empty if all are."""
    wrong = [
        f"{result['item']} is for {image['Architecture']}"
        for result in pulled
        if (image := result.get("image") or {}).get("Architecture", architecture) != architecture
    ]
    if not wrong or architecture not in images.ARCHITECTURES:
        return ""
    return (
        f"{' and '.join(wrong)}, and the host's architecture is {architecture}. Push the image for both "
        "architectures: docs/images.md shows how."
    )


def pin(reference: str, root: str) -> str:
    """The result of provisioning.digests.pin."""
    return digests.pin(Path(root), reference)


def record(pulled: list[dict[str, Any]], root: str) -> dict[str, str]:
    """The result of provisioning.digests.record."""
    return digests.record(Path(root), pulled)


def made(root: str) -> list[str]:
    """The result of provisioning.images.made."""
    return images.made(Path(root))


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "container_images_plan": plan,
            "container_images_choose": choose,
            "container_images_of_host": host_images,
            "container_images_made": made,
            "container_images_incomplete": incomplete,
            "container_images_foreign_problem": images.foreign_problem,
            "container_images_major_problem": images.major_problem,
            "container_images_python_problem": images.python_problem,
            "container_images_wrong_architecture": wrong_architecture,
            "container_images_pin": pin,
            "container_images_pullable": digests.pullable,
            "container_images_record": record,
        }
