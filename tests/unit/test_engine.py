"""What is done about the engine of a host: the probe's output, and the verdict on recorded hosts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provisioning.engine import Verdict, judge

PROBE = Path(__file__).parents[2] / "roles/docker_engine/files/probe.sh"

RUNNING = {
    "daemon": "/usr/bin/dockerd",
    "package": "docker-ce",
    "client": "docker-ce-cli",
    "unit": "active",
    "version": "28.0.0",
    "compose": "2.40.0",
    "buildx": "github.com/docker/buildx v0.29.0",
}


def verdict(changes: dict[str, str], *, chosen: bool = False) -> Verdict:
    """The verdict on a host that differs in some facts from one with Docker's own packages."""
    lines = [f"{name}={value}" for name, value in (RUNNING | changes).items()]
    return judge([*lines, "image=postgres:16", "image=<none>:<none>"], chosen=chosen)


NO_ANSWER = {"version": "", "error": "Cannot connect to the Docker daemon"}
NO_ENGINE = {"daemon": "", "package": "", "unit": "inactive", "compose": "", "buildx": "", **NO_ANSWER}


def test_a_running_engine_is_used_as_it_is() -> None:
    assert verdict({}) == Verdict(images=("postgres:16",))
    assert verdict({}).usable


def test_the_engine_that_builds_images_alone_needs_buildx() -> None:
    lines = [f"{name}={value}" for name, value in (RUNNING | {"buildx": ""}).items()]
    assert judge(lines).usable
    assert "docker-buildx-plugin" in judge(lines, buildx=True).problem


@pytest.mark.parametrize("unit", ["inactive", "failed", "unknown", ""])
def test_a_stopped_engine_is_started(unit: str) -> None:
    found = verdict({"unit": unit, **NO_ANSWER})
    assert (found.start, found.install, found.problem) == (True, False, "")


def test_a_host_without_an_engine_gets_one() -> None:
    found = verdict({**NO_ENGINE, "client": ""})
    assert (found.install, found.start, found.problem) == (True, True, "")
    # A client alone, as distributions package it
    assert verdict({**NO_ENGINE, "client": "docker-cli"}).install


def test_missing_tools_of_the_distributions_engine_are_installed() -> None:
    assert verdict({"package": "docker.io", "compose": ""}).install


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compose": ""}, "docker-compose-plugin"),
        ({"package": "", "compose": ""}, "not from a package"),
        ({**NO_ANSWER, "unit": "active"}, "does not answer"),
        ({"mode": "rootless"}, "rootless"),
        ({**NO_ENGINE, "client": "", "rootless": "/run/user/1000/docker.sock"}, "rootless"),
        ({**NO_ENGINE, "client": "snap"}, "snap"),
        ({**NO_ENGINE, "client": "podman"}, "podman"),
        ({"client": "podman"}, "podman"),
        ({**NO_ENGINE, "client": "docker-ce-cli"}, "would remove it"),
    ],
)
def test_what_only_an_administrator_can_repair_is_named(changes: dict[str, str], said: str) -> None:
    found = verdict(changes)
    assert said in found.problem
    assert not (found.install or found.start or found.usable)


def test_packages_that_the_operator_names_are_installed_beside_a_client() -> None:
    assert verdict(NO_ENGINE, chosen=True).install


def run_probe(directory: Path, **programs: str) -> list[str]:
    """Run the probe on a host that has these programs and a few of POSIX."""
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    tools = ["cut", "grep", "head", "ls", "readlink", "sh", "sleep", "timeout", "tr"]
    for name in tools:
        path = subprocess.run(["/usr/bin/which", name], capture_output=True, text=True, check=True).stdout
        (directory / name).symlink_to(path.strip())
    done = subprocess.run(
        [directory / "sh", PROBE], env={"PATH": str(directory)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_probe_of_a_host_without_an_engine(tmp_path: Path) -> None:
    found = judge(run_probe(tmp_path))
    assert (found.install, found.start, found.images) == (True, True, ())


DOCKER = """case "$*" in
version*) {version} ;;
"compose version"*) echo 2.40.0 ;;
"buildx version"*) exit 1 ;;
"info"*) echo name=seccomp; {info} ;;
"image ls --digests"*) echo image=postgres@sha256:0a; echo 'image=postgres@<none>' ;;
"image ls"*) echo image=postgres:16; echo 'image=<none>:<none>' ;;
esac"""


@pytest.mark.parametrize(
    ("version", "info", "expected"),
    [
        ("echo 28.0.0", "exit 0", Verdict(images=("postgres:16", "postgres@sha256:0a"))),
        ("echo cannot connect >&2; exit 1", "exit 1", Verdict(start=True)),
    ],
)
def test_the_probe_of_a_host_with_dockers_packages(
    version: str, info: str, expected: Verdict, tmp_path: Path
) -> None:
    docker = DOCKER.format(version=version, info=info)
    lines = run_probe(
        tmp_path,
        docker=docker,
        dockerd="",
        systemctl="echo inactive; exit 3",
        **{"dpkg-query": "echo 'docker-ce: /usr/bin/dockerd'"},
    )
    assert judge(lines) == expected
    assert "package=docker-ce" in lines


def test_the_probe_recognises_a_rootless_engine(tmp_path: Path) -> None:
    docker = DOCKER.format(version="echo 28.0.0", info="echo name=rootless")
    assert "rootless" in judge(run_probe(tmp_path, docker=docker)).problem
