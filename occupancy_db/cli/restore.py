"""``occupancy-db restore``, ``restore-rollback`` and ``restore-cleanup``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.backup import restore as restoring
from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.cli.output import Json, out
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

Confirm = Annotated[
    str | None,
    typer.Option(metavar="DATABASE", help="The database's name: clients are sent away for a moment."),
]


def restore(
    name: Annotated[str, typer.Argument(metavar="SET", help="As 'backup list' shows it, or latest.")],
    confirm: Confirm = None,
    without_safety_backup: Annotated[
        bool, typer.Option("--without-safety-backup", help="For a live database that cannot be dumped.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a verified set in the place of the live database, which is kept for a day.

    It is restored and tried aside; a failure before the last step leaves the live database untouched.
    """
    settings = _confirmed(confirm)
    done = asyncio.run(
        restoring.restore(settings, BackupSettings(), name, out.step, safety_backup=not without_safety_backup)
    )
    out.result(
        {"database": settings.database, **done},
        f"{settings.database} is {done['set']} now, at revision {done['revision']}",
        *(f"what it was is in the backup set {kept}" for kept in [done["safety_backup"]] if kept),
        *(f"and for a day in {kept}: 'occupancy-db restore-rollback'" for kept in [done["replaced"]] if kept),
    )


def restore_rollback(confirm: Confirm = None, json: Json = False) -> None:
    """Take back the last restore: the live database and the one it replaced change places."""
    settings = _confirmed(confirm)
    done = asyncio.run(restoring.rollback(settings, BackupSettings(), out.step))
    out.result(
        {"database": settings.database, **done},
        f"{settings.database} is again the one that was {done['live']}",
        *([f"the other one is {done['replaced']} now, for a day"] if done["replaced"] else []),
    )


def restore_cleanup(json: Json = False) -> None:
    """Drop the database that a restore replaced more than a day ago, and one that was never finished."""
    settings = Settings()
    dropped = asyncio.run(restoring.cleanup(settings, BackupSettings()))
    out.result(
        {"database": settings.database, "dropped": dropped}, f"dropped: {', '.join(dropped) or 'nothing'}"
    )


def _confirmed(confirm: str | None) -> Settings:
    settings = Settings()
    if confirm != settings.database:
        given = "was not given" if confirm is None else f"says {confirm}"
        raise DatabaseError(
            ExitCode.REFUSED,
            f"this replaces the database {settings.database}, and --confirm {given}",
            f"Repeat it with --confirm {settings.database}.",
        )
    return settings
