"""What a client may rely on: transactions that stay open, months of history, and a refusal that is clear."""

from datetime import UTC, datetime, timedelta

import asyncpg
import psycopg
import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.clients.conftest import Database
from tests.clients.server import Login
from tests.database.users import OWNER
from tests.waiting import wait_for

NOW = datetime.now(UTC)
INSERT = """
    INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity)
    VALUES ($1, $2, 'desk', true, 'binary_sensor.fp2_desk')
"""

PAUSE = timedelta(minutes=5)
"""Between two runs of a client whose session has reopened a transaction by reading."""


def test_every_connection_is_verified(application: Login) -> None:
    """Without the certificate, or to another name, there is no connection; without TLS neither."""
    with psycopg.connect(application.conninfo()) as connection:
        row = connection.execute(
            "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        assert row[0] is True
        assert row[1] in {"TLSv1.2", "TLSv1.3"}
    for name, value in {"sslrootcert": "/nonexistent", "host": "localhost", "sslmode": "disable"}.items():
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(**{**application.libpq(), name: value})


async def test_a_transaction_may_be_idle_for_longer_than_a_client_pauses(application: Login) -> None:
    connection = await application.asyncpg()
    limit = await connection.fetchval(
        "SELECT current_setting('idle_in_transaction_session_timeout')::interval"
    )
    assert limit == timedelta(0) or limit >= 2 * PAUSE
    await connection.close()


async def test_that_limit_is_what_ends_an_idle_transaction(application: Login, owner: Cursor) -> None:
    """A session with a small limit ends; one with the application's own limit reads and writes afterwards."""
    patient, hasty = await application.asyncpg(), await application.asyncpg()
    await hasty.execute("SET idle_in_transaction_session_timeout = '100ms'")
    pids = {
        name: await one.fetchval("SELECT pg_backend_pid()") for name, one in (("p", patient), ("h", hasty))
    }
    for one in (patient, hasty):
        await one.execute("BEGIN")
        await one.fetch("SELECT * FROM sensor_readings LIMIT 1")

    def living() -> set[int]:
        owner.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s)", [list(pids.values())])
        return {row[0] for row in owner.fetchall()}

    wait_for(lambda: pids["h"] not in living(), "the end of the session with the small limit", explain=living)
    assert living() == {pids["p"]}
    await patient.execute(INSERT, NOW, "office")
    await patient.execute("COMMIT")
    assert await patient.fetchval("SELECT count(*) FROM sensor_readings") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await hasty.execute(INSERT, NOW, "office")
    await patient.close()
    hasty.terminate()


@pytest.mark.own_database
async def test_half_a_year_of_history_is_written_row_by_row(database: Database, application: Login) -> None:
    """A client that is started for the first time loads what Home Assistant kept."""
    database.server.cli("partitions", "maintain", "--months-back", "12", database=database.name)
    connection = await application.asyncpg()
    for day in range(180):
        await connection.execute(INSERT, NOW - timedelta(days=day), ("office", "bedroom")[day % 2])
    assert await connection.fetchval("SELECT count(*) FROM sensor_readings WHERE room = $1", "office") == 90
    oldest = await connection.fetchval("SELECT min(timestamp) FROM sensor_readings")
    assert oldest == NOW - timedelta(days=179)
    await connection.close()


async def test_a_month_that_is_missing_is_named(application: Login) -> None:
    """In the detail of the server's message, which drivers show."""
    connection = await application.asyncpg()
    with pytest.raises(asyncpg.CheckViolationError, match="no partition of relation") as caught:
        await connection.execute(INSERT, datetime(2012, 2, 29, tzinfo=UTC), "office")
    assert "2012-02-29" in str(caught.value)
    await connection.close()


@pytest.mark.own_database
async def test_the_application_may_read_labels_and_may_not_change_rooms(
    database: Database, application: Login
) -> None:
    with database.server.connect(OWNER, database.name).cursor() as owner:
        owner.execute("INSERT INTO rooms (room, label) VALUES ('office', 'Study')")
    connection = await application.asyncpg()
    assert await connection.fetchval("SELECT label FROM rooms WHERE room = $1", "office") == "Study"
    for statement in (
        "UPDATE rooms SET label = 'x'",
        "DELETE FROM rooms",
        "INSERT INTO rooms VALUES ('bedroom')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


@pytest.mark.own_database
async def test_a_retired_room_takes_late_readings_only(database: Database, application: Login) -> None:
    with database.server.connect(OWNER, database.name).cursor() as owner:
        owner.execute("INSERT INTO rooms (room, retired_at) VALUES ('office', %s)", [NOW])
    connection = await application.asyncpg()
    await connection.execute(INSERT, NOW - timedelta(seconds=1), "office")
    await connection.execute(INSERT, NOW, "bedroom")
    with pytest.raises(asyncpg.CheckViolationError, match='room "office" was retired on '):
        await connection.execute(INSERT, NOW, "office")
    assert await connection.fetchval("SELECT count(*) FROM sensor_readings") == 2
    await connection.close()
