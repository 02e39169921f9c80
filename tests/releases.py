"""The product's releases, and a checkout of one of them."""

import subprocess
from pathlib import Path

from occupancy_db.schema.position import chain

ROOT = Path(__file__).parents[1]

RELEASES = {"0.1.0": "c2a27295bde5fc22eb8f33f4ac7f8dbcbf34a4df"}
"""The commit of each release. A clone may have no tags."""


HEAD = chain()[-1]
"""The newest revision of this checkout."""


def example_revision(file: Path) -> str:
    """The text of one of the revisions in tests/database/example; the first one follows HEAD.

    Args:
        file: The file of the revision.
    """
    return file.read_text().replace("HEAD_OF_THE_RELEASE", HEAD)


def check_out(release: str, directory: Path) -> Path:
    """Write the files of a release into a new directory, from the history of this clone.

    Args:
        release: Its version.
        directory: Where its files are written.

    Raises:
        RuntimeError: This clone does not have the commit: it is shallow, or it is not a clone.
    """
    commit = RELEASES[release]
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise RuntimeError(
            f"this clone does not have commit {commit}, which is release {release}: {found.stderr.strip()}. "
            "In a shallow clone, 'git fetch --unshallow' gets it."
        )
    directory.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "--extract", "--directory", directory], input=archive.stdout, check=True)
    return directory
