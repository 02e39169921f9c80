"""The comparison of a live schema with the schema that the migrations of this release create."""

import os
import pwd

from sqlalchemy import text

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.copying import read_definitions
from occupancy_db.backup.create import LOCK_WAIT
from occupancy_db.backup.programs import missing_programs
from occupancy_db.backup.sets import Store
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.maintenance import hold_lock
from occupancy_db.release.verification import reference_schemas
from occupancy_db.schema import runner
from occupancy_db.schema.definitions import Drift
from occupancy_db.schema.privileges import USERS
from occupancy_db.settings import Settings

_CONTAINERS_ACCOUNT = "occupancy-tools"
"""Account of a provisioned host that keeps the id of its containers (roles/occupancy/vars/main.yml)."""

_USERS = text("SELECT count(*) FROM pg_roles WHERE rolname = ANY (CAST(:names AS text[]))")


async def not_comparable(backup: BackupSettings) -> str | None:
    """Return why no throwaway cluster can be made here; None if one can."""
    for directory in (backup.dir, backup.rehearsal_dir):
        if not os.access(directory, os.W_OK):
            return f"{directory} does not exist, or this user may not write to it"
    owner = backup.rehearsal_dir.stat().st_uid
    try:
        account = pwd.getpwuid(owner).pw_name
    except KeyError:  # initdb wants the name of its user
        return f"the owner of {backup.rehearsal_dir} has no account on this machine"
    if account == _CONTAINERS_ACCOUNT and owner != os.geteuid():
        return f"{backup.rehearsal_dir} belongs to the containers of this host"
    return await missing_programs()


async def find_drift(settings: Settings, backup: BackupSettings, revision: str) -> Drift:
    """Compare the definitions of a database with those of its revision.

    Owners and privileges are compared if the server has the users of the product.

    Args:
        settings: The database, and a user who may read all tables.
        backup: Where throwaway clusters are made.
        revision: Revision of the database, which this release knows.

    Raises:
        DatabaseError: a backup, a restore or maintenance is running, or a program failed.
    """
    async with (
        Store(backup.dir).lock(LOCK_WAIT),
        hold_lock(settings, LOCK_WAIT),  # no partition comes or goes meanwhile, and no revision
        connect(settings, "occupancy-db check-tables") as connection,
    ):
        if await runner.current_revision(connection) != revision:
            raise DatabaseError(ExitCode.LOCKED, "the schema was migrated meanwhile", "Try again.")
        users = await connection.scalar(_USERS, {"names": list(USERS)})
        await connection.rollback()
        provisioned = users == len(USERS)
        expected, _ = await reference_schemas(backup, revision, privileges=provisioned, newest=False)
        return expected.drift(await read_definitions(settings), privileges=provisioned)
