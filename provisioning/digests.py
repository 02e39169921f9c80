"""The digests of the images that come from registries.

A tag can be given another content at any time; a digest cannot. The tracked file records the digest of each
tag that the product or an operator uses, and what is pulled is what it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = Path("compose/digests.json")
"""The record, relative to the project's directory: digests by name and tag."""


def read(root: Path) -> dict[str, str]:
    """The record of the checkout in `root`."""
    found: dict[str, str] = json.loads((root / FILE).read_text())
    return found


def pin(root: Path, reference: str) -> str:
    """`reference` with the digest that the checkout in `root` records, or as it is where none is recorded."""
    digest = read(root).get(reference, "")
    return f"{reference}@{digest}" if digest else reference


def unpin(reference: str) -> str:
    """`reference` without a digest."""
    return reference.partition("@")[0]


def pullable(reference: str) -> str:
    """`reference` for the engine, whose modules understand a tag or a digest, and not both."""
    name, at, digest = reference.partition("@")
    if not at:
        return reference
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


def record(root: Path, pulled: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The record with the digests of images that were pulled by their tags just now.

    Args:
        root: The project's directory.
        pulled: `item`, the name with a tag, and `image`, what the engine says of it, for each.

    Raises:
        ValueError: The engine knows no digest of an image: it is not from a registry.
    """
    found = read(root)
    for result in pulled:
        # The engine leaves out the address of Docker Hub.
        repository = pullable(f"{result['item']}@").removesuffix("@")
        repository = repository.removeprefix("docker.io/").removeprefix("library/")
        known = dict(each.split("@", 1) for each in result["image"].get("RepoDigests") or ())
        if repository not in known:
            raise ValueError(f"The engine knows no digest of {result['item']}.")
        found[result["item"]] = known[repository]
    return dict(sorted(found.items()))
