"""Secrets reach a host or the controller on standard input, and no temporary file of Ansible's holds them."""

import ctypes
import json
import os
import re
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
        # It reads and writes all of a file, for one block of it.
        assert "blockinfile" not in modules, task.get("name")


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


def test_a_blank_text_removes_the_block_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("OWN=1\n")
    path.chmod(0o644)
    assert write(path, "\n", marker=MARKER) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # there is no block: the file is not the product's
    write(path, "PASSWORD=x\n", marker=MARKER)
    assert write(path, "\n", "check", marker=MARKER) == "changed"
    assert "PASSWORD=x" in path.read_text()
    assert write(path, "\n", marker=MARKER) == "changed"
    assert path.read_text() == "OWN=1\n"
    assert write(path, "\n", marker=MARKER) == ""


def test_runs_at_once_do_not_damage_each_others_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    blocks = {f"# {{mark}} {number}": f"NUMBER={number}\n" * 20_000 for number in range(4)}
    with ThreadPoolExecutor() as pool:
        assert (
            list(pool.map(lambda one: write(path, one[1], marker=one[0]), blocks.items())) == ["changed"] * 4
        )
    for marker, text in blocks.items():
        assert f"{marker.format(mark='BEGIN')}\n{text}{marker.format(mark='END')}\n" in path.read_text()


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / ".env").symlink_to("elsewhere")
    write(tmp_path / ".env", "A=1\n", marker=MARKER)
    assert (tmp_path / ".env").is_symlink()
    assert "A=1" in (tmp_path / "elsewhere").read_text()


SECRET = "a secret of this test"


def names_with_the_secret(command: list[str], directory: Path, environment: dict[str, str]) -> set[str]:
    """The files under a directory that held the secret while a command ran, as inotify reports them."""
    libc = ctypes.CDLL("libc.so.6")
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    watched: dict[int, Path] = {}
    found: set[str] = set()

    def watch(folder: Path) -> None:
        # Modified, closed after writing, moved to, created
        watched[libc.inotify_add_watch(descriptor, str(folder).encode(), 0x2 | 0x8 | 0x80 | 0x100)] = folder
        for path in folder.iterdir():
            look(path)

    def look(path: Path) -> None:
        try:
            if path.is_dir() and not path.is_symlink():
                watch(path)
            elif SECRET in path.read_text(errors="replace"):
                found.add(str(path.relative_to(directory)))
        except OSError:  # removed meanwhile
            pass

    watch(directory)
    with subprocess.Popen(command, env=environment) as process:
        while True:
            running = process.poll() is None
            try:
                events = os.read(descriptor, 65536)
            except BlockingIOError:
                if not running:
                    break
                select.select(
                    [descriptor], [], [], 0.1
                )  # until there is an event; then look at the process again
                continue
            offset = 0
            while offset < len(events):
                number, _, _, length = struct.unpack_from("iIII", events, offset)
                name = events[offset + 16 : offset + 16 + length].rstrip(b"\0").decode()
                offset += 16 + length
                look(watched[number] / name)
    os.close(descriptor)
    assert process.returncode == 0
    return found


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("command", set()),
        ("copy", {"local", "remote"}),  # as a check of the test
    ],
)
def test_a_secret_is_in_the_file_and_nowhere_else(tmp_path: Path, task: str, expected: set[str]) -> None:
    argv = ["/usr/bin/python3", "-c", SCRIPT.read_text(), str(tmp_path / "out/password"), "", "write"]
    arguments: dict[str, dict[str, object]] = {
        "command": {"argv": argv, "stdin": SECRET, "stdin_add_newline": False},
        "copy": {"content": SECRET, "dest": str(tmp_path / "out/password"), "mode": "0600"},
    }
    play: dict[str, object] = {"hosts": "localhost", "gather_facts": False, "connection": "local"}
    play["vars"] = {"ansible_python_interpreter": "/usr/bin/python3"}
    tasks = [{f"ansible.builtin.{task}": arguments[task], "no_log": True}]
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    playbook = tmp_path.with_suffix(".yml")  # outside of what is watched
    playbook.write_text(json.dumps([play | {"tasks": tasks}]))
    environment = os.environ | {
        "ANSIBLE_PIPELINING": "1", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_REMOTE_TMP": str(tmp_path / "remote"), "TMPDIR": str(tmp_path / "tmp"),
    }  # fmt: skip
    command = ["ansible-playbook", "--inventory", "localhost,", str(playbook)]
    found = names_with_the_secret(command, tmp_path, environment)
    assert "out/password" in found
    assert {name.split("/")[0] for name in found if not name.startswith("out/")} == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["password"]
