"""Settings that the operator has chosen: parsing them, and applying them to the calculated settings."""

import re
from collections.abc import Mapping

from occupancy_db.server.model import BudgetError, Setting

_MEMORY_UNITS = {"B": 1 / 2**20, "kB": 1 / 2**10, "MB": 1.0, "GB": 2.0**10, "TB": 2.0**20}

# Size of the default unit in MB, by setting.
_MEMORY = {
    "shared_buffers": 8 / 2**10,
    "wal_buffers": 8 / 2**10,
    "temp_buffers": 8 / 2**10,
    "max_wal_size": 1.0,
    "min_wal_size": 1.0,
    "work_mem": 1 / 2**10,
    "maintenance_work_mem": 1 / 2**10,
    "autovacuum_work_mem": 1 / 2**10,
}
_COUNTS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_parallel_workers",
    "autovacuum_max_workers",
    "superuser_reserved_connections",
    "reserved_connections",
)

# Settings for which -1 means that PostgreSQL chooses the value.
_AUTOMATIC = ("autovacuum_work_mem", "wal_buffers")


def numeric(overrides: Mapping[str, object]) -> dict[str, float]:
    """Return the overrides that the budget depends on as numbers: counts, and memory in MB.

    Args:
        overrides: Values as the operator wrote them, by the setting's name in lower case.

    Raises:
        BudgetError: a value is not a count, a number or an amount of memory.
    """
    return {
        name: number
        for name, value in overrides.items()
        if (number := _number(name, str(value).strip())) is not None
    }


def _number(name: str, text: str) -> float | None:
    """Return one override as a number, or None if the budget does not depend on it."""
    if name in _COUNTS:
        if not re.fullmatch(r"[0-9]+", text):
            raise BudgetError(f"{name} is {text!r}, which is not a whole number")
        return float(text)
    if name == "hash_mem_multiplier":
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            raise BudgetError(f"{name} is {text!r}, which is not a number")
        return float(text)
    if name in _AUTOMATIC and text == "-1":
        return -1.0
    if name in _MEMORY:
        parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(B|kB|MB|GB|TB)?", text)
        if parts is None or not float(parts[1]):
            raise BudgetError(f"{name} is {text!r}, which is not an amount of memory such as 64MB")
        return float(parts[1]) * (_MEMORY_UNITS[parts[2]] if parts[2] else _MEMORY[name])
    return None


def applied(settings: tuple[Setting, ...], overrides: Mapping[str, object]) -> tuple[Setting, ...]:
    """Replace calculated values with the operator's, and append the operator's other settings.

    Args:
        settings: The calculated settings.
        overrides: The operator's values, by the setting's name in lower case.
    """
    given = numeric(overrides)
    known = [
        Setting(
            each.name, overrides[each.name], "", _reason(each, each.name not in given), "postgres_settings"
        )
        if each.name in overrides
        else each
        for each in settings
    ]
    names = {each.name for each in settings}
    return (*known, *(
        Setting(name, value, "", "set by the operator", "postgres_settings")
        for name, value in overrides.items() if name not in names
    ))  # fmt: skip


def _reason(setting: Setting, calculated: bool) -> str:
    """Return the reason of an override.

    Args:
        setting: What the formula returned.
        calculated: Whether its value is calculated; the formula takes some overrides as they are.
    """
    if calculated:
        return f"set by the operator; calculated: {setting}, {setting.reason}"
    return f"set by the operator; otherwise {setting.reason}"
