"""Debian packages that tests need beside those of the product."""

import os
import subprocess
from pathlib import Path

import pytest


def debian_package(name: str, file: str) -> Path:
    """Install a Debian package if it is missing, and return one of its files.

    The test is skipped where that is impossible.

    Args:
        name: The name of the package.
        file: The end of the path of the file, as in ``faketime/libfaketime.so.1``.
    """
    if found := _installed(name, file):
        return found
    if os.geteuid() != 0:
        pytest.skip(f"the package {name} is not installed, and only root can install it")
    # Other workers of pytest may be installing packages, too: wait for the lock of dpkg.
    subprocess.run(
        ["apt-get", "-o", "DPkg::Lock::Timeout=180", "install", "-y", "--no-install-recommends", name],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    found = _installed(name, file)
    assert found, f"{name} has no {file}"
    return found


def _installed(name: str, file: str) -> Path | None:
    listed = subprocess.run(["dpkg-query", "-L", name], capture_output=True, text=True, check=False).stdout
    return next((Path(line) for line in listed.splitlines() if line.endswith(file)), None)
