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
    path = images.manifest_path(checkout, architecture)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))


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


@pytest.mark.parametrize(
    ("architecture", "refused"), [("amd64", False), ("arm64", False), ("armhf", True), ("", False)]
)
def test_a_host_whose_architecture_has_no_images_is_refused(
    architecture: str, refused: bool, checkout: Path
) -> None:
    made(checkout, "occupancy-postgres:16-0123456789ab-amd64")
    said = problems(host={"architecture": architecture})
    assert bool(said) == refused
    assert all(f"architecture is {architecture}" in text and "amd64 and arm64" in text for text in said)
    registry: dict[str, Any] = {
        "container_images_source": "registry",
        "container_images_ops": "r.example/ops:0.1.0",
    }
    assert problems(host={"architecture": architecture}, **registry) == []


@pytest.mark.parametrize("architecture", images.ARCHITECTURES)
def test_the_images_of_the_host_s_architecture_are_checked(architecture: str, checkout: Path) -> None:
    made(checkout, SUBSTITUTE, "arm64")
    said = problems(host={"architecture": architecture})
    assert bool(said) == (architecture == "arm64")


@pytest.mark.parametrize("name", ["postgres:17-bookworm", "r.example:5000/postgres:17.2@sha256:0a"])
def test_another_major_version_of_postgresql_is_refused(name: str) -> None:
    (said,) = problems(container_images_postgres=name)
    assert "made for PostgreSQL 16" in said


@pytest.mark.parametrize(
    "name", ["postgres:16.9-bookworm", "r.example:5000/postgres", "r.example:5000/pg:2026-11"]
)
def test_other_names_of_the_image_are_accepted(name: str) -> None:
    assert problems(container_images_postgres=name) == []
