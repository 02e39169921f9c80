"""What reads the schema, imports, generates data or resets follows the rooms of the database."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.errors import ExitCode
from occupancy_db.schema.position import chain
from provisioning import migration_plan
from tests.database.chain import run, schema
from tests.database.cluster import SUPERUSER_PASSWORD
from tests.database.conftest import HEAD, Database
from tests.database.test_commands import answer
from tests.database.test_rooms import SIX, names
from tests.unit.test_probe import probe


def test_added_rooms_are_no_drift_and_a_missing_room_is(database: Database) -> None:
    before = schema(database)
    answer(database, "rooms", "add", "kitchen", "l'atelier", "--label", "Küche", "--label", "")
    run(database, "ALTER TYPE room_type ADD VALUE 'hall' BEFORE 'office'")
    answer(database, "rooms", "retire", "bathroom")
    assert before.drift(schema(database), privileges=True) == ([], [], [], [])
    assert answer(database, "check-tables")["missing"] == []
    run(database, "ALTER TYPE room_type RENAME VALUE 'office' TO 'study'")
    (missing,) = before.drift(schema(database), privileges=True).missing
    assert missing.startswith("TYPE public.room_type has ")
    run(database, "ALTER TYPE room_type RENAME VALUE 'study' TO 'office'")
    run(database, "ALTER TYPE prediction_type ADD VALUE 'other'")
    (missing,) = before.drift(schema(database), privileges=True).missing
    assert missing.startswith("TYPE public.prediction_type has ")


def test_the_probe_of_a_host_reads_rooms_and_labels(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postgresql").symlink_to(database.cluster.directory)
    monkeypatch.setenv("PGPORT", str(database.cluster.port))
    monkeypatch.setenv("PGPASSWORD", SUPERUSER_PASSWORD)
    request = {"run_dir": str(tmp_path)}

    def facts(name: str) -> dict[str, Any]:
        found: dict[str, Any] = probe.schema_facts(lambda statement: probe.query(request, name, statement))
        return found

    answer(database, "rooms", "add", "kitchen", "attic", "--label", "Küche", "--label", "")
    found = facts(database.name)
    assert found["rooms"] == {**dict.fromkeys(SIX), "kitchen": "Küche", "attic": None}
    assert migration_plan.find_present(found, chain())["to"] == chain()[-1]
    run(database, "ALTER TABLE rooms RENAME TO moved", "CREATE VIEW rooms AS SELECT * FROM moved")
    assert facts(database.name)["rooms"] == dict.fromkeys(found["rooms"])  # no view is read
    assert facts("postgres") == {"rooms": {}, "sensors": [], "revisions": [], "time_zone": ""}


def test_seed_leaves_out_rows_of_a_retired_room(database: Database) -> None:
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    middle = until - timedelta(days=1)
    answer(database, "rooms", "retire", "office", "--at", middle.isoformat())
    counts = answer(database, "seed", "--days", "2")["rows"]
    for table, room, moment in (
        ("sensor_readings", "room", "timestamp"),
        ("room_transitions", "to_room", "timestamp"),
        ("predictions", "room", "prediction_made_at"),
    ):
        ((rows, last),) = run(
            database, f"SELECT count(*), max({moment}) FILTER (WHERE {room}::text = 'office') FROM {table}"
        )
        assert rows == counts[table] > 20
        assert last < middle


HEADER = "timestamp,room,zone,state,source_entity\n"


def test_import_takes_added_rooms_and_rejects_unknown_and_retired_ones(database: Database) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    lines = [
        f"{moment + timedelta(minutes=n)},{room},z,on,e\n" for room in ("kitchen", "hall") for n in range(5)
    ]
    path = database.directory / "a.csv"
    path.write_text(HEADER + "".join(lines))
    unknown = database.cli("import", "a.csv")
    assert unknown.returncode == ExitCode.FAILED
    assert "unknown room 'kitchen'" in unknown.stdout
    assert "rooms add hall kitchen" in unknown.stdout.splitlines()[-1]

    answer(database, "rooms", "add", "hall", "kitchen")
    answer(database, "rooms", "retire", "hall", "--at", (moment + timedelta(minutes=3)).isoformat())
    dry = database.cli("--json", "import", "--dry-run", "a.csv")
    report = json.loads(dry.stdout)
    assert (report["imported"], report["rejected"], report["warnings"]) == (8, 2, [])
    result = database.cli("--json", "import", "a.csv")
    assert (result.returncode, json.loads(result.stdout)["imported"]) == (ExitCode.FAILED, 8)
    assert "room 'hall' was retired on" in (database.directory / "a.csv.rejects.csv").read_text()
    rows = run(database, "SELECT room::text, count(*) FROM sensor_readings GROUP BY 1 ORDER BY 1")
    assert rows == [("hall", 3), ("kitchen", 5)]


def test_a_dry_run_without_a_database_assumes_the_rooms_of_a_new_one_and_says_so(database: Database) -> None:
    (database.directory / "a.csv").write_text(f"{HEADER}{datetime.now(UTC).isoformat()},kitchen,z,on,e\n")
    result = database.cli("import", "--dry-run", "a.csv", POSTGRES_PORT="1")
    assert result.returncode == ExitCode.FAILED
    assert "unknown room 'kitchen'" in result.stdout
    assert "the rooms of a new database and no sensors are assumed: cannot connect" in result.stdout


def test_reset_works_with_rows_of_added_rooms_and_creates_the_six(database: Database) -> None:
    room = "a name of more than 20 characters"
    answer(database, "rooms", "add", room, "--label", "Long")
    answer(database, "rooms", "retire", "office", "--at", "2020-01-01")
    run(
        database,
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        f"VALUES (now(), '{room}', 'z', true, 'x')",
        f"INSERT INTO room_transitions (timestamp, from_room, to_room) VALUES (now(), 'office', '{room}')",
    )
    assert answer(database, "reset", "--yes")["to"] == HEAD
    assert names(database) == SIX
    assert run(database, "SELECT count(*) FROM rooms") == [(0,)]
