"""Write a file with a secret, which Ansible passes on standard input: no module's temporary file gets it.

Arguments: PATH, UID of the owner (empty: that of the present file), `write` or `check`, and a marker with
{mark} if the text is a block between two lines of the file, as blockinfile writes it. A blank text removes
the block. Prints `changed` unless the file is so already, with mode 0600. The new content is written beside
the file, with its final owner and mode, and replaces it in one step. Two runs at once follow each other.
"""

import fcntl
import os
import re
import sys
from pathlib import Path


def main(name: str, uid: str, action: str, marker: str = "") -> None:
    """Write the file if it differs."""
    path, text = Path(name).resolve(), sys.stdin.buffer.read().decode()
    if action == "write":  # a check may be before the directory
        fcntl.flock(os.open(path.parent, os.O_RDONLY), fcntl.LOCK_EX)  # until the end
    status = path.stat() if path.exists() else None
    present = path.read_text(encoding="utf-8") if status else ""
    wanted = merge(present, text, marker) if marker else text
    owner = int(uid) if uid else status.st_uid if status else os.geteuid()
    secret = text.strip() or not marker
    kept = not secret or (status and (status.st_uid, status.st_mode & 0o777) == (owner, 0o600))
    if present == wanted and kept:
        return
    print("changed")
    if action == "write":
        write(path, wanted, owner, status.st_gid if status and not uid else owner)


def merge(present: str, text: str, marker: str) -> str:
    """The content of the file with the block in the place of the former one, or at the end."""
    first, last = (marker.replace("{mark}", mark) for mark in ("BEGIN", "END"))
    block = f"{first}\n{text.rstrip()}\n{last}\n" if text.strip() else ""
    found = re.compile(rf"^{re.escape(first)}\n(?:.*\n)*?{re.escape(last)}(?:\n|\Z)", re.MULTILINE)
    if not block or found.search(present):
        return found.sub(lambda _: block, present, count=1)
    return present + ("" if present in ("", "\n") or present.endswith("\n") else "\n") + block


def write(path: Path, text: str, uid: int, group: int) -> None:
    """Replace the file. What an interrupted run has left is replaced, too."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), uid, group)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
