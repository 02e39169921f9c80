"""Connect with each of the .env files that are named: as programs on this machine do.

Prints the error of the first that does not connect, and exits with 1 then.
"""

import asyncio
import os
import sys

from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError
from occupancy_db.settings import Settings


async def connect(path: str) -> None:
    """Connect as the user of the file, verify the server as the file says, and ask for the user's name."""
    async with connect_driver(Settings(_env_file=path), "make up") as connection:
        await connection.fetchval("SELECT current_user")


# Variables of the operator's shell would win over those of the files.
for name in [name for name in os.environ if name.startswith(("POSTGRES_", "PG")) or name == "ENVIRONMENT"]:
    del os.environ[name]
for file in sys.argv[1:]:
    try:
        asyncio.run(connect(file))
    except (DatabaseError, ValueError, OSError) as error:
        sys.exit(f"{file} does not connect: {error}")
