"""What a deployment would do."""

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.connection import connect
from occupancy_db.errors import ExitCode
from occupancy_db.release.precheck import check_database
from occupancy_db.release.results import PlannedRevision, ReleasePlan, RevisionSummary
from occupancy_db.release.steps import BRIEF_LOCK_SETTINGS
from occupancy_db.schema import revisions, runner
from occupancy_db.settings import Settings


async def plan(settings: Settings, backup: BackupSettings) -> ReleasePlan:
    """Return what a deployment would do, and why it would be refused; changes nothing.

    Args:
        settings: The database, as its owner.
        backup: Where backup sets and the users' passwords are.

    Raises:
        DatabaseError: no connection.
    """
    async with connect(settings, "occupancy-db migrate", server_settings=BRIEF_LOCK_SETTINGS) as connection:
        state = await check_database(connection, settings, backup)
    config = runner.alembic_config()
    return ReleasePlan(
        database=settings.database,
        before=state.revision,
        after=state.pending[-1].revision if state.pending else state.revision,
        pending=[
            PlannedRevision(RevisionSummary.of(script), revisions.upgrade_sql(config, script))
            for script in state.pending
        ],
        ahead=state.ahead,
        problems=[str(problem) for problem in state.problems],
        warnings=state.warnings,
        exit_code=state.problems[0].code if state.problems else ExitCode.OK,
    )
