"""The rules for names and labels of rooms, and labels of sensors.

Playbooks import this module too, so that it imports nothing.
"""

import unicodedata
from typing import Final

NAME_CHARACTERS: Final = 50
"""The length that clients of this schema allow for the name of a room."""

NAME_BYTES: Final = 63
"""The length of a label of an enumerated type in PostgreSQL, in bytes of UTF-8."""

LABEL_CHARACTERS: Final = 100


def name_problem(name: object) -> str | None:
    """The reason why a value cannot be the name of a room, or None if it can.

    Args:
        name: Any object.
    """
    problem = _text_problem(name, NAME_CHARACTERS)
    if problem is None and len(str(name).encode()) > NAME_BYTES:
        problem = f"is longer than {NAME_BYTES} bytes of UTF-8"
    return problem and f"the name {_shown(name)} {problem}"


def label_problem(label: object) -> str | None:
    """The reason why a value cannot be the label of a room or sensor, or None if it can.

    Args:
        label: Any object.
    """
    problem = _text_problem(label, LABEL_CHARACTERS)
    return problem and f"the label {_shown(label)} {problem}"


def fold(name: str) -> str:
    """A form that is equal for names that differ only by case, spaces, hyphens or underscores."""
    composed = unicodedata.normalize("NFKC", name)
    return composed.casefold().replace(" ", "_").replace("-", "_")


def _text_problem(value: object, longest: int) -> str | None:
    if not isinstance(value, str):
        return "is not text"
    if not value:
        return "is empty"
    if len(value) > longest:
        return f"is longer than {longest} characters"
    if value != value.strip():
        return "begins or ends with a space"
    # Control characters, line ends, invisible characters, and bytes that are not UTF-8
    for character in value:
        if not character.isprintable():
            return f"contains the character U+{ord(character):04X}, which is not printable"
    return None


def _shown(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:60]}…"
