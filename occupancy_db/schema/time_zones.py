"""Names of time zones that a home can have."""

import re
from typing import Final
from zoneinfo import available_timezones

# As the constraint of hourly.home: PostgreSQL also knows abbreviations and formulas, whose rules are not
# those of a place.
_NAME: Final = re.compile(r"UTC|Etc/GMT[+-][0-9]+|[A-Z][A-Za-z]+(/[A-Z][A-Za-z_-]+)+")


def time_zone_problem(name: object) -> str | None:
    """Why a time zone cannot be that of a home, as far as it is known without the database.

    Args:
        name: As in the IANA database, or UTC.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a time zone, as Europe/Berlin"
    known = available_timezones()  # none where the system has no data
    return f"{name!r} is not a known time zone" if known and name not in known else None
