"""``occupancy-db import``: all rows or none, each reading once, and exact statistics."""

import csv
import gzip
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.months import following, month_of, partition_name
from tests.database.conftest import Database
from tests.database.importing import (
    COLUMNS,
    NOW,
    assert_exact,
    assert_exact_with_history,
    bring_in,
    count,
    rows,
    tables,
    write,
)


def test_history_of_years_arrives_and_a_second_time_adds_nothing(database: Database, cursor: Cursor) -> None:
    cursor.execute("SELECT hourly.close(now())")
    before = tables(cursor)
    since = NOW - timedelta(days=400)
    file = write(database.directory / "a.csv", rows(20_000, since, NOW))
    report = bring_in(database, file)
    expected: dict[str, int] = {}
    for row in rows(20_000, since, NOW):
        expected[row[0][:7]] = expected.get(row[0][:7], 0) + 1
    assert report["months"] == expected
    assert (report["read"], report["imported"], report["rejected"], report["rejects"]) == (
        20_000,
        20_000,
        0,
        None,
    )
    assert count(cursor) == 20_000
    cursor.execute(
        "SELECT count(DISTINCT id), sum(state::int), sum(confidence::numeric)::float FROM sensor_readings"
    )
    written = list(rows(20_000, since, NOW))
    assert cursor.fetchone() == (
        20_000,
        sum(row[3] == "true" for row in written),
        pytest.approx(sum(float(row[5]) for row in written)),
    )
    assert_exact(cursor)
    cursor.execute("SELECT count(*) FROM hourly.marks")
    assert cursor.fetchone() == (0,)
    after = tables(cursor)
    assert not [name for name in after if name.startswith("import")]
    assert before <= after
    cursor.execute(
        "SELECT count(*) FROM pg_stat_user_tables WHERE n_live_tup > 0 AND last_analyze IS NOT NULL"
    )
    analyzed = cursor.fetchone()
    assert analyzed
    assert analyzed[0] >= 14

    again = bring_in(database, file)
    assert (again["imported"], again["duplicates"]) == (0, 20_000)
    assert count(cursor) == 20_000
    assert tables(cursor) == after


def test_files_that_overlap_in_any_order_with_duplicates(database: Database, cursor: Cursor) -> None:
    """Each reading is imported once, even if several files contain it."""
    since, until = NOW - timedelta(days=300), NOW - timedelta(days=200)
    everything = list(rows(30_000, since, until))
    shuffled = everything[:20_000] + everything[:5000]
    random.Random(1).shuffle(shuffled)
    first = write(database.directory / "a.csv", shuffled)
    second = database.directory / "b.csv.gz"
    write(database.directory / "b.csv", everything[10_000:])
    second.write_bytes(gzip.compress((database.directory / "b.csv").read_bytes()))
    report = bring_in(database, first, str(second))
    assert (report["read"], report["imported"], report["duplicates"]) == (45_000, 30_000, 15_000)
    assert count(cursor) == 30_000
    assert_exact(cursor)


def test_readings_of_the_same_time_are_duplicates_only_if_all_fields_are_equal(
    database: Database, cursor: Cursor
) -> None:
    good = [NOW.isoformat(), "office", "desk", "on", "fp2.a", "0.5"]
    earlier = (NOW - timedelta(microseconds=1)).isoformat()
    different = [
        [*good[:column], value, *good[column + 1 :]]
        for column, value in enumerate([earlier, "bedroom", "door", "off", "fp2.b"])
    ]
    same = [[*good[:5], "0.9"], [NOW.isoformat().replace("+00:00", "Z"), *good[1:3], "TRUE", *good[4:]]]
    file = write(database.directory / "a.csv", [good, *different, *same])
    report = bring_in(database, file)
    assert (report["imported"], report["duplicates"]) == (6, 2)
    cursor.execute("SELECT DISTINCT confidence FROM sensor_readings")
    assert cursor.fetchall() == [(0.5,)]  # the first is kept


