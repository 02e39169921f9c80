"""Debian packages that tests need beside those of the product."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[1] / ".cache" / "debian"


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


def unpacked_package(name: str, file: str) -> Path:
    """Download and unpack a Debian package without installing it, and return one of its files.

    For programs that need nothing but the C library: installed, the package would start a service. The test
    is skipped where the package cannot be had.

    Args:
        name: The name of the package.
        file: The path of the file in it, as in ``usr/bin/promtool``.
    """
    place = UNPACKED / name
    if (place / file).exists():
        return place / file
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED) as directory:
        download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", name]
        done = subprocess.run(download, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"the package {name} is not there, and cannot be downloaded: {done.stderr.strip()}")
        (archive,) = Path(directory).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, f"{directory}/content"], check=True)
        # Another worker of pytest may have been faster.
        with contextlib.suppress(OSError):
            Path(directory, "content").rename(place)
    assert (place / file).exists(), f"{name} has no {file}"
    return place / file


def _installed(name: str, file: str) -> Path | None:
    listed = subprocess.run(["dpkg-query", "-L", name], capture_output=True, text=True, check=False).stdout
    return next((Path(line) for line in listed.splitlines() if line.endswith(file)), None)
