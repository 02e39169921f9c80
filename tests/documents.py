"""The documents and their code blocks, as the tests read them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

ROLE_READMES = sorted(ROOT.glob("roles/*/README.md"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *PAGES, *ROLE_READMES]

RUNNABLE = {"bash", "sh", "console", "shell", "python", "sql"}
"""Languages of blocks that a reader may run."""

PLACES = {"unit", "database", "host", "controller", "last", "no"}
"""Where a test runs a block; see docs/development.md."""

_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<info>.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    attributes: dict[str, str]
    text: str

    @property
    def place(self) -> str | None:
        """The place where a test runs the block."""
        return self.attributes.get("run")

    def __str__(self) -> str:
        """The place of the block in the documents."""
        return f"{self.document}:{self.line}"


def name_of(path: Path) -> str:
    """The path of a document relative to the checkout."""
    return str(path.relative_to(ROOT))


def blocks(*documents: Path) -> list[Block]:
    """The fenced blocks of documents in the order of the text.

    Args:
        documents: Paths; all documents if none is given.
    """
    return [block for path in documents or DOCUMENTS for block in _blocks(path)]


def _blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[str, int, str] | None = None
    text: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence and fence["fence"].startswith("`"):
            opened, text = (fence["fence"], number, fence["info"]), []
        elif opened and line.rstrip() == opened[0]:
            language, *words = shlex.split(opened[2]) or [""]
            attributes = dict(word.partition("=")[::2] for word in words)
            found.append(Block(name_of(path), opened[1], language, attributes, "\n".join(text) + "\n"))
            opened = None
        elif opened:
            text.append(line)
    assert opened is None, f"{name_of(path)}:{opened and opened[1]}: a block without an end"
    return found


def blocks_to_run(place: str) -> list[Block]:
    """The blocks that a test runs in one place.

    Args:
        place: One of PLACES.
    """
    return [block for block in blocks() if block.place == place]


def commands_of(block: Block) -> list[str]:
    """The commands of a block of shell commands: a command ends with its line unless it continues.

    Quoted text, a backslash at the end of a line and a here-document continue a command.

    Args:
        block: A block of shell commands.
    """
    commands: list[str] = []
    pending = ""
    end: str | None = None
    for line in block.text.splitlines():
        pending += line + "\n"
        if end is not None:
            if line != end:
                continue
            end = None
        elif here := re.search(r"<<-?'?(\w+)'?", line):
            end = here[1]
            continue
        elif line.endswith("\\") or _is_open(pending):
            continue
        if _without_comments(pending).strip():
            commands.append(pending.rstrip("\n"))
        pending = ""
    assert not pending, f"{block}: a command without an end"
    return commands


def _is_open(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def _without_comments(command: str) -> str:
    return re.sub(r"^\s*#.*$", "", command, flags=re.MULTILINE)


def prose(path: Path) -> str:
    """The text of a document without its fenced blocks and comments.

    Args:
        path: The document.
    """
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def inline_code(path: Path) -> list[str]:
    """Everything between backticks in the text of a document.

    Args:
        path: The document.
    """
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path))]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them.

    Args:
        path: The document.
    """
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def scratch_checkout(target: Path) -> Path:
    """A copy of the checkout that examples may change, with the environment of the tests as its .venv.

    Args:
        target: A directory that does not exist yet.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    environment = target / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".synced":
            (environment / path.name).symlink_to(path)
    (environment / ".synced").touch()  # newer than uv.lock: make installs nothing
    return target
