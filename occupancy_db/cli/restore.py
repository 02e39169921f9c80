"""``occupancy-db restore``, ``restore-rollback`` and ``restore-cleanup``."""

import asyncio
from typing import Annotated

import typer

from occupancy_db.backup import databases, replaced
from occupancy_db.backup import restore as restoring
from occupancy_db.backup.configuration import BackupSettings, in_database
from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.settings import Settings

Confirm = Annotated[
    str | None,
    typer.Option(metavar="DATABASE", help="The name of the database that is changed; required."),
]


def restore(
    name: Annotated[
        str, typer.Argument(metavar="SET", help="The id of a set as in 'backup list', or latest.")
    ],
    confirm: Confirm = None,
    without_safety_backup: Annotated[
        bool,
        typer.Option(
            "--without-safety-backup",
            help="Do not dump the live database first: for one that cannot be dumped.",
        ),
    ] = False,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Accept a set that was made before sets were signed.")
    ] = False,
    json: Json = False,
) -> None:
    """Replace the live database by a verified backup set.

    The set is restored to another database and checked there. The last step exchanges the two databases; a
    failure before it leaves the live database untouched. The replaced database is kept for a day.
    """
    settings = confirmed(confirm, "this replaces the database", others=True)
    done = asyncio.run(
        restoring.restore(
            settings,
            BackupSettings(),
            name,
            out.step,
            safety_backup=not without_safety_backup,
            unsigned=unsigned,
        )
    )
    out.result(
        {"database": settings.database, **done.as_dict()},
        f"{settings.database} was restored from {done.set_id}"
        + (f", at revision {done.revision}" if done.revision else ""),
        *(f"the replaced database is in the backup set {kept}" for kept in [done.safety_backup] if kept),
        *(
            with_program(f"and for a day in the database {kept}: undo with 'occupancy-db restore-rollback'")
            for kept in [done.replaced]
            if kept
        ),
    )


def restore_rollback(confirm: Confirm = None, json: Json = False) -> None:
    """Undo the last restore by exchanging the databases."""
    settings = confirmed(confirm, "this replaces the database", others=True)
    done = asyncio.run(replaced.rollback(settings, BackupSettings(), out.step))
    out.result(
        {"database": settings.database, **done.as_dict()},
        f"{settings.database} is the database that was {done.live} again",
        *([f"the restored database is kept as {done.replaced} for a day"] if done.replaced else []),
    )


def restore_cleanup(json: Json = False) -> None:
    """Drop databases that a restore replaced or left.

    These are a database that was replaced more than three days ago, and one of an interrupted restore; of
    all databases of the host.
    """
    settings = Settings()
    dropped = asyncio.run(databases.cleanup())
    out.result(
        {"database": settings.database, "dropped": dropped}, f"dropped: {', '.join(dropped) or 'nothing'}"
    )


def confirmed(confirm: str | None, what: str, *, others: bool = False) -> Settings:
    """The settings of the database that the operator has named.

    Args:
        confirm: The name that the operator has given.
        what: What the command does, as a clause that the name of the database follows.
        others: Whether it may be another database than the product's own.

    Raises:
        DatabaseError: no name or that of no database was given.
    """
    settings, backup = Settings(), BackupSettings()
    if others and confirm in backup.others:
        return in_database(settings, confirm)
    if confirm != settings.database:
        given = "was not given" if confirm is None else f"names {confirm}"
        raise DatabaseError(
            ExitCode.REFUSED,
            f"{what} {settings.database}, and --confirm {given}",
            f"Repeat the command with --confirm {settings.database}.",
        )
    return settings
