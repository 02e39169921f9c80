"""Files that survive a power cut: written whole or not at all, and synchronised to disk."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Write the content of a file, or the entries of a directory, to disk.

    Raises:
        OSError: the disk reported an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Write a small file with mode 0600 so that it exists with the whole content, or as it was before.

    Args:
        path: The file.
        content: Its new content.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)
