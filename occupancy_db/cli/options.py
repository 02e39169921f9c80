"""Options and rules that several commands share."""

from typing import Annotated

import typer

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Environment, Settings

LockWait = Annotated[
    float,
    typer.Option(
        min=0, help="Seconds to wait for another session that migrates, and for locks.", show_default=True
    ),
]


def refuse_in_production(settings: Settings, what: str) -> None:
    """Stop a command that production must never see.

    Args:
        settings: They name the environment.
        what: What the command does to the data.

    Raises:
        DatabaseError: the environment is production.
    """
    if settings.environment is Environment.PRODUCTION:
        raise DatabaseError(
            ExitCode.REFUSED,
            f"{what}, and {settings.where} is production",
            "There is no flag for it: set ENVIRONMENT if this is another kind of database.",
        )
