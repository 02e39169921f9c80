"""Filters that decide which images are made: provisioning.images, from a playbook."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from provisioning import images


def plan(request: dict[str, Any]) -> dict[str, Any]:
    """The result of provisioning.images.plan for the role's variables."""
    chosen = request.get("chosen")
    found = images.plan(
        Path(request["root"]),
        Path(request["uv"]),
        request["present"],
        reference=request["reference"],
        refresh=request["refresh"],
        chosen=images.Postgres(**chosen) if chosen else None,
    )
    return {**asdict(found), "complete": found.complete}


def choose(request: dict[str, Any], pull: dict[str, Any], info: dict[str, Any], built: str) -> dict[str, Any]:
    """The result of provisioning.images.choose.

    Args:
        request: The role's variables.
        pull: What community.docker.docker_image_pull returned.
        info: What community.docker.docker_image_info returned after it.
        built: The name of the image that is built if there is no official one.
    """
    found = [image["Id"] for image in info["images"]]
    choice = images.choose(
        request["reference"],
        found[0] if found else "",
        built,
        before=images.Postgres(**images.read_manifest(Path(request["root"]))["postgres"]),
        present=request["present"],
        downloaded=bool(pull.get("changed")),
        error="" if pull.get("image") else str(pull.get("msg", "no answer")),
        refused=request["refused"],
    )
    return asdict(choice)


def host_images(root: str, source: str, postgres: str, ops: str) -> dict[str, str]:
    """The result of provisioning.images.host_images."""
    return images.host_images(Path(root), source, postgres, ops)


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "container_images_plan": plan,
            "container_images_choose": choose,
            "container_images_of_host": host_images,
            "container_images_major_problem": images.major_problem,
        }
