"""The level of a result, from its value and the thresholds of its check."""

from occupancy_db.checks.model import Check, Level, Result


def level_of(check: Check, value: float) -> Level:
    """The level that the thresholds of a check give a value.

    Args:
        check: The check; its bad threshold is below the warning where low values are bad.
        value: In the unit of the check.
    """
    low = check.warning is not None and check.bad is not None and check.bad < check.warning
    for level, threshold in ((Level.BAD, check.bad), (Level.WARNING, check.warning)):
        if threshold is not None and (value <= threshold if low else value >= threshold):
            return level
    return Level.GOOD


def judge(check: Check, value: float, summary: str, *details: str) -> Result:
    """The result of a check that measures something."""
    return Result(check.name, level_of(check, value), summary, details, round(value, 3))


def result(check: Check, level: Level, summary: str, *details: str, value: float | None = None) -> Result:
    """The result of a check whose level does not come from its thresholds alone."""
    return Result(check.name, level, summary, details, value)


def skipped(check: Check, why: str) -> Result:
    """The result of a check that does not apply, or that cannot be made."""
    return Result(check.name, Level.SKIPPED, why)


def duration(seconds: float) -> str:
    """A duration for people, as in 3 h 20 min; "0 s" for negative ones."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{hours // 24} days"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun, as in 1 set, 2 sets."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
