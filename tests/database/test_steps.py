"""Revisions that commit several times: a change over several releases, concurrent indexes, interruptions."""

from datetime import UTC, datetime

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from occupancy_db.backup.configuration import as_user
from occupancy_db.connection import create_engine
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.models import Prediction, PredictionType, RoomType, SensorReading
from occupancy_db.release import protocol
from occupancy_db.schema import lint, revisions, runner
from tests.database.chain import NOWHERE, ROWS, load, run
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.database.migration_host import MigrationHost
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.releases import CONTRACT, DATA, EXPAND, Release


async def test_a_release_of_several_steps_beside_the_restricted_users(
    migration_host: MigrationHost, release: Release
) -> None:
    """The example of docs/migrations.md: expand, backfill, and contract in a later release."""
    release(EXPAND, DATA, CONTRACT)
    findings = lint.lint(runner.alembic_config())
    assert findings == []

    release(EXPAND, DATA)
    (rows,) = migration_host.query("SELECT count(*) FROM sensor_readings")
    run(migration_host.database, ROWS[2])
    async with load(migration_host.database, "occupancy_app", "occupancy_readonly") as found:
        await _upgrade(migration_host, DATA.stem)
    assert found.failed == []
    assert migration_host.query("SELECT count(*) FROM sensor_readings") == (rows + found.written,)
    wrong = (
        "SELECT count(*) FROM predictions "
        "WHERE expected_vacancy_minutes * interval '1 min' IS DISTINCT FROM expected_vacancy"
    )
    assert migration_host.query(wrong) == (0,)

    await the_models_work(migration_host)  # the models of the previous release
    assert migration_host.query(wrong) == (0,)
    insert = (
        "INSERT INTO predictions (prediction_made_at, room, prediction_type, confidence, expected_vacancy) "
    )
    run(
        migration_host.database, f"{insert} VALUES (now(), 'office', 'vacancy', 1, '90 min')"
    )  # as the new release writes
    assert migration_host.query(
        "SELECT expected_vacancy_minutes FROM predictions ORDER BY id DESC LIMIT 1"
    ) == (90,)

    release(EXPAND, DATA, CONTRACT)
    async with load(migration_host.database, "occupancy_app", "occupancy_readonly") as found:
        await _upgrade(migration_host, CONTRACT.stem)
    assert found.failed == []
    assert (
        migration_host.query(
            "SELECT count(*), count(expected_vacancy) FROM predictions WHERE prediction_type = 'vacancy'"
        )[0]
        > 5000
    )


async def _upgrade(migration_host: MigrationHost, to: str) -> None:
    done = await protocol.deploy(migration_host.settings(), NOWHERE, print, save=False)
    assert done.after == to


async def the_models_work(migration_host: MigrationHost) -> None:
    engine = create_engine(as_user(migration_host.settings(), "occupancy_app", migration_host.backup))
    async with AsyncSession(engine) as session:
        session.add(
            Prediction(
                prediction_made_at=datetime.now(UTC), room=RoomType.OFFICE, confidence=1.0,
                prediction_type=PredictionType.VACANCY, expected_vacancy_minutes=30.0,
            )
        )  # fmt: skip
        session.add(
            SensorReading(
                timestamp=datetime.now(UTC), room=RoomType.OFFICE, zone="desk", state=True,
                source_entity="binary_sensor.desk",
            )
        )  # fmt: skip
        await session.commit()
        assert (await session.scalars(select(Prediction).order_by(Prediction.id.desc()).limit(1))).one()
        assert (await session.scalars(select(SensorReading).limit(1))).one()
    await engine.dispose()


INDEX = '''"""An index

Intent: the readings of an entity.
Locks: SHARE on sensor_readings, for a moment.
Reversible: yes.
Phase: expand.
Release: 0.2.0

Revision ID: 801_index
"""

from alembic import op

from occupancy_db.schema import migration_ops

revision = "801_index"
down_revision = "HEAD_OF_THE_RELEASE"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migration_ops.create_index("ix_sensor_readings_entity", "sensor_readings", "(source_entity, timestamp)")


def downgrade() -> None:
    op.execute("DROP INDEX ix_sensor_readings_entity")
'''.replace("HEAD_OF_THE_RELEASE", HEAD)
INDEXED = (
    "SELECT count(*) FILTER (WHERE indisvalid), count(*) FILTER (WHERE NOT indisvalid) FROM pg_index "
    "WHERE pg_get_indexdef(indexrelid) LIKE '%(source_entity, \"timestamp\")'"
)


