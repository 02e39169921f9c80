"""What a host needs to have a Docker Engine with Compose v2: nothing, a start, packages, or an administrator.

An engine that is installed is somebody's: it is started or named, never replaced, because the packages of
distribution, Docker and snap remove each other, and the containers of other projects go with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PLUGINS = {
    "docker-ce": {"compose": "docker-compose-plugin", "buildx": "docker-buildx-plugin"},
    "docker.io": {"compose": "docker-compose", "buildx": "docker-buildx"},
}
"""The packages of Compose and buildx that belong to an engine, by the engine's package."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done.

    Attributes:
        install: Whether packages of the distribution are to be installed.
        start: Whether the service is to be started.
        problem: What an administrator must do; otherwise empty.
        images: The images in the engine.
    """

    install: bool = False
    start: bool = False
    problem: str = ""
    images: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the engine can be used as it is."""
        return not (self.install or self.start or self.problem)


def judge(lines: Iterable[str], *, buildx: bool = False, chosen: bool = False) -> Verdict:
    """Decide what a host needs.

    Args:
        lines: The output of roles/docker_engine/files/probe.sh.
        buildx: Whether images are built with this engine.
        chosen: Whether the operator has named the packages to install.
    """
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    facts = {name: value.strip() for name, value in pairs if name != "image"}
    images = tuple(value for name, value in pairs if name == "image" and "<none>" not in value)
    if facts.get("version"):
        return _running(facts, images, ["compose", *(["buildx"] if buildx else [])])
    return _silent(facts, chosen=chosen)


def _running(facts: dict[str, str], images: tuple[str, ...], tools: list[str]) -> Verdict:
    """The verdict on an engine that answers."""
    if facts.get("mode") == "rootless" or facts.get("client") == "podman":
        kind = "podman" if facts.get("client") == "podman" else "a rootless engine"
        return Verdict(
            problem=f"docker on this host is {kind}, and this product needs Docker Engine as root. "
            "Install it beside that, and let root's docker use it."
        )
    missing = [tool for tool in tools if not facts.get(tool)]
    package = facts.get("package", "")
    if not missing:
        return Verdict(images=images)
    if package == "docker.io":
        return Verdict(install=True, images=images)
    named = PLUGINS.get(package, {})
    packages = " ".join(named.get(tool, tool) for tool in missing)
    return Verdict(
        images=images,
        problem=f"The Docker Engine ({package or 'not from a package'}) has no {' and no '.join(missing)}. "
        f"Install it from where the engine came from ({packages}): packages of the distribution would "
        "replace the engine.",
    )


def _silent(facts: dict[str, str], *, chosen: bool) -> Verdict:
    """The verdict on a host whose engine does not answer, or that has none."""
    error = facts.get("error", "")
    if facts.get("daemon"):
        if facts.get("unit") in ("active", "activating", "reloading"):
            return Verdict(
                problem=f"The Docker Engine ({facts.get('package') or facts['daemon']}) runs and does not "
                f"answer: {error}. Look into it (journalctl --unit docker) and restart it (systemctl restart "
                "docker)."
            )
        return Verdict(start=True)
    for client, kind in (("snap", "Docker from snap"), ("podman", "podman's docker command")):
        if facts.get("client") == client:
            return Verdict(
                problem=f"This host has {kind}, which does not serve this product: {error}. Remove it, or "
                "install Docker Engine beside it as its documentation describes, and run again."
            )
    if facts.get("rootless"):
        return Verdict(
            problem=f"This host has a rootless engine ({facts['rootless']}), and this product needs Docker "
            "Engine as root. Install it first: its packages may belong to the rootless engine."
        )
    if facts.get("client") == "docker-ce-cli" and not chosen:
        return Verdict(
            problem="This host has docker-ce-cli without an engine, and the distribution's packages would "
            "remove it. Install docker-ce, containerd.io and docker-compose-plugin, or name packages in "
            "docker_engine_packages."
        )
    return Verdict(install=True, start=True)
