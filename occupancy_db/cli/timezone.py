"""``occupancy-db timezone``."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.driver import SESSION_SETTINGS, connect_driver
from occupancy_db.schema import home
from occupancy_db.settings import Settings

app = typer.Typer(
    help="Show and set the time zone of the home.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

T = TypeVar("T")


@app.command("show")
def show(json: Json = False) -> None:
    """Show the time zone that the views of local hours and days use."""
    settings = Settings()
    name = _run(settings, home.read_time_zone)
    out.result({"database": settings.database, "time_zone": name}, name)


@app.command("set")
def set_time_zone(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As Europe/Berlin, or UTC.")],
    json: Json = False,
) -> None:
    """Set the time zone of the home.

    The views follow at once, for all of the history. Readings and UTC statistics stay as they are.
    """
    settings = Settings()
    changed = _run(settings, lambda connection: home.set_time_zone(connection, name))
    line = f"{settings.database}: the time zone of the home is {name}{'' if changed else ' already'}"
    out.result({"database": settings.database, "time_zone": name, "changed": changed}, line)


def _run(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    async def run() -> T:
        async with connect_driver(settings, "occupancy-db timezone", SESSION_SETTINGS) as connection:
            return await work(connection)

    return asyncio.run(run())