def oldest_month(database: Database) -> str:
    parent = "inhparent = 'sensor_readings'::regclass"
    return str(run(database, f"SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE {parent}")[0][0])


async def interrupt(database: Database, statement: str) -> None:
    """Run a concurrent statement that an old transaction blocks, and let it time out."""
    old = database.connect()
    old.set_session(isolation_level="REPEATABLE READ", autocommit=False)
    with old.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sensor_readings")
    worker = database.connect(options="-c lock_timeout=200ms")
    with worker.cursor() as cursor, pytest.raises(Exception, match="lock timeout"):
        cursor.execute(statement)
    worker.close()
    old.close()


async def test_an_interrupted_concurrent_index_is_completed(database: Database, release: Release) -> None:
    release(r801_index=INDEX)
    month = oldest_month(database)
    name = f"ix_sensor_readings_entity_{month[-7:]}"
    await interrupt(database, f"CREATE INDEX CONCURRENTLY {name} ON {month} (source_entity, timestamp)")
    assert run(database, INDEXED) == [(0, 1)]
    async with load(database) as found:
        done = await protocol.deploy(database.settings(), NOWHERE, print)
    assert found.failed == []
    assert any(f"INVALID index {name}" in warning for warning in done.warnings)
    assert run(database, INDEXED) == [(21, 0)]  # twenty months and the table
    # Months that are created later, one ahead and five for a backfill, have the index, too. Applying the
    # revision again changes nothing.
    assert database.cli("partitions", "maintain", "--months-ahead", "13").returncode == 0
    assert run(database, INDEXED) == [(27, 0)]
    run(database, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    assert (await protocol.deploy(database.settings(), NOWHERE, print)).applied == ["801_index"]
    assert run(database, INDEXED) == [(27, 0)]


async def test_an_invalid_index_of_another_session_is_refused(database: Database, release: Release) -> None:
    release(r801_index=INDEX)
    # The name begins with the name of the table, which is also in the text of the revision.
    name = "sensor_readings_by_hand"
    run(database, f"CREATE INDEX {name} ON ONLY sensor_readings (room)")
    with pytest.raises(DatabaseError, match=f"the index {name} is INVALID") as raised:
        await protocol.deploy(database.settings(), NOWHERE, print)
    assert f"REINDEX INDEX CONCURRENTLY {name}" in raised.value.hint
    run(database, f"DROP INDEX {name}")
    assert (await protocol.deploy(database.settings(), NOWHERE, print)).applied == ["801_index"]


async def test_an_interrupted_detach_is_refused_and_maintenance_completes_it(
    database: Database, release: Release
) -> None:
    release(r801_index=INDEX)
    month = oldest_month(database)
    await interrupt(database, f"ALTER TABLE sensor_readings DETACH PARTITION {month} CONCURRENTLY")
    with pytest.raises(DatabaseError, match=f"{month} is half detached") as raised:
        await protocol.deploy(database.settings(), NOWHERE, print)
    assert "partitions maintain" in raised.value.hint
    assert raised.value.code is ExitCode.FAILED
    assert database.cli("partitions", "maintain").returncode == 0
    assert (await protocol.deploy(database.settings(), NOWHERE, print)).applied == ["801_index"]


async def test_the_helpers_work_in_a_script_for_psql(database: Database, release: Release) -> None:
    later = INDEX.replace(HEAD, DATA.stem).replace("801_index", "804_index")
    release(EXPAND, DATA, r804_index=later)
    run(database, ROWS[2])
    config = runner.alembic_config()
    for script in revisions.up_to(ScriptDirectory.from_config(config), "804_index")[len(REVISIONS) :]:
        database.psql(revisions.upgrade_sql(config, script))
    assert run(database, INDEXED) == [(21, 0)]
    filled = "SELECT count(*) FROM predictions WHERE expected_vacancy IS NULL"
    assert run(database, filled) == [(0,)]
    assert run(
        database,
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_predictions_expected_vacancy'::regclass",
    ) == [(True,)]
