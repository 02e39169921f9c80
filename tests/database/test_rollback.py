"""A rollback names the data that it would lose, and loses them only when this is confirmed."""

import json

import pytest

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.release.rollback import roll_back
from occupancy_db.schema import runner
from occupancy_db.settings import Environment
from tests.database.conftest import HEAD, ROOT, Database
from tests.database.migration_host import MigrationHost
from tests.database.releases import Release, revision
from tests.database.releases import migration_host as migration_host
from tests.database.releases import release as release

# Data that a revision alone can hold: the statement that makes them, the target of the rollback, the message.
LOSSES = {
    "sums": (
        "INSERT INTO hourly.history "
        "(hour, first_reading, last_reading, confidence_sum, reading_count, room, zone) "
        "SELECT h, h, h, 1, 1, 'office', 'desk' "
        "FROM generate_series('2025-01-01 00:00Z'::timestamptz, '2025-01-01 02:00Z', '1 hour') AS h",
        "003_time_ordered_readings",
        "004_hourly_sums has 3 hourly sums of removed readings",
    ),
    "labels": (
        "INSERT INTO rooms (room, label) VALUES ('office', 'Study')",
        "004_hourly_sums",
        "005_text_rooms has 1 labels of rooms",
    ),
    "retired": (
        "INSERT INTO rooms (room, retired_at) VALUES ('office', '2025-01-01 00:00Z')",
        "004_hourly_sums",
        "005_text_rooms has 1 retired rooms",
    ),
    "rows": (
        "INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')",
        "base",
        "001_initial_schema has 1 room transitions",
    ),
}


@pytest.mark.parametrize("environment", ["development", "testing", "production"])
@pytest.mark.parametrize("loss", LOSSES)
def test_lost_data_are_named_and_must_be_confirmed(database: Database, loss: str, environment: str) -> None:
    statement, target, words = LOSSES[loss]
    where = {"ENVIRONMENT": environment, "POSTGRES_SSLMODE": "disable"}
    if environment == "testing":
        where |= {"POSTGRES_TEST_DB": database.name, "POSTGRES_DB": "elsewhere"}
    database.psql(statement)
    before = database.dump()

    refused = database.cli("rollback", "--revision", target, "--json", **where)
    assert refused.returncode == ExitCode.REFUSED, refused.stdout + refused.stderr
    error = json.loads(refused.stderr)["error"]
    assert words in error["what"]
    assert words in error["losses"]
    assert "--lose-data" in error["hint"]
    assert _rows(database.dump()) == _rows(before)

    done = database.cli("rollback", "--revision", target, "--lose-data", **where)
    assert done.returncode == ExitCode.OK, done.stderr


@pytest.mark.parametrize("loss", LOSSES)
def test_alembic_itself_refuses_the_same(database: Database, loss: str) -> None:
    statement, target, words = LOSSES[loss]
    database.psql(statement)
    before = database.dump()
    refused = database.alembic("downgrade", target)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert _rows(database.dump()) == _rows(before)
    confirmed = database.run(
        "alembic", "-c", str(ROOT / "alembic.ini"), "-x", "lose-data", "downgrade", target
    )
    assert confirmed.returncode == 0, confirmed.stderr


@pytest.mark.parametrize("loss", ["sums", "labels", "rows"])
def test_a_rollback_that_keeps_the_data_needs_no_confirmation(database: Database, loss: str) -> None:
    database.psql(LOSSES[loss][0])
    for command in (("rollback",), ("rollback", "--revision", "006_fill_text_rooms")):
        done = database.cli(*command)
        assert done.returncode == ExitCode.OK, done.stderr
    assert database.cli("migrate").returncode == ExitCode.OK


async def test_a_revision_that_counts_nothing_is_refused_by_its_declaration(
    migration_host: MigrationHost, release: Release
) -> None:
    release(r020_forget=revision("020_forget", HEAD, reversible="only without the rest"))
    settings = migration_host.settings(Environment.DEVELOPMENT)
    await runner.upgrade(settings)
    with pytest.raises(DatabaseError, match="020_forget is reversible only without the rest") as raised:
        await roll_back(settings, "-1")
    assert raised.value.code is ExitCode.REFUSED
    assert (await roll_back(settings, "-1", lose_data=True)).reverted == ["020_forget"]


def _rows(dump: str) -> list[str]:
    return [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
