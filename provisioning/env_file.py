"""Assignments of a .env file that every reader takes for the same value.

python-dotenv (with pydantic-settings), a POSIX shell and the env_file of Compose read the same line in
different ways. What they agree on:

- a value of letters, digits and a few signs without quotes, which docker's --env-file reads as well;
- between single quotes, everything but the single quote, the backslash and "${";
- between double quotes, everything but "$" and the backtick, where a backslash precedes a double quote or a
  backslash;
- "${NAME}" between double quotes, if an earlier line of the file has assigned NAME.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from dotenv import dotenv_values

_PLAIN = re.compile(r"(?![#^!?*@%+=:,.])[\w@%+=:,./#^!?*\[\]-]*")
"""A value that needs no quotes. Of the signs, those at its beginning may mean something to a shell."""

_SINGLE = re.compile(r"(?:[^'\\$]|\$(?!\{))+|\$(?=\{)")
"""Text between single quotes. "${" would be replaced by python-dotenv, also there: its "$" ends the text."""

_DOUBLE = re.compile(r"[^$`]+")
"""Text between double quotes, before it is escaped."""


def assign(value: object, name: str, spare: str = "") -> str:
    """Return the lines that assign a value to a variable.

    Args:
        value: Text without line breaks, or a number.
        name: The variable.
        spare: Another variable. It holds a part of the value where one pair of quotes cannot hold all of it;
            the file must assign it after these lines.

    Raises:
        ValueError: the value has a line break or a zero byte, or it needs a spare variable and none is given.
    """
    text = str(value)
    if re.search(r"[\r\n\0]", text):
        raise ValueError(f"{name} cannot hold a line break or a zero byte")
    if _PLAIN.fullmatch(text):
        return f"{name}={text}"
    if _SINGLE.fullmatch(text) and "${" not in text:
        return f"{name}='{text}'"
    if _DOUBLE.fullmatch(text):
        return f'{name}="{_escaped(text)}"'
    if not spare:
        raise ValueError(f"{name} cannot hold this value")
    return "\n".join(_in_parts(text, name, spare))


def _escaped(text: str) -> str:
    escaped = re.sub(r'[\\"]', r"\\\g<0>", text)
    # Versions of python-dotenv before 1.2 take a backslash before the closing quote for its escape, whatever
    # precedes it. The empty value of an unset variable keeps the two apart.
    return escaped + "${NONE-}" if escaped.endswith("\\") else escaped


def _in_parts(text: str, name: str, spare: str) -> Iterator[str]:
    """Assign a value part by part: each line appends to the one before."""
    yield f"{name}=''"
    position = 0
    while position < len(text):
        single, double = _SINGLE.match(text, position), _DOUBLE.match(text, position)
        if single and (not double or single.end() >= double.end()):
            yield f"{spare}='{single[0]}'"
            yield f'{name}="${{{name}}}${{{spare}}}"'
            position = single.end()
        elif double:
            yield f'{name}="${{{name}}}{_escaped(double[0])}"'
            position = double.end()


def read(text: str) -> dict[str, str]:
    """Return the variables of a .env file, as its clients read them.

    Args:
        text: The content of the file.
    """
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text)).items()}
