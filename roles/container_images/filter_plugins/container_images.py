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
        refresh=request["refresh"],
        chosen=images.Postgres(**chosen) if chosen else None,
    )
    return {**asdict(found), "complete": found.complete}


def choose(pull: dict[str, Any], built: str) -> dict[str, str]:
    """The result of provisioning.images.choose for what community.docker.docker_image_pull returned."""
    image_id = (pull.get("image") or {}).get("Id", "")
    return asdict(images.choose(image_id, bool(pull.get("changed")), built))


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
        }
