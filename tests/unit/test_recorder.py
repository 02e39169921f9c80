"""Home Assistant's recorder becomes readings, whatever its schema and state, and is left as it was."""

import gzip
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from occupancy_db.errors import DatabaseError
from occupancy_db.history.sources.base import Format, Options
from occupancy_db.history.sources.recognise import open_source
from occupancy_db.history.times import Clock, TimeFormat, moment_of
from occupancy_db.months import EARLIEST
from occupancy_db.sensors import Place, Sensors
from tests.recorder import VERSIONS, from_dump
from tests.unit.test_formats import Result

DESK, BED = "binary_sensor.fp2_office_desk", "binary_sensor.fp2_bedroom_bed"
OTHERS = {"binary_sensor.front_door": 1, "sensor.office_temperature": 1, "light.kitchen": 1}


def sensors(**places: tuple[tuple[datetime, Place | None], ...]) -> Sensors:
    return Sensors({f"binary_sensor.{name}": stays for name, stays in places.items()})


PLACES = sensors(
    fp2_office_desk=((EARLIEST, ("office", "desk")),), fp2_bedroom_bed=((EARLIEST, ("bedroom", "bed")),)
)


def read(path: Path, options: Options | None = None) -> Result:
    options = options or Options(sensors=PLACES)
    return Result([path], options, path.with_name("bad.csv"))


def at(hour: int, minute: int) -> datetime:
    return datetime(2026, 3, 29, hour, minute, 0, 123456, UTC)


READINGS = [
    ("office", "desk", True, DESK, 1.0, at(0, 31)),
    ("office", "desk", True, DESK, 1.0, at(0, 31)),  # whose attributes have changed at 0:33
    ("office", "desk", False, DESK, 1.0, at(0, 38)),
    ("bedroom", "bed", False, BED, 1.0, at(0, 34)),
    ("bedroom", "bed", True, BED, 1.0, at(1, 31)),
    ("bedroom", "bed", False, BED, 1.0, at(1, 33)),
]


@pytest.mark.parametrize("schema", VERSIONS)
def test_states_of_each_schema_are_readings_of_the_time_when_they_changed(
    tmp_path: Path, schema: int
) -> None:
    result = read(from_dump(schema, tmp_path / "a.db"))
    assert sorted(result.rows) == sorted(READINGS)
    assert result.reader.stateless == {"unavailable": 1, "unknown": 1, "none": 1}
    assert result.reader.unplaced == OTHERS
    assert result.reader.said == {
        str(tmp_path / "a.db"): f"Home Assistant's recorder, SQLite, schema {schema}"
    }


