"""The file of a report: written whole or not at all, and readable for its owner only."""

import os
import stat
from pathlib import Path
from secrets import token_hex

from occupancy_db.backup.files import sync
from occupancy_db.errors import DatabaseError, ExitCode

MARK = b"<!doctype html>\n<!-- occupancy-db report -->\n"
"""How a report begins."""


def write(path: Path, page: str) -> None:
    """Write a report, in the place of an earlier one.

    Args:
        path: The file.
        page: Its content; begins with MARK.

    Raises:
        DatabaseError: something else is there, or there is no such directory.
        OSError: the file cannot be written; what was there is unchanged.
    """
    if not path.parent.is_dir():
        raise DatabaseError(
            ExitCode.FAILED,
            f"there is no directory {path.parent} to write {path.name} to",
            "Create it, or name another file with --output; - is standard output.",
        )
    refuse_foreign(path)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        # Nobody else can have made this file, nor a link of this name.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(page.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def refuse_foreign(path: Path) -> None:
    """Refuse to replace what is no report.

    Raises:
        DatabaseError: it is a link, a directory or another file.
        OSError: it cannot be read.
    """
    try:
        # A link is not followed, and a pipe not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError:
        if not path.is_symlink():
            raise
        raise _foreign(path, "a symbolic link") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _foreign(path, "a directory" if stat.S_ISDIR(mode) else "no regular file")
        if os.read(descriptor, len(MARK)) != MARK:
            raise _foreign(path, "another file, not a report")
    finally:
        os.close(descriptor)


def _foreign(path: Path, what: str) -> DatabaseError:
    return DatabaseError(
        ExitCode.REFUSED,
        f"{path} is {what}; it was left as it is",
        "Name another file with --output, or remove it.",
    )
