"""``occupancy-db clock``."""

import asyncio
import getpass
import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.exit_codes import ExitCode
from occupancy_db.history import clock
from occupancy_db.months import MARGIN
from occupancy_db.settings import Settings

app = typer.Typer(
    help="Compare the clock with what is recorded, and confirm it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("status")
def status(json: Json = False) -> None:
    """Compare the server's clock with the last check, the readings and this machine's clock.

    The exit code is 16 if something contradicts the clock.
    """
    settings = Settings()
    state = asyncio.run(clock.status(settings))
    out.result(
        {"database": settings.database, **asdict(state)},
        f"the clock of the server says {_moment(state.now)} UTC",
        f"last checked by {state.job} at {_moment(state.checked_at)} UTC"
        if state.checked_at
        else "it was not checked yet",
        *(
            [f"last confirmed by {state.confirmed_by} at {_moment(state.confirmed_at)} UTC"]
            if state.confirmed_at
            else []
        ),
        *(
            [f"contradiction: {state.contradiction}", "confirm it with 'occupancy-db clock confirm'"]
            if state.contradiction
            else [f"nothing contradicts it; a silence of more than {MARGIN.days} days would"]
        ),
    )
    if state.contradiction:
        raise typer.Exit(ExitCode.CLOCK)


@app.command("confirm")
def confirm(
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who confirms; default: the user of sudo or this user.")
    ] = None,
    json: Json = False,
) -> None:
    """Record that the clock is right, so that the jobs go on.

    Compare the clock with another one first: what the jobs then remove is gone.
    """
    settings = Settings()
    name = by or _user()
    before = asyncio.run(clock.confirm(settings, name))
    out.result(
        {"database": settings.database, "confirmed_by": name, "before": asdict(before)},
        f"{name} has confirmed the clock of the server: {_moment(before.now)} UTC",
        *([f"it contradicted: {before.contradiction}"] if before.contradiction else []),
    )


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _user() -> str:
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return str(os.getuid())
