"""Alembic's environment.

Nothing here may execute SQL before ``context.configure``: that begins a transaction which Alembic then takes
for the caller's, and every migration is rolled back with exit code 0. Timeouts therefore travel with the
connection.
"""

import asyncio
import re
from logging.config import fileConfig
from typing import Any

from alembic import command, context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import SchemaItem

from occupancy_db.connection import connect
from occupancy_db.errors import explain
from occupancy_db.maintenance import LOCK_TABLE, SESSION_SETTINGS
from occupancy_db.models import Base
from occupancy_db.release.rollback import require_no_loss
from occupancy_db.schema import revisions, runner
from occupancy_db.settings import Settings

PARTITION = re.compile(r"(?P<parent>.+)_\d{4}_\d{2}")


def include_object(
    _item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None
) -> bool:
    """Leave out of autogenerate what is not in the models: partitions, and the maintenance lock."""
    if kind == "table" and f"public.{name}" == LOCK_TABLE:
        return False
    if kind != "table" or not reflected or compare_to is not None:
        return True
    partition = PARTITION.fullmatch(name or "")
    return partition is None or partition["parent"] not in Base.metadata.tables


def remember(*, ctx: MigrationContext, heads: set[str], **_: Any) -> None:
    """Leave in the database what led to its revision, in the transaction that stamps it."""
    unverified = context.config.attributes.get("unverified", False)
    ctx.execute(revisions.history_comment(revisions.up_to(context.script, *heads), unverified=unverified))


OPTIONS: dict[str, Any] = {
    "on_version_apply": remember,
    "target_metadata": Base.metadata,
    "include_object": include_object,
    "compare_server_default": True,
    # One transaction for all would lose the version stamp of revisions that must commit on their own.
    "transaction_per_migration": True,
}


def run(connection: Connection) -> None:
    """Run the requested Alembic command on this connection."""
    report = context.config.attributes.get("on_version_apply")
    callbacks = [remember, report] if report else [remember]
    context.configure(connection=connection, **(OPTIONS | {"on_version_apply": callbacks}))
    with context.begin_transaction():
        context.run_migrations()


async def refuse_loss(connection: AsyncConnection) -> None:
    """Refuse the command `alembic downgrade` if data would be lost."""
    options = context.config.cmd_opts
    if options is None or options.cmd[0] is not command.downgrade or "lose-data" in context.get_x_argument():
        return
    current = await runner.current_revision(connection)
    going = context.script.iterate_revisions(current, options.revision, select_for_downgrade=True)
    await require_no_loss(connection, list(going), "'alembic -x lose-data downgrade'")
    await connection.rollback()  # the queries have begun a transaction


async def run_alone() -> None:
    """Run under the `alembic` command, with a new connection."""
    async with connect(Settings(), "alembic", server_settings=SESSION_SETTINGS) as connection:
        await refuse_loss(connection)
        await connection.run_sync(run)


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()
elif "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    try:
        asyncio.run(run_alone())
    except Exception as error:
        # `alembic` prints a CommandError as one line, and anything else as a traceback.
        known = explain(error)
        if known is None:
            raise
        raise CommandError(str(known)) from error
