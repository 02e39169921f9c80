"""Running Alembic's commands under the maintenance lock."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.connection import connect
from occupancy_db.maintenance import LOCK_WAIT, SESSION_SETTINGS, maintenance_lock
from occupancy_db.schema.position import migrations_directory
from occupancy_db.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What a run of migrations has done.

    Attributes:
        before: Revision before the run; None for an empty database.
        after: Revision after the run; None for an empty database.
        reverted: Ids of the revisions that were reverted, in order.
        applied: Ids of the revisions that were applied afterwards, in order.
    """

    before: str | None
    after: str | None
    reverted: list[str]
    applied: list[str]


def alembic_config() -> Config:
    """Alembic's configuration: ``alembic.ini`` in the checkout, its equivalent in an installed package."""
    migrations = migrations_directory()
    file = migrations.parent / "alembic.ini"
    if file.is_file():
        return Config(file)
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def script_directory() -> ScriptDirectory:
    """Return the revisions on disk."""
    return ScriptDirectory.from_config(alembic_config())


# The downgrades convert all rows, and the first revision has no place for rows of rooms that were added.
_EMPTY = """
    DO $$
    DECLARE
        tables text;
    BEGIN
        SELECT string_agg(name, ', ') INTO tables
        FROM unnest(ARRAY['public.sensor_readings', 'public.room_transitions', 'public.predictions']) AS name
        WHERE to_regclass(name) IS NOT NULL;
        IF tables IS NOT NULL THEN
            EXECUTE 'TRUNCATE ' || tables;
        END IF;
    END $$
"""


async def upgrade(settings: Settings, revision: str = "head", lock_wait: float = LOCK_WAIT) -> Outcome:
    """Bring the schema to a revision.

    Args:
        settings: The database.
        revision: What Alembic understands: an id, ``head``, ``+1``.
        lock_wait: Seconds to wait for the maintenance lock.

    Raises:
        DatabaseError: no connection, or another session holds the maintenance lock.
        sqlalchemy.exc.DBAPIError: a migration failed; the revision it belongs to is rolled back.
        alembic.util.CommandError: unknown revision.
    """
    return await _run(settings, [(command.upgrade, revision)], lock_wait)


async def recreate(settings: Settings, lock_wait: float = LOCK_WAIT) -> Outcome:
    """Remove everything that the migrations created, with all data, and create it again.

    Other objects stay, because the downgrades of the migrations run, and not DROP SCHEMA.

    Args:
        settings: The database.
        lock_wait: Seconds to wait for the maintenance lock.

    Raises:
        DatabaseError: no connection, or another session holds the maintenance lock.
        sqlalchemy.exc.DBAPIError: a migration failed; it is rolled back, those before it are not.
    """
    steps = [(command.downgrade, "base"), (command.upgrade, "head")]
    return await _run(settings, steps, lock_wait, prepare=_EMPTY)


async def current_revision(connection: AsyncConnection) -> str | None:
    """Return the revision of a database; None if no migration was applied."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def with_alembic(connection: AsyncConnection, run: Callable[[Config], Any], **attributes: Any) -> None:
    """Run one of Alembic's commands on an open connection.

    Args:
        connection: The connection that env.py uses.
        run: Calls the command with the configuration.
        attributes: Additional attributes of the configuration, which env.py reads.
    """

    def call(sync: Connection) -> None:
        config = alembic_config()
        config.attributes.update(attributes, connection=sync)
        run(config)

    await connection.run_sync(call)


async def _run(
    settings: Settings, steps: list[tuple[Callable[..., None], str]], lock_wait: float, prepare: str = ""
) -> Outcome:
    reverted: list[str] = []
    applied: list[str] = []

    def on_version_apply(*, step: Any, **_: Any) -> None:
        (applied if step.is_upgrade else reverted).append(step.up_revision_id)

    async with maintenance_lock(settings, lock_wait) as guard:
        before = await current_revision(guard)
        async with connect(
            settings, "occupancy-db migrations", server_settings=SESSION_SETTINGS
        ) as connection:
            if prepare:
                await connection.exec_driver_sql(prepare)
                await connection.commit()
            for run, revision in steps:
                await with_alembic(
                    connection, partial(run, revision=revision), on_version_apply=on_version_apply
                )
        return Outcome(before, await current_revision(guard), reverted, applied)
