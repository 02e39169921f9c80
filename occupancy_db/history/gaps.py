"""Gaps brought in: kept in a table of their own until the readings are there."""

# ruff: noqa: S608  # constants

from typing import Any, Final

from occupancy_db.storage import Gap

MANY: Final = 10_000
"""Gaps that are worth a COPY."""

_STAGING: Final = "import_gaps"
_COLUMNS: Final = ("timestamp", "room", "zone", "source_entity")


class Gaps:
    """The gaps of one import, in its transaction."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._staged = False

    async def stage(self, gaps: list[Gap]) -> None:
        """Copy gaps into a table that nobody else sees.

        Raises:
            asyncpg.PostgresError: the server refused.
        """
        if not gaps:
            return
        if not self._staged:
            await self._driver.execute(f"CREATE TABLE {_STAGING} (LIKE sensor_gaps)")
            self._staged = True
        await self._driver.copy_records_to_table(_STAGING, records=gaps, columns=_COLUMNS)

    async def insert(self) -> int:
        """Insert those that are not there. Where only the history is left they would end nothing.

        Returns:
            How many are new.

        Raises:
            asyncpg.PostgresError: the server refused.
        """
        if not self._staged:
            return 0
        columns = ", ".join(_COLUMNS)
        done: str = await self._driver.execute(f"""
            INSERT INTO sensor_gaps ({columns})
            SELECT {columns} FROM {_STAGING}
            WHERE NOT EXISTS (SELECT FROM hourly.forgotten WHERE timestamp <@ times)
            ON CONFLICT DO NOTHING
        """)
        await self._driver.execute(f"DROP TABLE {_STAGING}")
        return int(done.split()[-1])
