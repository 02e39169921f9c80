"""The thresholds of an inventory, which replace those of the list."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from occupancy_db.checks.catalogue import BY_NAME, CHECKS
from occupancy_db.checks.model import Check

THRESHOLDS = "thresholds.json"
"""The file of a host, which role checks writes."""

LEVELS = ("warning", "bad")


def problems(given: Any) -> list[str]:
    """Return what is wrong with thresholds, one sentence each.

    Args:
        given: For names of checks mappings with `warning`, `bad` or both: numbers, or None for none.
    """
    if not isinstance(given, Mapping):
        return ["is not a mapping of checks to thresholds"]
    found = []
    for name, values in given.items():
        if name not in BY_NAME:
            found.append(
                f"{name} is no check; there are {', '.join(sorted(one.name for one in CHECKS if one.unit))}"
            )
        elif not BY_NAME[name].unit or (BY_NAME[name].warning, BY_NAME[name].bad) == (None, None):
            found.append(f"{name} has no thresholds")
        elif not isinstance(values, Mapping) or not values or set(values) - set(LEVELS):
            found.append(f"{name} must have warning, bad or both")
        elif any(not _usable(value) for value in values.values()):
            found.append(f"{name} must have numbers of 0 or more, in {BY_NAME[name].unit}, or null for none")
        elif _turned(BY_NAME[name], values):
            order = "both, bad below warning" if _is_low(BY_NAME[name]) else "bad at or above warning"
            found.append(f"{name} must have {order}")
    return found


def _usable(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _is_low(check: Check) -> bool:
    return check.warning is not None and check.bad is not None and check.bad < check.warning


def _turned(check: Check, values: Mapping[str, Any]) -> bool:
    """Whether the thresholds would be in the wrong order."""
    warning, bad = values.get("warning", check.warning), values.get("bad", check.bad)
    if warning is None or bad is None:
        return _is_low(check)  # with one threshold alone, it is not known which values are bad
    return bool(bad >= warning if _is_low(check) else bad < warning)


def apply(given: Mapping[str, Mapping[str, float | None]]) -> tuple[Check, ...]:
    """Return the list with these thresholds; unknown names are ignored."""
    return tuple(
        replace(
            check,
            warning=given.get(check.name, {}).get("warning", check.warning),
            bad=given.get(check.name, {}).get("bad", check.bad),
        )
        for check in CHECKS
    )


def read(directory: Path) -> Sequence[Check]:
    """Return the list with the thresholds of a directory; those of the list if it has none.

    Raises:
        ValueError: the file cannot be used.
    """
    path = directory / THRESHOLDS
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return CHECKS
    if not isinstance(given, dict):
        raise ValueError(f"{path} is not a mapping of checks to thresholds")
    known = {name: values for name, values in given.items() if name in BY_NAME}  # of another release
    if wrong := problems(known):
        raise ValueError(f"{path}: {'; '.join(wrong)}")
    return apply(known)
