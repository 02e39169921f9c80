"""The command occupancy-db of a host, with stubs in place of docker and logger."""

import os
import subprocess
from pathlib import Path

import pytest
from jinja2 import Template

from provisioning.variables import ROLES

TEMPLATE = ROLES / "migrations/templates/occupancy-db.j2"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A host's directory with the command, and what the stubs were called with."""
    (tmp_path / "bin").mkdir()
    text = Template(TEMPLATE.read_text()).render(occupancy_dir=tmp_path)
    programs = {
        "bin/occupancy-db": text.replace("/usr/local/bin", f"{tmp_path}/bin"),
        "bin/occupancy-log": '#!/bin/sh\necho "log: $*"\n',
        "bin/docker": f'#!/bin/sh\necho "$*" >>{tmp_path}/docker\n[ "$1" != compose ] || exit ${{CODE:-0}}\n',
        "bin/logger": f'#!/bin/sh\necho "$2 $5: $7" >>{tmp_path}/notes\n',
        "load-images": "#!/bin/sh\n",
    }
    for name, program in programs.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".env").write_text("OCCUPANCY_OPS_IMAGE=ops:1\nOCCUPANCY_RELEASE_IMAGE=ops:1\n")
    return tmp_path


def run(place: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [place / "bin/occupancy-db", *arguments],
        env=os.environ | {"PATH": f"{place}/bin:{os.environ['PATH']}", "CODE": str(code), "SUDO_USER": "ada"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_log_needs_no_engine(place: Path) -> None:
    assert run(place, "--json", "log", "--since", "today").stdout == "log: --json log --since today\n"
    assert not (place / "docker").exists()


@pytest.mark.parametrize(
    ("command", "code", "notes"),
    [
        (("--json", "migrate"), 0, ["notice: began, by ada", "notice: ended with exit code 0"]),
        (("restore", "--confirm", "x"), 12, ["notice: began, by ada", "err: ended with exit code 12"]),
        (("migrate", "--plan"), 0, []),
        (("erase", "--help"), 0, []),
        (("current",), 7, []),
    ],
)
def test_what_replaces_schema_or_data_is_noted(
    place: Path, command: tuple[str, ...], code: int, notes: list[str]
) -> None:
    assert run(place, *command, code=code).returncode == code
    name = next(one for one in command if not one.startswith("-"))
    expected = [f"occupancy-{name} user.{note}" for note in notes]
    found = (place / "notes").read_text().splitlines() if notes else []
    assert found == expected
    assert (place / "notes").exists() == bool(notes)
    assert (place / "docker").read_text().splitlines()[-1].endswith(" ".join(command))
