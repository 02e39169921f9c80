"""The archives from which a host loads its images again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

ROLES = Path(__file__).parents[2] / "roles"

# The engine's images are files, with their ID as the content. An archive lists the images that it holds.
DOCKER = """#!/bin/bash
cd "$(dirname "$0")/engine"
case "$1 $2" in
"image inspect")
  shift 2
  if [ "$1" = --format ]; then shift 2; fi
  cat "$@" ;;
"save "*) shift; for image; do echo "$image $(cat "$image")"; done ;;
"load "*) gzip -dc "$4" | while read -r image id; do echo "$id" >"$image"; done ;;
*) exit 2 ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the images of an engine with two releases; the server's image is the same in both."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "data/images").mkdir(parents=True)
    found = tmp_path / "engine"
    found.mkdir()
    for image in ("server", "ops1", "ops2"):
        (found / image).write_text(f"sha256:{image}\n")
    return found


def keep(engine: Path, *images: str, former: tuple[str, ...] = ()) -> list[str]:
    """Run keep-images and return the archives that it wrote."""
    program = (ROLES / "container_images/files/keep-images.sh").read_text()
    archives = engine.parent / "data/images"
    command = ["bash", "-c", program, "keep-images", str(archives), *images, "--", *former]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()


def load(engine: Path, name: str, image: str) -> subprocess.CompletedProcess[str]:
    """Run load-images for an image of .env."""
    (engine.parent / ".env").write_text(f"OCCUPANCY_{name}_IMAGE={image}\n")
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    template = environment.from_string((ROLES / "postgres/templates/load-images.sh.j2").read_text())
    program = template.render(
        ansible_managed="x", occupancy_dir=engine.parent, occupancy_data_dir=engine.parent / "data"
    )
    return subprocess.run(["sh", "-c", program, "load-images", name], capture_output=True, text=True)


def prune(engine: Path) -> None:
    for image in engine.iterdir():
        image.unlink()


def test_an_unfinished_release_keeps_the_images_that_are_in_use(engine: Path) -> None:
    assert keep(engine, "server", "ops1") == ["images"]
    assert keep(engine, "server", "ops1") == []
    assert keep(engine, "server", "ops2", former=("ops1",)) == ["former", "images"]
    assert keep(engine, "server", "ops2", former=("ops1",)) == []
    prune(engine)
    for name, image in (("OPS", "ops1"), ("RELEASE", "ops2"), ("POSTGRES", "server")):
        assert load(engine, name, image).returncode == 0
        assert (engine / image).read_text() == f"sha256:{image}\n"


def test_images_of_a_release_that_kept_none_are_archived(engine: Path) -> None:
    assert keep(engine, "server", "ops2", former=("ops1", "gone")) == ["former", "images"]
    prune(engine)
    assert load(engine, "OPS", "ops1").returncode == 0


def test_a_finished_release_has_one_archive(engine: Path) -> None:
    assert keep(engine, "server", "ops2") == ["images"]
    assert [path.name for path in sorted((engine.parent / "data/images").iterdir())] == [
        "images.ids",
        "images.tar.gz",
    ]


def test_an_image_that_no_archive_has_is_named(engine: Path) -> None:
    keep(engine, "server", "ops2")
    said = load(engine, "OPS", "ops3")
    assert said.returncode == 1
    assert "run the playbook again" in said.stderr


def test_another_image_of_the_same_name_is_archived_again(engine: Path) -> None:
    keep(engine, "server", "ops2")
    (engine / "ops2").write_text("sha256:made again\n")
    assert keep(engine, "server", "ops2") == ["images"]
