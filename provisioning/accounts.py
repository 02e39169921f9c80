"""Accounts of a host for the ids that the users of the containers have.

Files and processes of a container belong to bare ids on the host: whoever has the same id there owns them.
The facts are those of roles/occupancy/files/probe.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def missing(host: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the accounts that are to be made, since nobody has their ids.

    Args:
        host: The facts of the host.
        wanted: The accounts: `name` and `uid`.
    """
    return [each for each in wanted if not holder(host, int(each["uid"]))]


def foreign(host: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return who else has one of the ids, by id.

    Args:
        host: The facts of the host.
        wanted: The accounts: `name` and `uid`.
    """
    found = {str(each["uid"]): (holder(host, int(each["uid"])), each["name"]) for each in wanted}
    return {uid: name for uid, (name, ours) in found.items() if name not in ("", ours)}


def holder(host: Mapping[str, Any], uid: int) -> str:
    """The account with an id on the host, or the one whose containers may use it; empty if there is none."""
    return str(host["accounts"][str(uid)]) or next(_lenders(host["subuid"], uid), "")


def _lenders(subuid: str, uid: int) -> Iterator[str]:
    """The accounts whose range in subuid(5) has the id."""
    for line in subuid.splitlines():
        name, *numbers = line.split(":")
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            first, size = map(int, numbers)
            if first <= uid < first + size:
                yield f"{name} (/etc/subuid)"
