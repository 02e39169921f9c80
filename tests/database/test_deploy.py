"""Deployments of a release's migrations to a host that is in use."""

from pathlib import Path

import pytest

from occupancy_db.backup.sets import SetState, Store
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.release import planning, protocol
from occupancy_db.release.rollback import roll_back
from occupancy_db.schema import runner
from occupancy_db.settings import Environment
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.database.migration_host import MigrationHost
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.releases import CONTRACT, DATA, EXPAND, Release, failure, revision


async def test_a_deployment_checks_backs_up_applies_and_verifies(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND, DATA)
    lines: list[str] = []
    done = await migration_host.deploy(lines.append)
    assert (done.before, done.after) == (HEAD, DATA.stem)
    assert done.applied == [EXPAND.stem, DATA.stem]
    assert [(one.summary.phase, one.summary.reversible) for one in done.revisions] == [
        ("expand", True), ("data", True),
    ]  # fmt: skip
    assert done.warnings == []
    assert migration_host.query(PROVED) == (True,)
    (saved,) = Store(migration_host.backup.dir).sets(migration_host.database.name)
    assert (saved.id, saved.state) == (done.backup, SetState.VERIFIED)
    assert saved.manifest is not None
    assert saved.manifest.contents.revision == HEAD
    assert [line.split(":")[0] for line in lines] == [
        "look", "rights", "compare", "check", "dump", "decode", "publish", "rehearse", "lock", EXPAND.stem,
        DATA.stem, "verify",
    ]  # fmt: skip
    assert "definitions as expected, privileges verified: occupancy, occupancy_app" in lines[-1]

    again = await migration_host.deploy()
    assert (again.before, again.after, again.applied) == (DATA.stem, DATA.stem, [])
    assert again.phases == {}
    assert len(Store(migration_host.backup.dir).sets(migration_host.database.name)) == 1


async def test_a_plan_shows_all_revisions_and_changes_nothing(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND, DATA)
    before = migration_host.database.cluster.dump_schema(migration_host.database.name)
    plan = await planning.plan(migration_host.settings(), migration_host.backup)
    assert (plan.before, plan.after, plan.problems) == (HEAD, DATA.stem, [])
    assert [one.summary.revision for one in plan.pending] == [EXPAND.stem, DATA.stem]
    assert "ADD COLUMN expected_vacancy interval" in plan.pending[0].sql
    assert migration_host.database.cluster.dump_schema(migration_host.database.name) == before


PROVED = "SELECT obj_description('alembic_version'::regclass, 'pg_class') NOT LIKE '%unproved%'"
BROKEN = "REVOKE INSERT ON sensor_readings FROM occupancy_app"
WHOLE = "GRANT INSERT ON sensor_readings TO occupancy_app"


async def test_a_reversible_revision_that_fails_verification_is_reverted(
    migration_host: MigrationHost, release: Release
) -> None:
    before = migration_host.database.cluster.dump_schema(migration_host.database.name)
    text = revision("801_break", HEAD, BROKEN)
    release(r801_break=text.removesuffix("pass\n") + f"op.execute({WHOLE!r})\n")
    error = await failure(migration_host, save=False)
    assert error.code is ExitCode.PERMISSION
    assert "verified as occupancy_app: permission denied" in error.what
    assert f"was reverted to {HEAD}" in error.what
    assert error.details["recover"] == [
        "occupancy-db migrate"
    ]  # no restore, because the database is unchanged
    assert (error.details["to"], error.details["reverted"]) == (HEAD, ["801_break"])
    assert migration_host.database.cluster.dump_schema(migration_host.database.name) == before


async def test_an_irreversible_revision_stays_and_the_error_names_the_commands(
    migration_host: MigrationHost, release: Release
) -> None:
    release(r801_break=revision("801_break", HEAD, BROKEN, reversible="no"))
    error = await failure(migration_host)
    assert error.what.endswith("stays at 801_break: reverting 801_break loses data")
    restore = f"occupancy-db restore {error.details['backup']} --confirm {migration_host.database.name}"
    assert error.details["recover"] == ["occupancy-db migrate", restore]
    assert all(command in error.hint for command in error.details["recover"])
    assert "losing what was written since the backup" in error.hint
    assert (error.details["to"], error.details["reverted"]) == ("801_break", [])


