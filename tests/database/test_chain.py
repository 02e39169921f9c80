"""The chain of revisions, with rows in the tables and beside those who read and write."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from occupancy_db.backup import contents
from occupancy_db.backup.configuration import BackupSettings, as_user
from occupancy_db.connection import connect, create_engine
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.models import Base, Prediction, PredictionType, RoomType, SensorReading
from occupancy_db.release import protocol
from occupancy_db.schema import definitions, lint, revisions, runner
from occupancy_db.schema.definitions import Schema
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.database.home import EXAMPLE, Home
from tests.database.home import home as home
from tests.database.home import release as release
from tests.database.users import OWNER, grant, password

EXPAND, DATA, CONTRACT = sorted(EXAMPLE.glob("*.py"))
Release = Callable[..., Path]
NOWHERE = BackupSettings(dir=Path("/no/where"))

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES ($1, 'office', 'desk', true, 'binary_sensor.desk')"
)
RECENT = "SELECT zone, state FROM sensor_readings WHERE timestamp > now() - interval '1 min'"
# They mean the same before and after the columns have become enums.
ROWS = [
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity, confidence) "
    "SELECT now() - n * interval '1 hour', 'office', 'desk', n % 2 = 0, 'binary_sensor.desk', 0.5 "
    "FROM generate_series(1, 2000) AS n",
    "INSERT INTO room_transitions (timestamp, from_room, to_room, transition_duration_seconds) "
    "SELECT now() - n * interval '1 hour', 'office', 'bedroom', 12 FROM generate_series(1, 100) AS n",
    "INSERT INTO predictions "
    "(prediction_made_at, room, prediction_type, confidence, expected_vacancy_minutes) "
    "SELECT now() - n * interval '1 hour', 'office', 'vacancy', 0.5, n FROM generate_series(1, 5000) AS n",
]
FINGERPRINT = " UNION ALL ".join(
    f"SELECT '{table}', count(*), md5(string_agg(concat_ws(' ', {columns}), ';' ORDER BY id)) FROM {table}"
    for table, columns in {
        "sensor_readings": "id, timestamp, room, zone, state, confidence, source_entity",
        "room_transitions": "id, timestamp, from_room, to_room, transition_duration_seconds",
        "predictions": "id, prediction_made_at, room, prediction_type, confidence, expected_vacancy_minutes",
    }.items()
)


def run(database: Database, *statements: str) -> list[tuple[Any, ...]]:
    connection = database.connect()
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


async def schema(database: Database) -> Schema:
    settings = database.settings()
    async with connect(settings, "test", server_settings=contents.SESSION) as connection:
        return await definitions.read(connection)


async def test_each_step_up_down_and_up_keeps_the_rows(empty: Database) -> None:
    settings = empty.settings()
    for number, name in enumerate(REVISIONS):
        await runner.upgrade(settings, name)
        if number == 0:
            run(empty, *ROWS)
            continue
        before = run(empty, FINGERPRINT)
        expected = await schema(empty)
        await protocol.take_back(settings, "-1")
        assert run(empty, FINGERPRINT) == before
        await runner.upgrade(settings, name)
        assert run(empty, FINGERPRINT) == before
        assert expected.drift(await schema(empty)) == ([], [])
        run(empty, *ROWS)


async def test_each_revision_takes_the_lock_that_it_declares(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest on any table that was there before, read before its transaction ends."""
    strongest: dict[str, str] = {}
    remember = revisions.remember

    def look(scripts: Any, *, unproved: bool) -> str:
        taken = [mode for mode in revisions.LOCKS if mode in modes()]
        strongest[scripts[-1].revision] = taken[-1] if taken else "none"
        return remember(scripts, unproved=unproved)

    def modes() -> set[str]:
        rows = run(
            empty,
            "SELECT DISTINCT mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
            "WHERE locktype = 'relation' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace "
            "AND relname <> 'alembic_version' AND pid <> pg_backend_pid()",
        )
        return {
            "".join(f" {c}" if c.isupper() else c for c in mode).strip().removesuffix(" Lock").upper()
            for (mode,) in rows
        }

    monkeypatch.setattr(revisions, "remember", look)
    scripts = revisions.chain(runner.script_directory(), HEAD)
    for script in scripts:
        await runner.upgrade(empty.settings(), script.revision)
    assert strongest == {script.revision: revisions.declared(script).locks for script in scripts}


