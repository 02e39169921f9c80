"""Making a report: what is read, and the page that shows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.checks.host import DIRECTORY, STATUS
from occupancy_db.checks.model import Level, Status
from occupancy_db.driver import connect_driver
from occupancy_db.environment import ENV_FILE
from occupancy_db.history.policy import RetentionSettings
from occupancy_db.report import home as homes
from occupancy_db.report import movements, occupancy, predictions, statements, status, volume
from occupancy_db.report.home import Home
from occupancy_db.report.page import Page, render
from occupancy_db.report.parts import Section, Tile, ago, size
from occupancy_db.settings import Settings

if TYPE_CHECKING:
    from occupancy_db.backup.sets import BackupSet

# Compiling the queries takes longer than running them. A forgotten writer must not stop the report for long.
_SESSION = {
    "timezone": "UTC",
    "jit": "off",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "work_mem": "24MB",
}


class ReportSettings(BaseSettings):
    """Where a report is written, and what it reads beside the database.

    The variables are the fields with the prefix ``REPORT_``.

    Raises:
        pydantic.ValidationError: a value is invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix="REPORT_", env_file=ENV_FILE, extra="ignore", env_ignore_empty=True
    )

    output: Path = Field(Path("report.html"), description="The file, if the command is not told otherwise")
    status: Path = Field(DIRECTORY / STATUS, description="Results of the checks of this host")


async def create(settings: Settings, report: ReportSettings, days: int, release: str) -> str:
    """Make a report.

    Args:
        settings: The database, and a user who may read all of it.
        report: Where the results of the checks are.
        days: How many days are shown, the present one included.
        release: Release of the product.

    Returns:
        The page.

    Raises:
        DatabaseError: no connection.
        asyncpg.PostgresError: the server refused, as for a missing privilege or an older schema.
    """
    backup = BackupSettings()
    checked = status.read(report.status)
    # Reading the sets imports most of the tools. The server answers meanwhile.
    reading = asyncio.create_task(asyncio.to_thread(_sets, backup.dir, settings.database))
    async with _snapshot(settings) as connection:
        home = await homes.find(connection, days)
        found = await volume.find(connection, home)
        zones = await volume.find_zones(connection)
        rooms = await _rooms(connection, home)
    sets = await reading
    from occupancy_db.report import backups

    sections = [
        status.section(home, checked),
        backups.section(home, sets),
        volume.growth_section(found, RetentionSettings().retention_months),
        volume.ingest_section(home, found),
        volume.zones_section(home, zones),
        *rooms,
        statements.section(await statements.find(settings, backup)),
    ]
    host = checked.host if isinstance(checked, Status) else ""
    tiles = [*_tiles_of_checks(checked), *_tiles_of_sets(home, sets), *_tiles_of_readings(home, found, zones)]
    return render(Page(home, settings.database, host, release, tiles, sections))


async def _rooms(connection: Any, home: Home) -> list[Section]:
    today = home.midnight(home.today)
    heat = await occupancy.heat(connection, home)
    days = [
        await occupancy.timeline(connection, today, home.now),
        await occupancy.timeline(connection, home.midnight(home.yesterday), today),
    ]
    moved = await movements.find(connection, home)
    predicted = await predictions.find(connection, home)
    return [
        occupancy.heat_section(home, heat),
        occupancy.timeline_section(home, days),
        movements.section(home, moved),
        predictions.section(home, predicted),
    ]


def _sets(directory: Path, database: str) -> "list[BackupSet] | str":
    # Read while the server answers: drawing the page, which imports them anyway, then begins at once.
    import mako.template  # noqa: F401
    import pygal  # noqa: F401

    from occupancy_db.report import backups

    return backups.find(directory, database)


@asynccontextmanager
async def _snapshot(settings: Settings) -> AsyncIterator[Any]:
    async with (
        connect_driver(settings, "occupancy-db report", _SESSION) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


def _tiles_of_checks(checked: Status | str) -> list[Tile]:
    if isinstance(checked, str):
        return []
    bad = [one for one in checked.results if one.level in {Level.WARNING, Level.BAD}]
    note = f"{len(bad)} of {len(checked.results)} need a look" if bad else f"{len(checked.results)} checks"
    return [Tile("Checks", status.WORDS[checked.level], note, checked.level.value)]


def _tiles_of_sets(home: Home, sets: "list[BackupSet] | str") -> list[Tile]:
    from occupancy_db.report import backups

    if isinstance(sets, str):
        return []
    newest = backups.newest_verified(sets)
    value = ago(newest.made_at, home.now) if newest else "✕ none"
    return [Tile("Newest verified backup", value, f"{len(sets)} sets", "" if newest else "bad")]


def _tiles_of_readings(home: Home, found: volume.Volume, zones: list[Any]) -> list[Tile]:
    last = max((row["timestamp"] for row in zones), default=None)
    return [
        Tile("Newest reading", ago(last, home.now) if last else "none", f"{len(zones)} zones"),
        Tile("Readings of a day", f"{found.daily:,.0f}", "mean of four weeks"),
        Tile("Database", size(found.bytes), f"{sum(found.readings.values()):,} readings so far"),
    ]