def test_rows_that_home_assistant_has_not_converted_yet(tmp_path: Path) -> None:
    """It fills the columns of seconds, and the table of entities, in the background."""
    path = from_dump(35, tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("""
            UPDATE states SET last_updated_ts = NULL, last_changed_ts = NULL,
                last_updated = '2026-03-29 00:31:00.123456' WHERE state_id = 2;
            UPDATE states SET last_updated_ts = NULL, last_changed_ts = NULL,
                last_updated = '2026-03-29 00:38:00.123456', last_changed = '2026-03-29 00:37:00'
                WHERE state_id = 8;
            ALTER TABLE states ADD metadata_id INTEGER;
            CREATE TABLE states_meta (metadata_id INTEGER PRIMARY KEY, entity_id TEXT);
            INSERT INTO states_meta VALUES (7, 'binary_sensor.fp2_bedroom_bed');
            UPDATE states SET metadata_id = 7, entity_id = NULL
                WHERE entity_id = 'binary_sensor.fp2_bedroom_bed';
            UPDATE states SET metadata_id = 8, entity_id = NULL WHERE entity_id = 'light.kitchen';
        """)
    result = read(path)
    changed = ("office", "desk", False, DESK, 1.0, datetime(2026, 3, 29, 0, 37, tzinfo=UTC))
    assert sorted(result.rows) == sorted([*READINGS[:2], changed, *READINGS[3:]])
    assert result.reader.unplaced == {
        "metadata_id 8": 1, "binary_sensor.front_door": 1, "sensor.office_temperature": 1
    }  # fmt: skip


def test_a_sensor_that_moved_is_where_it_was(tmp_path: Path) -> None:
    moved = sensors(fp2_bedroom_bed=((at(1, 30), ("bedroom", "bed")), (at(1, 32), ("office", "sofa"))))
    result = read(from_dump(50, tmp_path / "a.db"), Options(sensors=moved))
    assert [row[:2] for row in sorted(result.rows, key=lambda row: row[-1])] == [
        ("bedroom", "bed"), ("office", "sofa")
    ]  # fmt: skip
    assert result.reader.unplaced[BED] == 1


def test_states_that_are_none_come_back_in_from_the_rejects(tmp_path: Path) -> None:
    path = from_dump(50, tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE states SET state = 'open' WHERE state_id = 8")
    result = read(path)
    assert [reason for _, reason, _ in result.rejected] == ["state is neither true nor false: 'open'"]
    rejects = path.with_name("again.csv")
    path.with_name("bad.csv").rename(rejects)
    rejects.write_text(rejects.read_text().replace("open", "off"))
    assert read(rejects).rows == [READINGS[2]]


@given(st.floats(1.7e9, 1.9e9))
@example(1774744200.4404297)
def test_seconds_are_rounded_as_home_assistant_does(seconds: float) -> None:
    moment = moment_of(Clock(TimeFormat.SECONDS, None).parse(seconds))
    assert moment == datetime.fromtimestamp(seconds, UTC)


def seen(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Home Assistant at work: its last states are in the write-ahead log alone."""
    directory = tmp_path / "config"
    directory.mkdir()
    path = from_dump(50, directory / "home-assistant_v2.db")
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        add_state(connection, 20)
        yield connection


def add_state(connection: sqlite3.Connection, minutes: int) -> None:
    with connection:
        when = at(2, minutes).timestamp()
        connection.execute(
            "INSERT INTO states (state, last_updated_ts, metadata_id) VALUES ('on', ?, 1)", (when,)
        )


LATEST = ("office", "desk", True, DESK, 1.0, at(2, 20))


@pytest.fixture
def holder(tmp_path: Path, writer: sqlite3.Connection) -> Iterator[Path]:  # noqa: ARG001
    """The same in another process: within one, connections share what SQLite maps into memory."""
    path = tmp_path / "config/home-assistant_v2.db"
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        "connection.execute('SELECT count(*) FROM states').fetchone(); print('ready', flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield path
        process.communicate(b"\n")


@pytest.mark.parametrize(
    "suffixes", [None, ("",), ("", "-wal"), ("", "-wal", "-shm")], ids=["in use", "alone", "log", "all"]
)
def test_nothing_is_written_to_a_recorder_or_beside_it(
    tmp_path: Path, holder: Path, writer: sqlite3.Connection, suffixes: tuple[str, ...] | None
) -> None:
    if suffixes == ("",):
        writer.execute("PRAGMA wal_checkpoint")
    path = holder
    if suffixes:
        path = tmp_path / "copy" / holder.name
        path.parent.mkdir()
        for suffix in suffixes:
            shutil.copy(f"{holder}{suffix}", path.parent)
    else:
        writer.close()
    before = seen(path.parent)
    result = Result([path], Options(sensors=PLACES), tmp_path / "bad.csv")
    assert sorted(result.rows) == sorted([*READINGS, LATEST])
    assert seen(path.parent) == before


def test_home_assistant_writes_on_while_it_is_read(tmp_path: Path, writer: sqlite3.Connection) -> None:
    """It does not wait (its time limit is 0 here), and what it writes meanwhile is for the next time."""
    path = tmp_path / "config/home-assistant_v2.db"
    with open_source(path, Options(sensors=PLACES)) as source:
        rows = source.rows()
        first = next(rows)
        add_state(writer, 21)
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        add_state(writer, 22)
        assert len([first, *rows]) == len(READINGS) + 3 + 1
    assert len(read(path).rows) == len(READINGS) + 3


def test_a_file_that_is_changed_while_it_is_read_without_locks(tmp_path: Path) -> None:
    path = from_dump(50, tmp_path / "a.db")
    with open_source(path, Options(sensors=PLACES)) as source:
        rows = source.rows()
        next(rows)
        with closing(sqlite3.connect(path)) as connection:
            add_state(connection, 21)
        with pytest.raises(DatabaseError, match="changed meanwhile"):
            list(rows)


def large(path: Path) -> bytes:
    from_dump(50, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = ((n, "on", 1774744200 + n, n % 5 + 1) for n in range(100, 5100))
        connection.executemany(
            "INSERT INTO states (state_id, state, last_updated_ts, metadata_id) VALUES (?, ?, ?, ?)", rows
        )
    return path.read_bytes()


def test_a_copy_that_has_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    content = large(path)
    for share in (0.3, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DatabaseError, match="not complete: a copy"):
            read(path)


def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    content = large(path)
    refused = 0
    for place in range(100, len(content), 4096 * 5):
        path.write_bytes(content[:place] + b"\xff" * 4096 + content[place + 4096 :])
        try:
            read(path)
        except DatabaseError as error:
            refused += 1
            assert str(path) in error.what
            assert "backup" in error.hint or "table of states" in error.hint
    assert refused > 5


def test_what_is_no_recorder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE states (name text)")
    with pytest.raises(DatabaseError, match="no recorder of Home Assistant"):
        read(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DatabaseError, match="no SQLite file"):
        read(path)
    path.write_text("a,b\n")
    with pytest.raises(DatabaseError, match="no SQLite file"):
        read(path, Options(format=Format.RECORDER))
    with pytest.raises(DatabaseError, match="No such file"):
        read(tmp_path / "missing.db")


def test_a_room_for_all_takes_all_entities(tmp_path: Path) -> None:
    options = Options(constants={"room": "office", "zone": "all"}, sensors=PLACES)
    result = read(from_dump(50, tmp_path / "a.db"), options)
    assert len(result.rows) == len(READINGS) + 2
    assert [reason for _, reason, _ in result.rejected] == ["state is neither true nor false: '21.5'"]
