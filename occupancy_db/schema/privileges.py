"""The privileges of the product's users, and the statements that verify them."""

import asyncpg
from sqlalchemy.exc import DBAPIError

from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode, caused_by
from occupancy_db.settings import Settings

OWNER = "occupancy"
BACKUP_USER = "occupancy_backup"
MONITOR = "occupancy_monitor"

_READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES (now(), 'office', 'probe', false, 'probe')"
)
# Both need UPDATE, DELETE or TRUNCATE. The first does not even wait for who holds the maintenance lock.
_MAY_LOCK = "LOCK TABLE public.maintenance_lock IN ROW EXCLUSIVE MODE"
_LOCK = "LOCK TABLE public.maintenance_lock IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"
_VIEWS = [
    "SELECT count(*) FROM room_occupancy_status",
    "SELECT count(*) FROM sensor_reading_stats",
    "SELECT count(*) FROM latest_readings WHERE room = 'office'::room_type",
    "SELECT count(*) FROM rooms",
]
_ALLOWED = {
    OWNER: ["SELECT version_num FROM alembic_version", "CREATE TABLE rights_probe ()"],
    "occupancy_app": [_READING, *_VIEWS],
    "occupancy_readonly": _VIEWS,
    BACKUP_USER: ["SELECT count(*) FROM hourly.sums", _MAY_LOCK],
    MONITOR: ["SELECT count(*) FROM pg_stat_activity"],
}
_FORBIDDEN = {
    "occupancy_app": [
        "CREATE TABLE rights_probe ()",
        "DELETE FROM alembic_version",
        "DELETE FROM rooms",
        _LOCK,
    ],
    "occupancy_readonly": [_READING, _LOCK],
    BACKUP_USER: [_READING],
    MONITOR: ["SELECT count(zone) FROM public.sensor_readings", _LOCK],
}

_UNDEFINED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)

USERS = list(_ALLOWED)

CONNECTION_WAIT = 30.0
"""Seconds to wait for a connection while a user's connection limit is reached."""


async def verify_privileges(settings: Settings, *, older: bool = False) -> None:
    """Run statements that a user must and must not be allowed to run, and roll all of them back.

    Args:
        settings: The database, as one of USERS.
        older: Whether the schema is of an older revision: statements on undefined objects then do not count.

    Raises:
        DatabaseError: the user may run a forbidden statement, or cannot log in.
        sqlalchemy.exc.DBAPIError: the user may not run a statement that it must be allowed to run.
    """
    user = settings.postgres_user
    session = {"default_transaction_read_only": "off", "timezone": "UTC"}
    async with connect(
        settings, "occupancy-db rights", server_settings=session, patience=CONNECTION_WAIT
    ) as connection:
        for statement in _ALLOWED[user]:
            try:
                await connection.exec_driver_sql(statement)
            except DBAPIError as error:
                if not (older and caused_by(error, *_UNDEFINED)):
                    raise
            await connection.rollback()
        for statement in _FORBIDDEN.get(user, ()):
            try:
                await connection.exec_driver_sql(statement)
            except DBAPIError as error:
                if not caused_by(error, asyncpg.InsufficientPrivilegeError, *(_UNDEFINED if older else ())):
                    raise
            else:
                raise DatabaseError(
                    ExitCode.PERMISSION,
                    f"{user} may run a forbidden statement: {statement}",
                    "Run 'make up', which grants every user its privileges again; then try again.",
                )
            await connection.rollback()
