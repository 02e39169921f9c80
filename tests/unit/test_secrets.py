"""Secrets reach a host or the controller on standard input, and no temporary file of Ansible's holds them."""

import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "roles/occupancy/files/write_secret.py"
TASK_FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
# These write what they get, or send it, through a file in a temporary directory.
WRITERS = {"copy", "template", "blockinfile", "lineinfile", "assemble", "uri", "unarchive"}
MARKER = "# {mark} of the test"


def tasks(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from tasks(item)
    elif isinstance(node, dict):
        yield node
        for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from tasks(node.get(key))


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secret_goes_through_a_module_that_writes_temporary_files(path: Path) -> None:
    for task in tasks(yaml.safe_load(path.read_text())):
        modules = {key.rpartition(".")[2] for key in task} & WRITERS
        # The linters demand no_log where a secret is, and the names of secrets are known.
        secret = re.search(
            r"passwords?\b|private_key|secret_key|offsite_config\b|token",
            str(task.get("ansible.builtin.copy", "")),
        )
        assert not (modules and (task.get("no_log") or secret)), task.get("name")


def test_modules_get_their_arguments_without_a_file() -> None:
    settings = (ROOT / "ansible.cfg").read_text()
    assert re.search(r"^pipelining = True$", settings, re.MULTILINE)


def write(path: Path, text: str, action: str = "write", marker: str = "") -> str:
    command = [sys.executable, "-c", SCRIPT.read_text(), str(path), "", action, *([marker] if marker else [])]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_is_written_once_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "password"
    assert write(path, "sécret", "check") == "changed"
    assert not path.exists()
    assert write(path, "sécret") == "changed"
    assert write(path, "sécret") == ""
    path.chmod(0o644)
    (tmp_path / "password.new").write_text("of a run that was killed")
    assert write(path, "sécret") == "changed"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("sécret", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_replaces_the_former_one_and_keeps_the_other_lines(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("OWN=1")
    block = "# BEGIN of the test\nPASSWORD=\\1 $x\n# END of the test\n"
    assert write(path, "PASSWORD=\\1 $x\n", marker=MARKER) == "changed"
    assert path.read_text() == f"OWN=1\n{block}"
    path.write_text(f"{block.replace('x', 'y')}OWN=2\n")
    assert write(path, "PASSWORD=\\1 $x\n", marker=MARKER) == "changed"
    assert path.read_text() == f"{block}OWN=2\n"
    assert write(path, "PASSWORD=\\1 $x\n", marker=MARKER) == ""


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / ".env").symlink_to("elsewhere")
    write(tmp_path / ".env", "A=1\n", marker=MARKER)
    assert (tmp_path / ".env").is_symlink()
    assert "A=1" in (tmp_path / "elsewhere").read_text()
