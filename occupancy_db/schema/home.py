"""The time zone of the home, which the views of local hours and days use."""

from typing import Any, Final

import asyncpg

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema.time_zones import time_zone_problem

_READ: Final = "SELECT time_zone FROM hourly.home"


async def read_time_zone(connection: Any) -> str:
    """Return the name of the time zone.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.

    Raises:
        asyncpg.PostgresError: the schema has no time zone, or the user is not the owner.
    """
    name: str = await connection.fetchval(_READ)
    return name


async def set_time_zone(connection: Any, name: str) -> bool:
    """Set the time zone. Sums are not rewritten: the views follow at once.

    Args:
        connection: An ``asyncpg.Connection`` of the owner.
        name: As in the IANA database, or UTC.

    Returns:
        Whether it was another one before.

    Raises:
        DatabaseError: the name is not allowed; nothing was changed.
        asyncpg.PostgresError: the schema has no time zone, or the user is not the owner.
    """
    problem = time_zone_problem(name)
    if problem is None:
        try:
            done = await connection.execute(
                "UPDATE hourly.home SET time_zone = $1 WHERE time_zone <> $1", name
            )
        except asyncpg.InvalidParameterValueError:
            problem = f"the server does not know the time zone {name!r}"
        else:
            return bool(done == "UPDATE 1")
    raise DatabaseError(ExitCode.USAGE, problem, "Write it as Europe/Berlin. Nothing was changed.")
