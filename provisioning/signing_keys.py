"""The public keys of minisign that a host trusts."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")
"""A public key: 42 bytes in base64, which begin with the name of the algorithm, "Ed"."""


def merge(lines: Iterable[str]) -> str:
    """Return a file with each public key once, in the order of the lines.

    Args:
        lines: Lines of files of public keys, with comments.
    """
    keys = dict.fromkeys(line.strip() for line in lines if _KEY.fullmatch(line.strip()))
    return "".join(f"{key}\n" for key in keys)
