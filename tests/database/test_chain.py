"""The chain of revisions, with rows in the tables and beside clients that read and write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.connection import connect
from occupancy_db.models import Base
from occupancy_db.release import protocol
from occupancy_db.release.rollback import roll_back
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.definitions import Definitions
from tests.database.chain import FINGERPRINT, NOWHERE, ROWS, load, run, schema
from tests.database.conftest import HEAD, REVISIONS, Database
from tests.database.migration_host import EXAMPLE
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.users import grant

EXPAND, DATA, CONTRACT = sorted(EXAMPLE.glob("*.py"))
Release = Callable[..., Path]

RECENT = "SELECT zone, state FROM sensor_readings WHERE timestamp > now() - interval '1 min'"


async def test_each_step_up_down_and_up_keeps_the_rows(empty: Database) -> None:
    settings = empty.settings()
    for number, name in enumerate(REVISIONS):
        await runner.upgrade(settings, name)
        if number == 0:
            run(empty, *ROWS)
            continue
        before = run(empty, FINGERPRINT)
        expected = schema(empty)
        await roll_back(settings, "-1")
        assert run(empty, FINGERPRINT) == before
        await runner.upgrade(settings, name)
        assert run(empty, FINGERPRINT) == before
        assert expected.drift(schema(empty), privileges=True) == ([], [], [], [])
        run(empty, *ROWS)


async def test_each_revision_takes_the_lock_that_it_declares(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest lock on any earlier table, read before the transaction of the revision ends."""
    strongest: dict[str, str] = {}
    history_comment = revisions.history_comment

    def look(scripts: Any, *, unverified: bool) -> str:
        taken = [mode for mode in revisions.LOCKS if mode in modes()]
        strongest[scripts[-1].revision] = taken[-1] if taken else "none"
        return history_comment(scripts, unverified=unverified)

    def modes() -> set[str]:
        rows = run(
            empty,
            "SELECT DISTINCT mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
            "WHERE locktype = 'relation' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace "
            "AND relname NOT IN ('alembic_version', 'maintenance_lock') AND pid <> pg_backend_pid()",
        )
        return {
            "".join(f" {c}" if c.isupper() else c for c in mode).strip().removesuffix(" Lock").upper()
            for (mode,) in rows
        }

    monkeypatch.setattr(revisions, "history_comment", look)
    scripts = revisions.up_to(runner.script_directory(), HEAD)
    for script in scripts:
        await runner.upgrade(empty.settings(), script.revision)
    assert strongest == {script.revision: revisions.declaration(script).locks for script in scripts}


async def test_models_and_migrations_create_the_same_schema(database: Database, empty: Database) -> None:
    """Alembic's comparison ignores predicates, operator classes, CHECK constraints, keys and partitioning."""
    async with connect(empty.settings(), "test") as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.commit()
    models, migrated = schema(empty), schema(database)
    tables = tuple(Base.metadata.tables)
    migrated.entries = [
        one
        for one in migrated.entries
        if one.key[0] in {"TYPE", "TABLE", "DEFAULT", "CONSTRAINT", "FK CONSTRAINT", "INDEX", "SEQUENCE"}
        and (one.key[0] == "TYPE" or any(table in f"{one.key[2]} {one.text}" for table in tables))
    ]
    assert migrated.drift(models, privileges=False).missing == []


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
async def test_drift_finds_a_changed_object(database: Database, change: str) -> None:
    before = schema(database)
    run(database, *CHANGES[change])
    assert before.drift(schema(database), privileges=False).missing


async def test_partitions_of_migrations_and_maintenance_have_the_same_definitions(
    database: Database, cursor: Any
) -> None:
    before = schema(database)
    assert database.cli("partitions", "maintain", "--months-ahead", "15").returncode == 0
    file = database.directory / "history.csv"
    file.write_text(
        "timestamp,room,zone,state,source_entity\n2021-03-01T00:00:00Z,office,desk,true,binary_sensor.desk\n"
    )
    assert database.cli("import", str(file)).returncode == 0
    cursor.execute(
        "CREATE TABLE sensor_readings_2020_01 (other int)"
    )  # maintenance does not change it either
    after = schema(database)
    # Three more months ahead, five more for a backfill, the imported one, and the table of another kind.
    assert months(after) == months(before) + 3 + 5 + 1 + 1
    assert before.drift(after, privileges=True) == ([], [], [], [])


def months(found: Definitions) -> int:
    return sum(one.key[0] == "TABLE" and "sensor_readings_" in one.key[2] for one in found.entries)


async def test_no_write_fails_or_is_lost_while_each_shipped_revision_is_applied(
    empty: Database, record_property: Callable[[str, object], None]
) -> None:
    settings = empty.settings()
    await runner.upgrade(settings, REVISIONS[0])
    grant(empty.cluster, empty.name)
    async with load(empty, "occupancy_app", "occupancy_readonly") as found:
        done = await protocol.deploy(settings, NOWHERE, print)
    assert done.applied == REVISIONS[1:]
    assert found.failed == []
    assert found.during > 0
    assert run(empty, "SELECT count(*) FROM sensor_readings") == [(found.written,)]
    record_property("slowest statement, ms", round(found.slowest * 1000))