def test_invalid_rows_are_written_to_a_file_and_the_others_are_imported(
    database: Database, cursor: Cursor
) -> None:
    content = [*rows(10, NOW - timedelta(days=2), NOW)]
    content[3][1] = "attic"
    content[7][2] = "a\nb"
    content[8][0] = "1970-01-01T00:00:00Z"
    write(database.directory / "a.csv", content)
    result = database.cli("import", "a.csv")
    assert result.returncode == ExitCode.FAILED
    assert "8 imported" in result.stdout
    assert "a.csv, line 5: unknown room 'attic'" in result.stdout
    with (database.directory / "a.csv.rejects.csv").open(newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [(row["file"], row["line"]) for row in rejected] == [("a.csv", "5"), ("a.csv", "11")]
    assert next(csv.reader([rejected[0]["row"]])) == content[3]
    assert count(cursor) == 8


def test_ndjson_and_the_history_of_home_assistant(database: Database, cursor: Cursor) -> None:
    lines = [
        json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows(50, NOW - timedelta(days=2), NOW)
    ]
    (database.directory / "a.ndjson").write_text("\n".join(lines))
    assert bring_in(database, "a.ndjson")["imported"] == 50
    write(database.directory / "e.csv", [["binary_sensor.x", "office", "x"]], ["entity_id", "room", "zone"])
    history = [
        ["binary_sensor.x", state, f"{NOW:%FT%T}.{n}Z"]
        for n, state in enumerate(["on", "unavailable", "off"])
    ]
    write(database.directory / "h.csv", history, ["entity_id", "state", "last_changed"])
    nowhere = bring_in(database, "h.csv")
    assert (nowhere["imported"], nowhere["entities"]) == (0, {"binary_sensor.x": 3})
    report = bring_in(database, "h.csv", "--entities", "e.csv")
    assert (report["imported"], report["no_state"], report["gaps"], report["read"]) == (2, 1, 1, 3)
    cursor.execute("SELECT * FROM sensor_gaps")
    assert cursor.fetchall() == [(NOW.replace(microsecond=100_000), "office", "x", "binary_sensor.x")]
    assert bring_in(database, "h.csv", "--entities", "e.csv")["gaps"] == 0
    # A time of which the history alone is left gets no gap.
    cursor.execute("DELETE FROM sensor_gaps")
    cursor.execute("UPDATE hourly.forgotten SET times = tstzmultirange(tstzrange(NULL, NULL))")
    assert bring_in(database, "h.csv", "--entities", "e.csv")["gaps"] == 0
    cursor.execute(
        "SELECT state FROM sensor_readings WHERE source_entity = 'binary_sensor.x' ORDER BY timestamp"
    )
    assert cursor.fetchall() == [(True,), (False,)]


def test_a_dry_run_does_not_connect_to_the_database(database: Database) -> None:
    content = [*rows(10, NOW - timedelta(days=2), NOW), ["x"]]
    write(database.directory / "a.csv", content)
    result = database.cli("--json", "import", "a.csv", "--dry-run", "--rejects", "bad.csv", POSTGRES_PORT="1")
    assert result.returncode == ExitCode.FAILED
    report = json.loads(result.stdout)
    assert (report["imported"], report["rejected"], report["rejects"]) == (10, 1, "bad.csv")
    assert sum(report["months"].values()) == 10
    assert database.cli("import", "a.csv", POSTGRES_PORT="1").returncode == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.csv"], ExitCode.FAILED, "nowhere.csv: No such file"),
        (["a.csv", "--column", "zone"], ExitCode.USAGE, "ours=theirs"),
        (["a.csv", "--column", "zone=area"], ExitCode.FAILED, "no column area"),
        (["a.csv", "--timezone", "Mars/Base"], ExitCode.USAGE, "unknown time zone: Mars/Base"),
        (["a.csv", "--entities", "a.csv"], ExitCode.FAILED, "its header is another"),
    ],
)
def test_errors_are_reported_in_one_line(
    database: Database, arguments: list[str], code: ExitCode, words: str
) -> None:
    write(database.directory / "a.csv", [])
    result = database.cli("import", *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_readings_that_retention_has_removed_are_not_imported(database: Database, cursor: Cursor) -> None:
    """The history has counted these readings already; an import would count them twice."""
    cursor.execute("SELECT hourly.close(now())")
    content = list(rows(5000, NOW - timedelta(days=60), NOW))
    file = write(database.directory / "a.csv", content)
    bring_in(database, file)
    cutoff = NOW - timedelta(days=50, minutes=-20)
    cursor.execute("SELECT hourly.forget('-infinity', %s)", (cutoff,))
    removed = 5000 - count(cursor)
    assert removed > 700
    statistics = "SELECT sum(reading_count), min(hour) FROM sensor_reading_stats"
    cursor.execute(statistics)
    before = cursor.fetchone()
    late = [(cutoff - timedelta(days=1)).isoformat(), "guest_bedroom", "new", "on", "fp2.new", "1"]
    report = bring_in(database, write(database.directory / "b.csv", [*content, late]))
    # In the hour of the cut-off, readings of zones with history are not imported either.
    assert report["in_history"] >= removed
    assert report["imported"] == 1
    assert report["in_history"] + report["duplicates"] == 5000
    cursor.execute(statistics)
    assert before
    assert cursor.fetchone() == (before[0] + 1, before[1])


def test_a_month_replaces_its_history(database: Database, cursor: Cursor) -> None:
    """The hours of zones that the files have count by their readings again, and all others as before."""
    since, until = NOW - timedelta(days=160), NOW - timedelta(days=60)
    content = list(rows(6000, since, until))
    bring_in(database, write(database.directory / "a.csv", content))
    cursor.execute("SELECT hourly.close(now())")
    cursor.execute("SELECT hourly.forget('-infinity', %s)", (until - timedelta(days=2),))
    month = f"{month_of(NOW - timedelta(days=100)):%Y-%m}"
    # Of a zone the operator has found fewer readings than were removed, and of another one none.
    old = "SELECT room, zone, hour, reading_count FROM hourly.history ORDER BY hour, room, zone"
    cursor.execute(old)
    history = cursor.fetchall()
    found = [
        row for row in content if row[2] != "office 0" and not (row[2] == "bedroom 1" and row[0][14] < "3")
    ]
    file = write(database.directory / "b.csv", found)
    hours = {
        (row[1], row[2], datetime.fromisoformat(row[0]).replace(minute=0, second=0, microsecond=0))
        for row in found
        if row[0].startswith(month)
    }
    gone = [row for row in history if row[:3] in hours]
    everything = "SELECT room, zone, timestamp, state FROM sensor_readings ORDER BY 1, 2, 3, 4"

    def state() -> list[object]:
        answers: list[object] = []
        for statement in (
            old,
            everything,
            "SELECT room, hour, reading_count FROM sensor_reading_stats ORDER BY 1, 2",
        ):
            cursor.execute(statement)
            answers.append(cursor.fetchall())
        return answers

    before = state()
    expected = {month: {"hours": len(gone), "readings": sum(row[3] for row in gone)}}
    assert len(gone) > 100
    tried = bring_in(database, file, "--replace-history", month, "--dry-run")
    assert tried["replaced"] == expected
    assert state() == before
    done = bring_in(database, file, "--replace-history", month)
    assert done["replaced"] == expected
    told = ("read", "imported", "duplicates", "in_history", "months")
    assert [tried[name] for name in told] == [done[name] for name in told]
    assert done["months"][month] == sum(row[0].startswith(month) for row in found)
    after = state()
    assert after[0] == [row for row in history if row not in gone]
    assert_exact_with_history(cursor)
    again = bring_in(database, file, "--replace-history", month, "--replace-history", "2001-01")
    assert (again["imported"], again["replaced"][month]["hours"]) == (0, 0)
    assert [words for words in again["warnings"] if "2001-01" in words]
    assert state() == after
    assert database.cli("import", file, "--replace-history", "March").returncode == ExitCode.USAGE


def test_a_table_with_the_name_of_a_month_is_not_overwritten(database: Database, cursor: Cursor) -> None:
    month = partition_name(month_of(NOW))
    cursor.execute(f"ALTER TABLE sensor_readings DETACH PARTITION {month}")
    result = database.cli(
        "import", write(database.directory / "a.csv", rows(10, NOW, NOW + timedelta(seconds=9)))
    )
    assert result.returncode == ExitCode.FAILED
    assert f"{month} is no partition but a table by itself" in result.stderr
    cursor.execute(f"SELECT count(*) FROM {month}")
    assert cursor.fetchone() == (0,)


def test_an_imported_month_is_stored_in_the_order_of_zones(database: Database, cursor: Cursor) -> None:
    since = datetime.combine(following(month_of(NOW), -2), datetime.min.time(), UTC)
    bring_in(database, write(database.directory / "a.csv", rows(60_000, since, since + timedelta(days=27))))
    table = partition_name(since.date())
    cursor.execute(f"SELECT string_agg(zone, ',' ORDER BY ctid) FROM {table}")
    row = cursor.fetchone()
    assert row
    zones = row[0].split(",")
    assert zones == sorted(zones)
    cursor.execute(f"VACUUM ANALYZE {table}")
    cursor.execute(f"EXPLAIN SELECT * FROM sensor_readings WHERE zone = '{zones[0]}'")
    assert f"{table}_zone_timestamp_state_idx" in str(cursor.fetchall())
