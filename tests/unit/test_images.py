"""The decisions about images, without an engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from playbooks.filter_plugins import playbooks
from provisioning import images

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv/bin/uv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that images are made of, which a test may change."""
    for name in (*images.OPS_SOURCES, "compose", "provisioning", "roles", "pyproject.toml", "uv.lock"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


CHOSEN = images.Postgres("occupancy-postgres:16-0123456789ab-amd64", "pulled from a registry")


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller is an x86 machine, whatever runs the tests."""
    monkeypatch.setattr(images, "this_architecture", lambda: "amd64")


def record(checkout: Path, manifest: dict[str, dict[str, str]], architecture: str = "amd64") -> None:
    """Write the manifest of `architecture`."""
    path = images.manifest_path(checkout, architecture)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


def test_no_image_is_made_if_all_exist(checkout: Path) -> None:
    first = images.plan(checkout, UV, [])
    assert (first.choose_postgres, first.build_postgres, first.build_ops, first.complete) == (
        True,
        True,
        True,
        False,
    )

    second = images.plan(checkout, UV, [CHOSEN.image], chosen=CHOSEN)
    assert (second.choose_postgres, second.build_ops, second.write_manifest) == (False, True, True)
    record(checkout, second.manifest)

    last = images.plan(checkout, UV, [CHOSEN.image, second.ops])
    assert last == replace(second, build_ops=False, write_manifest=False)
    assert last.complete
    assert images.plan(checkout, UV, [CHOSEN.image, second.ops], refresh=True).choose_postgres
    assert images.plan(checkout, UV, [second.ops]).choose_postgres  # it was removed from the engine


def test_an_image_from_packages_is_chosen_again_when_its_packages_change(checkout: Path) -> None:
    built = images.plan(checkout, UV, []).built
    choice = images.choose(
        images.REFERENCE,
        "",
        built,
        architecture="amd64",
        before=images.Postgres("", ""),
        error="name resolution",
    )
    assert choice.problem == ""
    chosen = choice.postgres
    assert chosen.image == built
    plan = images.plan(checkout, UV, [built], chosen=chosen)
    record(checkout, plan.manifest)
    assert not images.plan(checkout, UV, [built]).choose_postgres
    with (checkout / "compose/postgres/Dockerfile").open("a") as file:
        file.write("# a change\n")
    changed = images.plan(checkout, UV, [built])
    assert (changed.choose_postgres, changed.build_postgres) == (True, True)


NOTHING = images.Postgres("", "")
ID = "sha256:0123456789abcdef"
BUILT = images.BUILT + "0123456789ab"
SUBSTITUTE = images.Postgres(BUILT, "built from Debian, npm and PyPI packages")


def choose(before: images.Postgres, **changes: Any) -> images.Choice:
    """The choice of an operator who wants the default image, without a registry."""
    values = {
        "official": "",
        "built": BUILT,
        "architecture": "amd64",
        "error": "no such host",
        "refused": ["home"],
    } | changes
    return images.choose(values.pop("reference", images.REFERENCE), before=before, **values)


def test_an_official_image_is_identified_by_its_digest() -> None:
    assert choose(NOTHING, official=ID, downloaded=True, error="").postgres == CHOSEN
    assert choose(NOTHING, official=ID).postgres.origin == "already in the engine"
    assert choose(SUBSTITUTE, official=ID, downloaded=True, error="").postgres == CHOSEN
    assert choose(CHOSEN, official=ID).postgres == CHOSEN  # with its first origin


def test_an_outage_of_the_registry_does_not_replace_an_official_image() -> None:
    kept = choose(CHOSEN, present=[CHOSEN.image])
    assert (kept.postgres, kept.problem) == (CHOSEN, "")
    assert "no such host" in kept.report
    gone = choose(CHOSEN, present=[BUILT], refused=[])
    assert "is not replaced" in gone.problem


def test_another_image_that_is_not_available_is_refused() -> None:
    assert (
        "postgres:16.9-bookworm"
        in choose(CHOSEN, reference="postgres:16.9-bookworm", present=[CHOSEN.image]).problem
    )


def test_the_substitute_is_built_where_it_is_accepted() -> None:
    assert choose(NOTHING, refused=[]).postgres == SUBSTITUTE
    assert "production (home)" in choose(NOTHING).problem
    # It was accepted before
    assert choose(images.Postgres(images.BUILT + "ffffffffffff", "built")).postgres == SUBSTITUTE


def test_another_name_of_the_image_is_looked_for(checkout: Path) -> None:
    made = images.plan(checkout, UV, [CHOSEN.image], chosen=CHOSEN)
    record(checkout, made.manifest)
    present = [CHOSEN.image, made.ops]
    assert not images.plan(checkout, UV, present).choose_postgres
    assert images.plan(checkout, UV, present, reference="postgres:16.9-bookworm").choose_postgres


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("postgres (PostgreSQL) 16.14 (Debian 16.14-1.pgdg12+1)", ""),
        ("postgres (PostgreSQL) 17.6", "holds PostgreSQL 17"),
        ("exec: postgres: not found", "has no PostgreSQL server"),
    ],
)
def test_another_major_version_is_refused(version: str, problem: str) -> None:
    found = images.major_problem("postgres:x", version)
    assert (found == "") == (problem == "")
    assert problem in found


def host(**variables: Any) -> dict[str, Any]:
    return {"inventory_hostname": "home"} | variables


def test_production_accepts_no_substitute_unless_it_says_so() -> None:
    refused = playbooks.images_refused_built
    assert refused([host()]) == ["home"]
    assert refused([host(occupancy_environment="development")]) == []
    assert refused([host(container_images_allow_built="true")]) == []
    assert refused([host(container_images_source="registry")]) == []
    assert refused([host(occupancy_environment="development", container_images_allow_built=False)]) == [
        "home"
    ]


def test_a_host_that_wants_a_newer_image_is_heard() -> None:
    assert not playbooks.images_refresh([host()])
    assert playbooks.images_refresh([host(), host(container_images_refresh="yes")])
    assert not playbooks.images_refresh(
        [host(container_images_source="registry", container_images_refresh=True)]
    )


def test_the_image_that_the_hosts_name_is_the_one_that_is_made() -> None:
    reference = playbooks.images_reference
    assert reference([], "default") == "default"
    assert reference([host(container_images_postgres="a"), host(container_images_postgres="a")], "d") == "a"
    assert (
        reference([host(), host(container_images_source="registry", container_images_postgres="a")], "d")
        == "d"
    )
    with pytest.raises(AnsibleFilterError, match="differs between hosts"):
        reference([host(), host(container_images_postgres="a")], "d")


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("occupancy_db/errors.py", True),
        ("migrations/versions/001_initial_schema.py", True),
        ("compose/ops/Dockerfile", True),
        ("provisioning/images.py", False),
        ("roles/postgres/tasks/main.yml", False),
        ("compose/compose.yaml", False),
    ],
)
def test_the_tools_image_depends_on_its_contents_only(path: str, other: bool, checkout: Path) -> None:
    before = images.plan(checkout, UV, [], chosen=CHOSEN).ops
    with (checkout / path).open("a") as file:
        file.write("# a change\n")
    cache = checkout / "occupancy_db/__pycache__"
    cache.mkdir()
    (cache / "errors.pyc").write_bytes(b"bytecode")
    assert (images.plan(checkout, UV, [], chosen=CHOSEN).ops != before) == other


def test_a_host_gets_the_images_of_the_controller_or_of_its_registry(checkout: Path) -> None:
    registry = {"postgres": "a", "ops": "b", "origin": "from your registry"}
    assert images.host_images(checkout, "registry", "a", "b", "arm64") == registry
    nothing = {"postgres": "", "ops": "", "origin": ""}
    assert images.host_images(checkout, "archive", "a", "b", "amd64") == nothing
    for architecture in images.ARCHITECTURES:
        chosen = replace(CHOSEN, image=f"postgres-{architecture}")
        plan = images.plan(checkout, UV, [], architecture=architecture, chosen=chosen)
        record(checkout, plan.manifest, architecture)
    for architecture in images.ARCHITECTURES:
        found = images.host_images(checkout, "archive", "a", "b", architecture)
        assert found["postgres"] == f"postgres-{architecture}"
        assert found["ops"].endswith(f"-{architecture}")
    assert len(images.made(checkout)) == 4


def test_the_choice_of_a_release_for_one_architecture_is_kept(checkout: Path) -> None:
    old = checkout / images.DIST / "manifest.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"postgres": {"image": "a", "origin": "pulled"}, "ops": {"image": "b"}}))
    assert images.read_manifest(checkout)["postgres"]["image"] == "a"
    assert images.read_manifest(checkout, "arm64")["postgres"]["image"] == ""
    plan = images.plan(checkout, UV, ["a"])
    assert (plan.choose_postgres, plan.postgres.image, plan.write_manifest) == (False, "a", True)


def test_the_images_of_an_architecture_have_names_of_their_own(checkout: Path) -> None:
    plans = [images.plan(checkout, UV, [], architecture=each) for each in images.ARCHITECTURES]
    assert len({plan.built for plan in plans}) == len({plan.ops for plan in plans}) == 2
    assert [(plan.cpu, plan.machine) for plan in plans] == [("x64", "x86_64"), ("arm64", "aarch64")]
    official = {
        choose(NOTHING, official=ID, architecture=each).postgres.image for each in images.ARCHITECTURES
    }
    assert len(official) == 2


def test_the_bill_of_materials_names_versions_and_packages(tmp_path: Path) -> None:
    programs = {"postgres": "postgres (PostgreSQL) 16.14", "dpkg-query": "adduser 3.134 all", "ldd": ""}
    for name, said in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / "roles/container_images/files/contents.py", "occupancy-ops:0.1.0-abc"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "occupancy-ops:0.1.0-abc",
    )
    versions = {each["name"]: each["value"] for each in bill["metadata"]["properties"]}
    assert versions["PostgreSQL"] == "16.14"
    assert set(versions) == {"PostgreSQL", "OpenSSL", "Python"}
    assert "pkg:deb/debian/adduser@3.134?arch=all" in [each["purl"] for each in bill["components"]]