async def test_the_models_make_what_the_migrations_make(database: Database, empty: Database) -> None:
    """Alembic's own comparison misses predicates, operator classes, texts of CHECK, keys and partitioning."""
    async with connect(empty.settings(), "test") as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.commit()
    models, migrated = await schema(empty), await schema(database)
    tables = {f"public.{name}" for name in Base.metadata.tables}
    migrated.common = {
        one
        for one in migrated.common
        if one.kind == "enums" or (one.kind != "triggers" and one.relation in tables)
    }
    assert migrated.drift(models) == ([], [])


CHANGES = {
    "a predicate": [
        "DROP INDEX ix_predictions_probability_distribution",
        "CREATE INDEX ix_predictions_probability_distribution ON predictions "
        "USING gin (probability_distribution jsonb_path_ops)",
    ],
    "an operator class": [
        "DROP INDEX ix_predictions_probability_distribution",
        "CREATE INDEX ix_predictions_probability_distribution ON predictions "
        "USING gin (probability_distribution) WHERE probability_distribution IS NOT NULL",
    ],
    "the text of a CHECK": [
        "ALTER TABLE predictions DROP CONSTRAINT ck_predictions_confidence",
        "ALTER TABLE predictions ADD CONSTRAINT ck_predictions_confidence CHECK (confidence > 0)",
    ],
    "a key": [
        "ALTER TABLE room_transitions DROP CONSTRAINT pk_room_transitions",
        "ALTER TABLE room_transitions ADD CONSTRAINT pk_room_transitions PRIMARY KEY (id, timestamp)",
    ],
    "partitioning": [
        "CREATE TABLE other (LIKE sensor_readings INCLUDING ALL)",
        "ALTER TABLE sensor_readings RENAME TO gone",
        "ALTER TABLE other RENAME TO sensor_readings",
    ],
    "a trigger": ["ALTER TABLE sensor_readings DISABLE TRIGGER hourly_insert"],
    "a function": ["ALTER FUNCTION retention_cutoff(integer) VOLATILE"],
    "a default": ["ALTER TABLE predictions ALTER COLUMN created_at DROP DEFAULT"],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_drift_sees(database: Database, change: str) -> None:
    before = await schema(database)
    run(database, *CHANGES[change])
    missing, _ = before.drift(await schema(database))
    assert missing


async def test_months_are_alike_whoever_made_them(database: Database, cursor: Any) -> None:
    before = await schema(database)
    assert database.cli("partitions", "maintain", "--months-ahead", "15").returncode == 0
    file = database.directory / "history.csv"
    file.write_text(
        "timestamp,room,zone,state,source_entity\n2021-03-01T00:00:00Z,office,desk,true,binary_sensor.desk\n"
    )
    assert database.cli("import", str(file)).returncode == 0
    cursor.execute("CREATE TABLE sensor_readings_2020_01 (somebodys int)")  # upkeep leaves it alone, too
    after = await schema(database)
    assert len(after.months) == len(before.months) + 5
    assert before.drift(after) == ([], [])


class Load:
    """What readers and writers met."""

    def __init__(self) -> None:
        self.written = 0
        self.failed: list[str] = []
        self.slowest = 0.0


@asynccontextmanager
async def load(database: Database, user: str = OWNER, reader: str = OWNER) -> AsyncIterator[Load]:
    """Two writers and a reader for as long as the block takes."""
    found, over = Load(), asyncio.Event()

    async def work(name: str, write: bool) -> None:
        connection = await asyncpg.connect(
            host=database.cluster.host, port=database.cluster.port, user=name, password=password(name),
            database=database.name,
        )  # fmt: skip
        while not over.is_set():
            start = time.perf_counter()
            try:
                if write:
                    await connection.execute(READING, datetime.now(UTC))
                    found.written += 1
                else:
                    await connection.fetch(
                        "SELECT zone, state FROM sensor_readings WHERE timestamp > now() - interval '1 min'"
                    )
            except asyncpg.PostgresError as error:
                found.failed.append(repr(error))
            found.slowest = max(found.slowest, time.perf_counter() - start)
            await asyncio.sleep(0.005)
        await connection.close()

    tasks = [asyncio.create_task(work(user, True)) for _ in range(2)] + [
        asyncio.create_task(work(reader, False))
    ]
    await asyncio.sleep(0.1)
    yield found
    await asyncio.sleep(0.1)
    over.set()
    await asyncio.gather(*tasks)


async def test_no_write_fails_or_is_lost_while_each_shipped_revision_is_applied(
    empty: Database, record_property: Callable[[str, object], None]
) -> None:
    settings = empty.settings()
    await runner.upgrade(settings, REVISIONS[0])
    grant(empty.cluster, empty.name)
    async with load(empty, "occupancy_app", "occupancy_readonly") as found:
        done = await protocol.deploy(settings, NOWHERE, print)
    assert done["applied"] == REVISIONS[1:]
    assert found.failed == []
    assert found.written > 20
    assert run(empty, "SELECT count(*) FROM sensor_readings") == [(found.written,)]
    record_property("slowest statement, ms", round(found.slowest * 1000))


async def test_a_release_of_several_steps_beside_the_restricted_users(home: Home, release: Release) -> None:
    """The worked example of docs/migrations.md: expand, backfill, and a release later contract."""
    release(EXPAND, DATA, CONTRACT)
    findings = lint.lint(runner.alembic_config())
    assert findings == []

    release(EXPAND, DATA)
    (rows,) = home.ask("SELECT count(*) FROM sensor_readings")
    run(home.database, ROWS[2])
    async with load(home.database, "occupancy_app", "occupancy_readonly") as found:
        await _upgrade(home, DATA.stem)
    assert found.failed == []
    assert home.ask("SELECT count(*) FROM sensor_readings") == (rows + found.written,)
    wrong = (
        "SELECT count(*) FROM predictions "
        "WHERE expected_vacancy_minutes * interval '1 min' IS DISTINCT FROM expected_vacancy"
    )
    assert home.ask(wrong) == (0,)

    await the_models_work(home)  # those of the release before
    assert home.ask(wrong) == (0,)
    insert = (
        "INSERT INTO predictions (prediction_made_at, room, prediction_type, confidence, expected_vacancy) "
    )
    run(home.database, f"{insert} VALUES (now(), 'office', 'vacancy', 1, '90 min')")  # the new way
    assert home.ask("SELECT expected_vacancy_minutes FROM predictions ORDER BY id DESC LIMIT 1") == (90,)

    release(EXPAND, DATA, CONTRACT)
    async with load(home.database, "occupancy_app", "occupancy_readonly") as found:
        await _upgrade(home, CONTRACT.stem)
    assert found.failed == []
    assert (
        home.ask(
            "SELECT count(*), count(expected_vacancy) FROM predictions WHERE prediction_type = 'vacancy'"
        )[0]
        > 5000
    )


async def _upgrade(home: Home, to: str) -> None:
    done = await protocol.deploy(home.settings(), NOWHERE, print, save=False)
    assert done["to"] == to


async def the_models_work(home: Home) -> None:
    engine = create_engine(as_user(home.settings(), "occupancy_app", home.backup))
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

Revision ID: 005_index
"""

from alembic import op

from occupancy_db.schema import migration_ops

revision = "005_index"
down_revision = "004_hourly_sums"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migration_ops.create_index("ix_sensor_readings_entity", "sensor_readings", "(source_entity, timestamp)")


def downgrade() -> None:
    op.execute("DROP INDEX ix_sensor_readings_entity")
'''
INDEXED = (
    "SELECT count(*) FILTER (WHERE indisvalid), count(*) FILTER (WHERE NOT indisvalid) FROM pg_index "
    "WHERE pg_get_indexdef(indexrelid) LIKE '%(source_entity, \"timestamp\")'"
)


def oldest_month(database: Database) -> str:
    parent = "inhparent = 'sensor_readings'::regclass"
    return str(run(database, f"SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE {parent}")[0][0])


async def interrupt(database: Database, statement: str) -> None:
    """Run a concurrent statement that somebody's old transaction keeps from ending, and cancel it."""
    old = database.connect()
    old.set_session(isolation_level="REPEATABLE READ", autocommit=False)
    with old.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sensor_readings")
    worker = database.connect(options="-c lock_timeout=200ms")
    with worker.cursor() as cursor, pytest.raises(Exception, match="lock timeout"):
        cursor.execute(statement)
    worker.close()
    old.close()


async def test_an_interrupted_concurrent_index_is_taken_up(database: Database, release: Release) -> None:
    release(r005_index=INDEX)
    month = oldest_month(database)
    name = f"ix_sensor_readings_entity_{month[-7:]}"
    await interrupt(database, f"CREATE INDEX CONCURRENTLY {name} ON {month} (source_entity, timestamp)")
    assert run(database, INDEXED) == [(0, 1)]
    async with load(database) as found:
        done = await protocol.deploy(database.settings(), NOWHERE, print)
    assert found.failed == []
    assert any(f"INVALID index {name}" in warning for warning in done["warnings"])
    assert run(database, INDEXED) == [(21, 0)]  # twenty months and the table
    # A month made later has it, too; and again is nothing new.
    assert database.cli("partitions", "maintain", "--months-ahead", "13").returncode == 0
    assert run(database, INDEXED) == [(22, 0)]
    run(database, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    assert (await protocol.deploy(database.settings(), NOWHERE, print))["applied"] == ["005_index"]
    assert run(database, INDEXED) == [(22, 0)]


async def test_an_invalid_index_of_somebody_else_is_in_the_way(database: Database, release: Release) -> None:
    release(r005_index=INDEX)
    # Its name begins with that of the table, which the revision names, too.
    name = "sensor_readings_of_somebody"
    run(database, f"CREATE INDEX {name} ON ONLY sensor_readings (room)")
    with pytest.raises(DatabaseError, match=f"the index {name} is INVALID") as raised:
        await protocol.deploy(database.settings(), NOWHERE, print)
    assert f"REINDEX INDEX CONCURRENTLY {name}" in raised.value.hint
    run(database, f"DROP INDEX {name}")
    assert (await protocol.deploy(database.settings(), NOWHERE, print))["applied"] == ["005_index"]


async def test_an_interrupted_detach_is_named_and_upkeep_finishes_it(
    database: Database, release: Release
) -> None:
    release(r005_index=INDEX)
    month = oldest_month(database)
    await interrupt(database, f"ALTER TABLE sensor_readings DETACH PARTITION {month} CONCURRENTLY")
    with pytest.raises(DatabaseError, match=f"{month} is half detached") as raised:
        await protocol.deploy(database.settings(), NOWHERE, print)
    assert "partitions maintain" in raised.value.hint
    assert raised.value.code is ExitCode.FAILED
    assert database.cli("partitions", "maintain").returncode == 0
    assert (await protocol.deploy(database.settings(), NOWHERE, print))["applied"] == ["005_index"]


async def test_the_helpers_work_in_a_script_for_psql(database: Database, release: Release) -> None:
    release(
        EXPAND, DATA, r005_index=INDEX.replace("004_hourly_sums", DATA.stem).replace("005_index", "008_index")
    )
    run(database, ROWS[2])
    config = runner.alembic_config()
    for script in revisions.chain(ScriptDirectory.from_config(config), "008_index")[len(REVISIONS) :]:
        database.psql(revisions.sql(config, script))
    assert run(database, INDEXED) == [(21, 0)]
    filled = "SELECT count(*) FROM predictions WHERE expected_vacancy IS NULL"
    assert run(database, filled) == [(0,)]
    assert run(
        database,
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_predictions_expected_vacancy'::regclass",
    ) == [(True,)]
