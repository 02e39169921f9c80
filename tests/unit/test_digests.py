"""Images are pulled by the digests that are recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from playbooks.filter_plugins import playbooks
from provisioning import digests, images
from tests.unit.test_images import ID, NOTHING, ROOT, checkout, choose, host, on_amd64

__all__ = ["checkout", "on_amd64"]

DIGEST = "sha256:" + "0a" * 32


def test_what_is_pulled_is_what_is_recorded(checkout: Path) -> None:
    (checkout / digests.FILE).write_text(json.dumps({"r:5000/postgres:16": DIGEST}))
    assert digests.pin(checkout, "r:5000/postgres:16") == f"r:5000/postgres:16@{DIGEST}"
    assert digests.pin(checkout, "postgres:16-trixie") == "postgres:16-trixie"
    given = f"postgres:16@{DIGEST}"
    assert digests.pin(checkout, given) == given
    pulled = images.host_images(checkout, "registry", "r:5000/postgres:16", f"r:5000/ops:1@{DIGEST}", "amd64")
    assert pulled["postgres"] == f"r:5000/postgres@{DIGEST}"
    assert pulled["ops"] == f"r:5000/ops@{DIGEST}"


@pytest.mark.parametrize("name", ["postgres:16-trixie", "r:5000/a/postgres:16", "r:5000/postgres"])
def test_the_engine_gets_a_tag_or_a_digest(name: str) -> None:
    assert digests.pullable(name) == name
    tagged = name.rpartition("/")[2].partition(":")[0]
    assert digests.pullable(f"{name}@{DIGEST}").endswith(f"{tagged}@{DIGEST}")
    assert ":16" not in digests.pullable(f"{name}@{DIGEST}")


def test_digests_are_recorded_beside_those_that_are_known(checkout: Path) -> None:
    (checkout / digests.FILE).write_text(json.dumps({"other:1": DIGEST}))
    pulled = [
        {
            "item": "postgres:16-trixie",
            "image": {"RepoDigests": [f"mirror/postgres@{ID}", f"postgres@{DIGEST}"]},
        },
        {"item": "docker.io/library/postgres:16", "image": {"RepoDigests": [f"postgres@{DIGEST}"]}},
    ]
    found = digests.record(checkout, pulled)
    assert found == {"docker.io/library/postgres:16": DIGEST, "other:1": DIGEST, "postgres:16-trixie": DIGEST}
    with pytest.raises(ValueError, match="no digest of local:1"):
        digests.record(checkout, [{"item": "local:1", "image": {"RepoDigests": []}}])


def test_a_release_without_a_recorded_digest_says_so() -> None:
    assert "make digests" in choose(NOTHING, official=ID).report
    pinned = choose(NOTHING, official=ID, reference=f"postgres:16-trixie@{DIGEST}").report
    assert DIGEST in pinned
    assert "make digests" not in pinned


def test_the_record_in_the_repository_is_one_of_digests() -> None:
    found = digests.read(ROOT)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in found.values())


def test_the_references_of_the_inventory_are_recorded() -> None:
    hosts = [
        host(),
        host(container_images_postgres="r/pg:16"),
        host(container_images_postgres=f"r/pg:16@{DIGEST}"),
    ]
    assert playbooks.images_references(hosts, "postgres:16-trixie") == ["postgres:16-trixie", "r/pg:16"]