async def test_a_schema_that_failed_verification_is_verified_by_the_next_run(
    migration_host: MigrationHost, release: Release
) -> None:
    """No revision is pending then, but the schema is not verified."""
    release(r801_break=revision("801_break", HEAD, BROKEN, reversible="no"))
    await failure(migration_host, save=False)
    assert migration_host.query(PROVED) == (False,)
    error = await failure(migration_host)
    assert error.code is ExitCode.PERMISSION
    assert "verified as occupancy_app: " in error.what
    migration_host.query(WHOLE)
    done = await migration_host.deploy()
    assert (done.applied, done.backup) == ([], None)
    assert {"compare", "verify"} < done.phases.keys()
    assert migration_host.query(PROVED) == (True,)
    assert (await migration_host.deploy()).phases == {}


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_schema_of_any_revision_is_migrated_to_head(migration_host: MigrationHost, at: int) -> None:
    """As after an interrupted installation, or the restore of an old set."""
    await roll_back(migration_host.settings(), REVISIONS[at - 1], lose_data=True)
    done = await migration_host.deploy(save=False)
    assert (done.before, done.after) == (REVISIONS[at - 1], HEAD)


async def test_an_unverified_schema_is_verified_by_a_run_that_can(
    migration_host: MigrationHost, release: Release
) -> None:
    release(r801_break=revision("801_break", HEAD, BROKEN, reversible="no"))
    await failure(migration_host, save=False)
    migration_host.query(WHOLE)
    nowhere = migration_host.backup.model_copy(update={"dir": Path("/no/where")})
    done = await protocol.deploy(migration_host.settings(), nowhere, print)
    assert any("has not verified the schema" in warning for warning in done.warnings)
    assert migration_host.query(PROVED) == (False,)
    await migration_host.deploy()
    assert migration_host.query(PROVED) == (True,)


async def test_wrong_privileges_are_found_before_the_migrations(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND)
    migration_host.query("GRANT DELETE ON alembic_version TO occupancy_app")
    error = await failure(migration_host)
    assert "occupancy_app may run a forbidden statement" in error.what
    assert migration_host.query("SELECT version_num FROM alembic_version") == (HEAD,)


async def test_an_error_in_a_revision_leaves_the_schema_unchanged(
    migration_host: MigrationHost, release: Release
) -> None:
    before = migration_host.database.cluster.dump_schema(migration_host.database.name)
    of_rows = "SELECT 1 / (1 - count(*) / count(*)) FROM sensor_readings HAVING count(*) > 0"
    release(r801_break=revision("801_break", HEAD, "CREATE TABLE t ()", of_rows))
    error = await failure(migration_host, save=False)
    assert f"division by zero; {migration_host.database.name} is at {HEAD}, as before" in error.what
    assert migration_host.database.cluster.dump_schema(migration_host.database.name) == before
    release(r801_break=revision("801_break", HEAD, "CREATE TABLE t ()", "SELECT 1 / 0"))
    error = await failure(migration_host, save=False)
    assert "in an empty database of their own, the migrations fail: division by zero" in error.what
    assert migration_host.database.cluster.dump_schema(migration_host.database.name) == before


async def test_an_exception_of_a_revision_reverts_the_reversible_ones_before_it(
    migration_host: MigrationHost, release: Release
) -> None:
    broken = revision("802_break", EXPAND.stem).replace("pass\n", "raise KeyError('place')\n", 1)
    release(EXPAND, r802_break=broken)
    before = migration_host.database.cluster.dump_schema(migration_host.database.name)
    with pytest.raises(DatabaseError, match="tried in an empty database") as raised:
        await migration_host.deploy(save=False)
    assert raised.value.code is ExitCode.FAILED
    # Without a directory for the trial in an empty database
    nowhere = migration_host.backup.model_copy(update={"dir": Path("/no/where")})
    with pytest.raises(DatabaseError) as raised:
        await protocol.deploy(migration_host.settings(), nowhere, print, save=False)
    assert f"KeyError: 'place'; {migration_host.database.name} was reverted to {HEAD}" in raised.value.what
    assert (raised.value.details["to"], raised.value.details["reverted"]) == (HEAD, [EXPAND.stem])
    assert migration_host.database.cluster.dump_schema(migration_host.database.name) == before


MIDWAY = """with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS left_behind ()")
        op.execute("SELECT 1 / (1 - count(*) / count(*)) FROM sensor_readings HAVING count(*) > 0")
"""


