"""Building the package, and installing it outside the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build_wheel(directory: Path) -> Path:
    """Build the wheel of the checkout."""
    uv("build", "--quiet", "--wheel", "--out-dir", directory, ROOT)
    (path,) = directory.glob("*.whl")
    return path


class Installation:
    """A virtual environment with the wheel, and an empty directory to work in.

    Attributes:
        bin: The programs of the environment.
        directory: The directory to work in.
    """

    def __init__(self, directory: Path, *requirements: str) -> None:
        self.bin = directory / "venv" / "bin"
        self.directory = directory / "elsewhere"
        self.directory.mkdir()
        uv("venv", "--quiet", "--python", sys.executable, directory / "venv")
        uv("pip", "install", "--quiet", "--python", self.bin / "python", *requirements)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.directory,
            env={"PATH": f"{self.bin}{os.pathsep}{os.defpath}", "HOME": str(self.directory), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def answer(self, *arguments: str, **environment: str) -> Any:
        result = self.run("occupancy-db", "--json", *arguments, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)
