"""``occupancy-db create-migration``."""

import asyncio
import re
from argparse import Namespace
from pathlib import Path
from typing import Annotated, Any

import typer
from alembic import command
from alembic.config import Config

from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.maintenance import SESSION_SETTINGS
from occupancy_db.schema.runner import alembic_config, script_directory, with_alembic
from occupancy_db.settings import Settings

# alembic_version.version_num is varchar(32)
MAX_REVISION_LENGTH = 32


def create_migration(
    message: Annotated[str, typer.Argument(help="What the migration does, in a few words.")],
    autogenerate: Annotated[
        bool, typer.Option(help="Fill it with the difference between the models and the database.")
    ] = True,
    json: Json = False,
) -> None:
    """Write the file of the next migration.

    With --no-autogenerate the file is empty, and the command connects to no server.
    """
    path = asyncio.run(_autogenerate(message)) if autogenerate else _write(alembic_config(), message)
    out.result({"path": str(path), "revision": path.stem}, f"wrote {path}: review it before you run it")


async def _autogenerate(message: str) -> Path:
    paths: list[Path] = []
    async with connect(
        Settings(), "occupancy-db create-migration", server_settings=SESSION_SETTINGS
    ) as connection:
        await with_alembic(
            connection, lambda config: paths.append(_write(config, message, autogenerate=True))
        )
    return paths[0]


def _write(config: Config, message: str, **options: Any) -> Path:
    # The id contains the message, so the file is named by the id alone ("%%" is configparser's "%").
    config.set_main_option("file_template", "%%(rev)s")
    config.cmd_opts = Namespace(quiet=True)  # otherwise Alembic prints to standard output
    script = command.revision(config, message, rev_id=next_revision_id(message), **options)
    assert script is not None and not isinstance(script, list)
    return Path(script.path)


def next_revision_id(message: str) -> str:
    """The id of the next revision: a number and the words of the message, as ``003_add_user_preferences``.

    Args:
        message: What the migration does; cut where the id would be too long for Alembic's table.
    """
    numbers = [
        int(revision.revision[:3])
        for revision in script_directory().walk_revisions()
        if revision.revision[:3].isdigit()
    ]
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
    return f"{max(numbers, default=0) + 1:03d}_{slug}"[:MAX_REVISION_LENGTH].rstrip("_")