async def test_the_error_names_a_failed_revision_that_has_committed_a_part(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND, r802_midway=revision("802_midway", EXPAND.stem).replace("pass\n", MIDWAY, 1))
    error = await failure(migration_host, save=False)
    assert f"was reverted to {HEAD}; what 802_midway has committed stays" in error.what
    assert migration_host.query("SELECT to_regclass('left_behind') IS NOT NULL") == (True,)


async def test_a_change_by_hand_is_found_before_the_migrations(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND)
    (month,) = migration_host.query(
        "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'sensor_readings'::regclass"
    )
    migration_host.query(f"DROP TRIGGER hourly_update ON {month}")
    error = await failure(migration_host)
    assert error.code is ExitCode.DIFFERENT
    assert f"TRIGGER of {month}: CREATE TRIGGER hourly_update" in error.what
    assert migration_host.query("SELECT version_num FROM alembic_version") == (HEAD,)


async def test_additional_objects_of_the_operator_are_reported_and_kept(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND)
    migration_host.query("CREATE INDEX of_the_operator ON predictions (model_version)")
    migration_host.query("CREATE TABLE of_the_operator_too ()")
    done = await migration_host.deploy(save=False)
    assert done.applied == [EXPAND.stem]
    (beyond,) = [warning for warning in done.warnings if "not part of revision" in warning]
    assert "INDEX public.of_the_operator" in beyond


async def test_production_requires_a_backup_or_the_option(
    migration_host: MigrationHost, release: Release
) -> None:
    release(EXPAND)
    nowhere = migration_host.backup.model_copy(update={"dir": Path("/no/where")})
    with pytest.raises(DatabaseError, match="no verified backup can be made here") as raised:
        await protocol.deploy(migration_host.settings(), nowhere, print)
    assert raised.value.code is ExitCode.CONFIGURATION
    developer = migration_host.settings(Environment.DEVELOPMENT)
    done = await protocol.deploy(developer, nowhere, print)
    assert (done.applied, done.backup) == ([EXPAND.stem], None)
    assert "no backup" in done.warnings[0]
    await roll_back(migration_host.settings(), "-1")
    assert (await protocol.deploy(migration_host.settings(), nowhere, print, save=False)).applied == [
        EXPAND.stem
    ]


async def test_a_release_must_not_be_skipped(migration_host: MigrationHost, release: Release) -> None:
    release(EXPAND, DATA, CONTRACT)
    error = await failure(migration_host)
    assert error.code is ExitCode.UNSUITABLE
    assert f"{CONTRACT.stem} removes what the release that is running uses until {EXPAND.stem}" in error.what
    assert migration_host.query("SELECT version_num FROM alembic_version") == (HEAD,)


async def test_the_previous_release_accepts_an_expansion_and_refuses_a_contract(
    migration_host: MigrationHost, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        release(EXPAND, DATA, CONTRACT)
        await runner.upgrade(migration_host.settings(), DATA.stem)
        newer.undo()
    found = migration_host.database.cli("migrate", "--json")
    assert found.returncode == 0, found.stderr
    assert (
        "ahead of this release by 801_add_expected_vacancy, 802_fill"
        in migration_host.database.cli("migrate").stdout
    )
    assert '"up_to_date": true' in migration_host.database.cli("current", "--json").stdout

    release(EXPAND, DATA, CONTRACT)
    await runner.upgrade(migration_host.settings())
    monkeypatch.undo()
    refused = migration_host.database.cli("migrate")
    assert refused.returncode == ExitCode.UNSUITABLE
    assert "has had 803_drop_vacancy_minutes, which removes what this release uses" in refused.stderr


async def test_production_refuses_a_rollback_that_loses_data(migration_host: MigrationHost) -> None:
    target = "004_hourly_sums"
    migration_host.query("INSERT INTO rooms (room, label) VALUES ('office', 'Study')")
    with pytest.raises(
        DatabaseError, match="without losing data: 005_text_rooms has 1 labels of rooms"
    ) as raised:
        await roll_back(migration_host.settings(), target)
    assert raised.value.code is ExitCode.REFUSED
    done = await roll_back(migration_host.settings(), target, lose_data=True)
    assert done.reverted == REVISIONS[: REVISIONS.index(target) : -1]


async def test_a_database_with_an_unknown_revision_is_refused(database: Database) -> None:
    with database.connect().cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = 'of_another'")
    result = database.cli("migrate")
    assert result.returncode == ExitCode.UNSUITABLE
    assert "at of_another, which this release does not know" in result.stderr
