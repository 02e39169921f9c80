"""Options and rules that several commands share."""

from typing import Annotated

import typer

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Environment, Settings

LockWait = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Seconds to wait for other maintenance and for locks.",
        show_default=True,
    ),
]

OneDatabase = Annotated[
    str | None,
    typer.Option("--database", metavar="NAME", help="Another database than the product's own."),
]

AllDatabases = Annotated[bool, typer.Option("--all", help="All databases, one after the other.")]


def refuse_in_production(settings: Settings, what: str) -> None:
    """Refuse a command that must not run in production.

    Args:
        settings: They name the environment.
        what: What the command does to the data, as a clause.

    Raises:
        DatabaseError: the environment is production.
    """
    if settings.environment is Environment.PRODUCTION:
        raise DatabaseError(
            ExitCode.REFUSED,
            f"{what}, and {settings.where} is production",
            "No option overrides this: set ENVIRONMENT if this is not a production database.",
        )
