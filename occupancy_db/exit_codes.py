"""The exit codes of ``occupancy-db``."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Exit codes of ``occupancy-db``. They are an interface: scripts depend on them."""

    label: str

    def __new__(cls, value: int, label: str) -> Self:
        """Create a member with its number and its description."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.label = label
        return member

    OK = 0, "success"
    FAILED = 1, "failed"
    USAGE = 2, "wrong usage"
    CONFIGURATION = 3, "bad configuration"
    UNREACHABLE = 4, "server unreachable"
    AUTHENTICATION = 5, "authentication refused"
    TLS = 6, "TLS refused or certificate not trusted"
    DATABASE_MISSING = 7, "database missing"
    PERMISSION = 8, "permission denied"
    LOCKED = 9, "lock not obtained in time"
    REFUSED = 10, "refused: needs confirmation, or not allowed in production"
    NO_SPACE = 11, "not enough disk space"
    DAMAGED = 12, "backup set missing, damaged, not signed or not verified"
    DIFFERENT = 13, "restored content or schema differs from what it should be"
    PROGRAM = 14, "a program of PostgreSQL failed"
    UNSUITABLE = 15, "versions or features do not fit"
    CLOCK = 16, "the clock contradicts what is recorded"
    WARNING = 20, "a check is a warning, none is bad"
    BAD = 21, "a check is bad"
