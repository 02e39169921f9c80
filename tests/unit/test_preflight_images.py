"""Preflight's checks of the images, with what the controller has made."""

import json
from pathlib import Path
from typing import Any

import pytest

from provisioning import images
from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]

SUBSTITUTE = images.BUILT + "0123456789ab"


def made(checkout: Path, image: str, architecture: str = "amd64") -> None:
    manifest = {
        "postgres": {"image": image, "origin": "a test"},
        "ops": {"image": "occupancy-ops:0.1.0-0", "architecture": architecture},
    }
    (checkout / images.MANIFEST).parent.mkdir(parents=True)
    (checkout / images.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("values", "host", "refused"),
    [
        ({}, {}, True),
        ({}, {"postgres_image": images.BUILT + "ffffffffffff"}, False),  # it has one from before
        ({"container_images_allow_built": True}, {}, False),
        ({"occupancy_environment": "development"}, {}, False),
        ({"container_images_source": "registry", "container_images_ops": "r/ops:0.1.0"}, {}, False),
    ],
)
def test_production_gets_no_substitute_unless_it_says_so(
    values: dict[str, Any], host: dict[str, Any], refused: bool, checkout: Path
) -> None:
    made(checkout, SUBSTITUTE)
    said = problems(host=host, **values)
    assert [text for text in said if "is the substitute" in text] == said
    assert bool(said) == refused


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "armhf"])
@pytest.mark.parametrize("controller", ["amd64", "arm64", ""])
def test_a_host_of_another_architecture_is_refused(
    architecture: str, controller: str, checkout: Path
) -> None:
    made(checkout, "occupancy-postgres:16-0123456789ab", controller)
    said = problems(host={"architecture": architecture})
    assert bool(said) == (controller not in ("", architecture))
    assert all(f"architecture is {architecture}" in text for text in said)
    assert (
        problems(
            host={"architecture": architecture},
            container_images_source="registry",
            container_images_ops="r.example/ops:0.1.0",
        )
        == []
    )


@pytest.mark.parametrize("name", ["postgres:17-bookworm", "r.example:5000/postgres:17.2@sha256:0a"])
def test_another_major_version_of_postgresql_is_refused(name: str) -> None:
    (said,) = problems(container_images_postgres=name)
    assert "made for PostgreSQL 16" in said


@pytest.mark.parametrize(
    "name", ["postgres:16.9-bookworm", "r.example:5000/postgres", "r.example:5000/pg:2026-11"]
)
def test_other_names_of_the_image_are_accepted(name: str) -> None:
    assert problems(container_images_postgres=name) == []
