"""``occupancy-db import home-assistant_v2.db``: each state of an entity with a place once, beside its writer.

With the rows of ``make test-full`` the recorder is made by Home Assistant's own models.
"""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.database.conftest import Database
from tests.database.importing import ROWS, assert_exact, bring_in, count
from tests.recorder import HERE, VERSIONS, dump, from_dump, from_models

FULL = ROWS >= 1_000_000
MEASURED = (
    "import resource, sys; from occupancy_db.cli import main\n"
    "try: main()\n"
    "finally:\n"
    "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "    print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)"
)
PLACES = """entity_id,room,zone,since
binary_sensor.fp2_office_desk,office,desk,
binary_sensor.fp2_bedroom_bed,bedroom,bed,
binary_sensor.fp2_bedroom_bed,office,sofa,2026-03-29T01:32:00Z
"""


@pytest.fixture
def database_with_places(database: Database) -> Database:
    file = database.directory / "sensors.csv"
    file.write_text(PLACES)
    done = database.cli("sensors", "add", str(file))
    assert done.returncode == 0, done.stderr
    return database


def test_states_go_where_their_sensor_was(database_with_places: Database, cursor: Cursor) -> None:
    database = database_with_places
    path = str(from_dump(50, database.directory / "home-assistant_v2.db"))
    dry = bring_in(database, "--dry-run", path)
    assert [(found["entity"], found["zone"], found["rows"]) for found in dry["found"]] == [
        ("binary_sensor.fp2_bedroom_bed", "bed", 2),
        ("binary_sensor.fp2_bedroom_bed", "sofa", 1),
        ("binary_sensor.fp2_office_desk", "desk", 3),
    ]
    report = bring_in(database, path)
    # A state whose attributes changed is in the recorder twice, and is one reading.
    assert (report["read"], report["imported"], report["duplicates"], report["rejected"]) == (12, 5, 1, 0)
    assert (report["stateless"], report["gaps"]) == ({"unavailable": 1, "unknown": 1, "none": 1}, 2)
    assert report["entities"] == {
        "binary_sensor.front_door": 1, "light.kitchen": 1, "sensor.office_temperature": 1
    }  # fmt: skip
    assert report["recognised"] == {path: "Home Assistant's recorder, SQLite, schema 50"}
    cursor.execute(
        "SELECT room, zone, state, timestamp FROM sensor_readings WHERE room = 'office' ORDER BY timestamp"
    )
    assert cursor.fetchall() == [
        ("office", "desk", True, datetime(2026, 3, 29, 0, 31, 0, 123456, UTC)),
        ("office", "desk", False, datetime(2026, 3, 29, 0, 38, 0, 123456, UTC)),
        ("office", "sofa", False, datetime(2026, 3, 29, 1, 33, 0, 123456, UTC)),
    ]


def test_what_discover_proposes_can_be_added_and_imported(database: Database, cursor: Cursor) -> None:
    path = str(from_dump(50, database.directory / "home-assistant_v2.db"))
    found = database.cli("sensors", "discover", path)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "entity_id,room,zone,label",
        "binary_sensor.fp2_bedroom_bed,bedroom,fp2 bed,FP2 Bedroom Bed",
        "binary_sensor.fp2_office_desk,office,fp2 desk,FP2 Office Desk",
    ]
    corrected = found.stdout.replace("fp2 bed", "bed")
    file = database.directory / "sensors.csv"
    file.write_text(corrected)
    added = database.cli("sensors", "add", str(file))
    assert added.returncode == 0, added.stderr
    assert bring_in(database, path)["imported"] == 5
    cursor.execute("SELECT DISTINCT room, zone FROM sensor_readings ORDER BY room")
    assert cursor.fetchall() == [("bedroom", "bed"), ("office", "fp2 desk")]
    again = database.cli("sensors", "discover", path)
    assert again.stdout.splitlines() == ["entity_id,room,zone,label"]
    assert again.stderr == "2 entities are sensors of the database already\n"


def _recorder(path: Path) -> Path:
    """Half a minute between two states, of five entities in turn."""
    if FULL:
        return from_models(50, path, ROWS)
    from_dump(50, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM states")
        connection.execute(
            "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?) "
            "INSERT INTO states (state, last_updated_ts, metadata_id) "
            "SELECT iif(n / 5 % 2, 'off', 'on'), 1750000000.25 + 30 * n, n % 5 + 1 FROM n",
            (ROWS,),
        )
    return path


def test_a_large_recorder_is_imported_once(database_with_places: Database, cursor: Cursor) -> None:
    database = database_with_places
    path = _recorder(database.directory / "home-assistant_v2.db")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("SELECT count(*) FROM states").fetchone()
        result = database.run("python", "-c", MEASURED, "--json", "import", str(path))
        assert result.returncode == 0, result.stderr
        # Home Assistant writes on in any case.
        with writer:
            writer.execute("DELETE FROM states WHERE state_id = 1")
    report = json.loads(result.stdout)
    selected = ROWS // 5 * 2
    assert (report["read"], report["imported"], report["unplaced"]) == (ROWS, selected, ROWS - selected)
    assert count(cursor) == selected
    assert_exact(cursor)
    assert bring_in(database, str(path))["imported"] == 0
    seconds, kilobytes = map(float, result.stderr.split())
    print(
        f"{ROWS:,} states: {report['seconds']} s, {seconds:.1f} s of the processor, {kilobytes / 1024:.0f} MB"
    )
    assert seconds < 60
    assert kilobytes < 512 * 1024


@pytest.mark.skipif(not FULL, reason="make test-full installs versions of Home Assistant")
@pytest.mark.parametrize("schema", VERSIONS)
def test_the_dumps_are_what_the_models_of_home_assistant_make(tmp_path: Path, schema: int) -> None:
    made = from_models(schema, tmp_path / "home-assistant_v2.db")
    assert dump(made) == (HERE / f"schema-{schema}.sql").read_text()
