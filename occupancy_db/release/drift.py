"""The comparison of a live schema with the schema that the migrations of this release create."""

import os

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.copying import read_definitions
from occupancy_db.backup.create import LOCK_WAIT
from occupancy_db.backup.programs import missing_programs
from occupancy_db.backup.sets import Store
from occupancy_db.connection import connect
from occupancy_db.release.verification import reference_schemas
from occupancy_db.schema.definitions import Drift
from occupancy_db.schema.privileges import USERS
from occupancy_db.settings import Settings


async def not_comparable(backup: BackupSettings) -> str | None:
    """Return why no throwaway cluster can be made here; None if one can."""
    for directory in (backup.dir, backup.rehearsal_dir):
        if not os.access(directory, os.W_OK):
            return f"{directory} does not exist, or this user may not write to it"
    return await missing_programs()


async def find_drift(settings: Settings, backup: BackupSettings, revision: str) -> Drift:
    """Compare the definitions of a database with those of its revision.

    Owners and privileges are compared if the server has the users of the product.

    Args:
        settings: The database, and a user who may read all tables.
        backup: Where throwaway clusters are made.
        revision: Revision of the database, which this release knows.

    Raises:
        DatabaseError: a backup or restore is running, or a program failed.
    """
    async with connect(settings, "occupancy-db check-tables") as connection:
        found = await connection.exec_driver_sql(
            "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)", (list(USERS),)
        )
        provisioned = found.scalar() == len(USERS)
    async with Store(backup.dir).lock(LOCK_WAIT):
        expected, _ = await reference_schemas(backup, revision, privileges=provisioned, newest=False)
    return expected.drift(await read_definitions(settings), privileges=provisioned)
