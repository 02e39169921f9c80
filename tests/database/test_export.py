"""Exports contain what an erasure with the same options removes, and the readings can be imported again."""

import asyncio
import csv
import io
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.history import erase
from occupancy_db.history.export import ExportFormat, export
from occupancy_db.history.selection import Selection
from tests.database.conftest import Database
from tests.database.test_commands import answer
from tests.database.test_hours import ask


def test_an_export_has_what_an_erasure_removes_and_brings_the_readings_back(
    database: Database, cursor: Cursor, tmp_path: Path
) -> None:
    answer(database, "seed", "--days", "2")
    answer(database, "sensors", "set", "sensor.x", "--room", "office", "--zone", 'o\'clock; "quoted"')
    selection = Selection(room="office", until=datetime.now(UTC))
    count = "SELECT count(*) FROM sensor_readings WHERE room = 'office'"
    readings = ask(cursor, count)
    exported = io.BytesIO()
    rows = asyncio.run(export(database.settings(), selection, exported))
    assert rows == asyncio.run(erase.erase(database.settings(), selection))
    assert ask(cursor, count) == [(0,)]
    with zipfile.ZipFile(exported) as archive:
        found = {
            Path(name).stem: list(csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8")))
            for name in archive.namelist()
        }
        archive.extract("sensor_readings.csv", tmp_path)
    assert {table.removeprefix("hourly."): number for table, number in rows.items()} == {
        table: len(lines) for table, lines in found.items()
    }
    answer(database, "import", str(tmp_path / "sensor_readings.csv"))
    assert ask(cursor, count) == readings


def test_parquet_has_the_same_rows_and_brings_the_readings_back(
    database: Database, cursor: Cursor, tmp_path: Path
) -> None:
    answer(database, "seed", "--days", "2")
    answer(database, "sensors", "set", "sensor.x", "--room", "office", "--zone", 'o\'clock; "quoted"')
    ask(cursor, "UPDATE sensor_readings SET source_entity = E'a,\"b\\nc' WHERE zone = 'desk' RETURNING 1")
    selection = Selection(room="office", until=datetime.now(UTC))
    archives = {}
    for form in ExportFormat:
        exported = io.BytesIO()
        rows = asyncio.run(export(database.settings(), selection, exported, form))
        archives[form] = zipfile.ZipFile(exported)
        archives[form].extractall(tmp_path)
    tables = [table.removeprefix("hourly.") for table in rows]
    assert sorted(archives[ExportFormat.PARQUET].namelist()) == sorted(f"{table}.parquet" for table in tables)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, number in zip(tables, rows.values(), strict=True):
            found = connection.execute(f"SELECT * FROM '{tmp_path / table}.parquet'")
            names = [name for name, *_ in found.description or ()]
            with (tmp_path / f"{table}.csv").open(newline="") as file:
                lines = list(csv.DictReader(file))
            values = found.fetchall()
            assert (len(values), [list(line) for line in lines[:1]]) == (number, [names] if lines else [])
            for line, row in zip(lines, values, strict=True):
                for name, value in zip(names, row, strict=True):
                    assert same(line[name], value), (table, name, line[name], value)
    count = """
        SELECT count(*), sum(state::int), count(DISTINCT source_entity) FROM sensor_readings
        WHERE room = 'office'
    """
    readings = ask(cursor, count)
    asyncio.run(erase.erase(database.settings(), selection))
    answer(database, "import", str(tmp_path / "sensor_readings.parquet"))
    assert ask(cursor, count) == readings


def same(text: str, value: object) -> bool:
    """Whether a field of CSV is a value of Parquet."""
    match value:
        case None:
            return text == ""
        case bool():
            return text == "ft"[value]
        case datetime():
            return datetime.fromisoformat(text) == value
        case float():
            return float(text) == value
    return text == str(value)


def test_the_command_writes_an_archive_to_its_output(database: Database) -> None:
    answer(database, "sensors", "set", "sensor.x", "--room", "office", "--zone", 'o\'clock; "quoted"')
    command = [sys.executable, "-m", "occupancy_db", "export", "--entity", "sensor.x"]
    done = subprocess.run(command, env=database.environment(), capture_output=True, check=True)
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
        (sensor,) = csv.DictReader(io.StringIO(archive.read("sensors.csv").decode()))
    assert (sensor["entity"], sensor["zone"]) == ("sensor.x", 'o\'clock; "quoted"')
    assert b"1 rows of sensors" in done.stderr
    unknown = database.cli("export", "--room", "cellar")
    assert (unknown.returncode, unknown.stdout) == (ExitCode.USAGE, "")
