"""Exit codes say what docs/reference/exit-codes.md says, in commands that only look as well."""

import json

import pytest

from occupancy_db.errors import ExitCode
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.waiting import wait_for

UNKNOWN = "UPDATE alembic_version SET version_num = 'of_another'"
LONG = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'a dashboard' "
    "AND now() - xact_start > interval '11 s'"
)


@pytest.mark.parametrize("command", ["current", "migrate --plan", "migrate", "rollback"])
def test_a_revision_of_another_release_is_unsuitable(database: Database, command: str) -> None:
    database.psql(UNKNOWN)
    result = database.cli(*command.split())
    assert result.returncode == ExitCode.UNSUITABLE, result.stdout + result.stderr
    assert "of_another" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_known_revision_of_a_database_is_no_failure(database: Database) -> None:
    assert database.cli("current").returncode == ExitCode.OK
    assert database.cli("rollback").returncode == ExitCode.OK
    behind = database.cli("current", "--json")
    assert (behind.returncode, json.loads(behind.stdout)["revision"]) == (ExitCode.OK, REVISIONS[-2])
    plan = database.cli("migrate", "--plan")
    assert plan.returncode == ExitCode.OK, plan.stderr
    assert f"{REVISIONS[-2]} → {HEAD}, 1 pending" in plan.stdout


def test_a_plan_ends_with_the_code_of_the_first_obstacle(database: Database) -> None:
    assert database.cli("rollback").returncode == ExitCode.OK
    dashboard = database.connect(application_name="a dashboard")
    dashboard.autocommit = False
    with dashboard.cursor() as cursor, database.connect().cursor() as observer:
        cursor.execute("SELECT 1")

        def is_long() -> bool:
            observer.execute(LONG)
            return observer.fetchall() == [(1,)]

        wait_for(is_long, "a transaction that prevents migrations")
        plan = database.cli("migrate", "--plan", "--json")
    assert plan.returncode == ExitCode.LOCKED
    assert "a dashboard" in json.loads(plan.stdout)["problems"][0]
    dashboard.close()
    assert database.cli("migrate", "--plan").returncode == ExitCode.OK


@pytest.mark.parametrize("command", ["current", "check-tables"])
def test_a_cancelled_statement_is_not_a_lock_that_the_next_run_gets(database: Database, command: str) -> None:
    """The alerts ignore exit code 9."""
    database.cluster.execute(
        f"ALTER ROLE occupancy IN DATABASE {database.name} SET statement_timeout = '100ms'"
    )
    blocker = database.connect()
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        result = database.cli(command)
    blocker.close()
    assert result.returncode == ExitCode.FAILED
    assert "statement timeout" in result.stderr
    assert len(result.stderr.splitlines()) == 1
