"""The sensors of the inventory (occupancy_sensors), and which of them a host's database does not have.

The inventory only adds: it never moves, relabels, retires or removes a sensor.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

REQUIRED = ("entity", "room", "zone")
OPTIONAL = ("label", "hold")
LONGEST = {"entity": 100, "room": 50, "zone": 50, "label": 100, "hold": 50}
"""The keys of a sensor, all of them text, with the largest number of characters."""


def find_problems(sensors: Iterable[Any]) -> list[str]:
    """A sentence for each sensor that cannot be added, as far as that is known without the database.

    Args:
        sensors: As the inventory has them.
    """
    problems, entities = [], []
    for sensor in sensors:
        if not isinstance(sensor, Mapping) or set(sensor) - set(LONGEST) or set(REQUIRED) - set(sensor):
            problems.append(
                f"occupancy_sensors: {sensor} must have the keys {', '.join(REQUIRED)}, may have "
                f"{' and '.join(OPTIONAL)}, and no other."
            )
            continue
        problems += [
            f"occupancy_sensors: {key} of {sensor['entity']} must be text of 1 to "
            f"{LONGEST[key]} characters in one line."
            for key, value in sensor.items()
            if not isinstance(value, str) or not 1 <= len(value) <= LONGEST[key] or not value.isprintable()
        ]
        entities.append(str(sensor["entity"]))
    if twice := sorted({entity for entity in entities if entities.count(entity) > 1}):
        problems.append(f"occupancy_sensors lists more than once: {', '.join(twice)}.")
    return problems


def missing(sensors: Iterable[Mapping[str, str]], present: Iterable[str]) -> list[Mapping[str, str]]:
    """The sensors of the inventory that the database does not have.

    Args:
        sensors: As the inventory has them; they have passed `find_problems`.
        present: The entities of the database.
    """
    known = set(present)
    return [sensor for sensor in sensors if sensor["entity"] not in known]


def file(sensors: Iterable[Mapping[str, str]]) -> str:
    """The file from which `occupancy-db sensors add` adds them.

    Args:
        sensors: As `missing` returns them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["entity_id", *REQUIRED[1:], *OPTIONAL])
    writer.writerows([sensor.get(key, "") for key in (*REQUIRED, *OPTIONAL)] for sensor in sensors)
    return text.getvalue()
