"""What an image holds, as a bill of materials (CycloneDX 1.5): its packages and three versions.

Runs inside the ops image, which is built on the image of the server. Reads only; standard library only.
"""

from __future__ import annotations

import ctypes
import json
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata


def said(*command: str) -> str:
    """The standard output of a program, empty if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""


def openssl() -> str:
    """The version of the OpenSSL that the server is linked with."""
    found = re.search(r"libcrypto\S* => (\S+)", said("ldd", shutil.which("postgres") or ""))
    if not found:
        return "none"
    version = ctypes.CDLL(found[1]).OpenSSL_version
    version.restype = ctypes.c_char_p
    return str(version(0).decode()).removeprefix("OpenSSL ").split()[0]


def components() -> list[dict[str, str]]:
    """The packages of Debian and of Python."""
    listed = said(
        "dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\n"
    ).splitlines()
    found = [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={kind}",
        }
        for name, version, kind in (line.split() for line in listed)
    ]
    for package in metadata.distributions(path=["/app/site-packages"]):
        name, version = package.metadata["Name"], package.version
        found.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower()}@{version}",
            }
        )
    return sorted(found, key=lambda each: each["purl"])


def main() -> None:
    """Print the bill. Its argument is the image's name."""
    server = re.search(r"[\d.]+", said("postgres", "--version"))
    versions = {
        "PostgreSQL": server[0] if server else "none",
        "OpenSSL": openssl(),
        "Python": platform.python_version(),
    }
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": sys.argv[1]},
            "properties": [{"name": name, "value": value} for name, value in versions.items()],
        },
        "components": components(),
    }
    print(json.dumps(bill, indent=2))


if __name__ == "__main__":
    main()
