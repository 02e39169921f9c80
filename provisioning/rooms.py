"""The rooms of the inventory (occupancy_rooms), and which of them a host's database does not have.

The inventory only adds: it never renames, relabels, retires or removes a room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from occupancy_db.schema.room_names import label_problem, name_problem

KEYS = {"name", "label"}
"""The keys of a room that is a mapping."""


def wanted(rooms: Iterable[Any]) -> dict[str, str | None]:
    """The label of each room by name, None for a room without.

    Args:
        rooms: Names, or mappings with `name` and, unless the room has none, `label`.
    """
    found = [room if isinstance(room, Mapping) else {"name": room} for room in rooms]
    return {room["name"]: room.get("label") for room in found}


def find_problems(rooms: Iterable[Any]) -> list[str]:
    """A sentence for each room that cannot be added.

    Args:
        rooms: As the inventory has them.
    """
    problems, names = [], []
    for room in rooms:
        if isinstance(room, Mapping) and ("name" not in room or set(room) - KEYS):
            problems.append(
                f"occupancy_rooms: {dict(room)} must have the key name, may have the key label, and no other."
            )
            continue
        name, label = (room["name"], room.get("label")) if isinstance(room, Mapping) else (room, None)
        problem = name_problem(name) or (None if label is None else label_problem(label))
        if problem:
            problems.append(f"occupancy_rooms: {problem}.")
        names.append(name)
    if twice := sorted({name for name in names if isinstance(name, str) and names.count(name) > 1}):
        problems.append(f"occupancy_rooms lists more than once: {', '.join(twice)}.")
    return problems


def missing(rooms: Iterable[Any], present: Mapping[str, str | None]) -> dict[str, str | None]:
    """The rooms and labels of the inventory that the database does not have; a label never replaces another.

    Args:
        rooms: As the inventory has them; they have passed `find_problems`.
        present: The label of each room of the database, None for a room without.

    Returns:
        The label of each of these rooms by name.
    """
    return {
        name: label
        for name, label in wanted(rooms).items()
        if name not in present or (label is not None and present[name] is None)
    }


def arguments(rooms: Mapping[str, str | None]) -> list[str]:
    """The arguments of `occupancy-db` that add rooms.

    Args:
        rooms: As `missing` returns them, not empty.
    """
    labels = [f"--label={label or ''}" for label in rooms.values()] if any(rooms.values()) else []
    return ["rooms", "add", *labels, "--", *rooms]
