"""Erasures: the data of a room, a zone or a sensor go, and no restore brings them back. Others stay."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from occupancy_db.backup.manifest import MANIFEST, Manifest
from occupancy_db.errors import ExitCode
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets
from tests.database.test_backup import ok
from tests.waiting import wait_for

prepared, backup_host = hosts.prepared, hosts.backup_host

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES ({}, '{}', '{}', true, '{}')"
)
# Each place of a database where a room is named
OF_ROOM = {
    "readings": "SELECT count(*) FROM sensor_readings WHERE room = '{}'",
    "sums": "SELECT count(*) FROM hourly.sums WHERE room = '{}'",
    "history": "SELECT count(*) FROM hourly.history WHERE room = '{}'",
    "spans": "SELECT count(*) FROM hourly.occupied WHERE room = '{}'",
    "seconds": "SELECT count(*) FROM hourly.occupied_history WHERE room = '{}'",
    "carried": "SELECT count(*) FROM hourly.carried WHERE room = '{}'",
    "occupied": "SELECT count(*) FROM occupied_zone_hours WHERE room = '{}'",
    "hours": "SELECT count(*) FROM sensor_reading_stats WHERE room = '{}'",
    "status": "SELECT count(*) FROM room_occupancy_status WHERE room = '{}'",
    "newest": "SELECT count(*) FROM latest_readings WHERE room = '{}'",
    "transitions": "SELECT count(*) FROM room_transitions WHERE '{}' IN (from_room, to_room)",
    "predictions": "SELECT count(*) FROM predictions WHERE room = '{}'",
    "sensors": "SELECT count(*) FROM sensors WHERE room = '{}'",
    "statistics": "SELECT count(*) FROM pg_stats WHERE tablename <> 'rooms' AND schemaname !~ '^pg_' "
    "AND '{}' = ANY (most_common_vals::text::text[])",
}


def rows_of(backup_host: BackupHost, room: str, database: str = LIVE) -> dict[str, int]:
    """The places that name a room, with the number of their rows."""
    counts = {name: backup_host.query(query.format(room), database)[0][0] for name, query in OF_ROOM.items()}
    return {name: count for name, count in counts.items() if count}


def erase(backup_host: BackupHost, *arguments: str) -> Any:
    return ok(backup_host.cli("erase", *arguments, "--confirm", LIVE, "--json"))


def furnish(backup_host: BackupHost) -> None:
    """Give the office a sensor, and hours of readings that retention has removed, each in two parts."""
    owner = backup_host.database
    ok(owner.cli("sensors", "set", "binary_sensor.desk", "--room", "office", "--zone", "desk"))
    ok(owner.cli("timezone", "set", "Asia/Kathmandu"))
    backup_host.cluster.execute(
        "SELECT hourly.forget('-infinity', (SELECT min(hour) + interval '3 hours' FROM hourly.sums "
        "WHERE room = 'office'))",
        "ANALYZE",
        database=LIVE,
    )


def test_a_room_is_erased_with_all_that_names_it(backup_host: BackupHost) -> None:
    furnish(backup_host)
    before = rows_of(backup_host, "office")
    assert set(before) == set(OF_ROOM)
    parts = "SELECT DISTINCT minute FROM hourly.history WHERE room = 'office' ORDER BY 1"
    assert backup_host.query(parts) == [(0,), (15,)]
    others = "SELECT room, hour, reading_count FROM sensor_reading_stats WHERE room <> 'office' ORDER BY 1, 2"
    kept = backup_host.query(others)
    plan = ok(backup_host.cli("erase", "--room", "office", "--dry-run", "--json"))
    assert rows_of(backup_host, "office") == before
    assert plan["tables"]["sensor_readings"]["rows"] == before["readings"]
    assert plan["tables"]["hourly.history"]["rows"] == before["history"]
    done = erase(backup_host, "--room", "office")
    assert rows_of(backup_host, "office") == {}
    assert backup_host.query(others) == kept
    assert done["rows"] == {
        LIVE: {name: found["rows"] for name, found in plan["tables"].items()},
    }
    assert len(done["sets_with_the_data"]) == 2
    again = erase(backup_host, "--room", "office")
    assert set(again["rows"][LIVE].values()) == {0}


def test_of_a_range_of_time_the_rest_stays(backup_host: BackupHost) -> None:
    furnish(backup_host)
    ((first, last),) = backup_host.query(
        "SELECT min(hour), max(hour) FROM sensor_reading_stats WHERE room = 'office'"
    )
    since, until = first + timedelta(hours=2, minutes=30), last - timedelta(hours=2, minutes=-30)
    condition = f"room = 'office' AND timestamp >= '{since}' AND timestamp < '{until}'"
    total, inside = backup_host.query(
        f"SELECT count(*), count(*) FILTER (WHERE {condition}) FROM sensor_readings"
    )[0]
    assert inside
    done = erase(backup_host, "--room", "office", "--from", since.isoformat(), "--to", until.isoformat())
    assert done["rows"][LIVE]["sensor_readings"] == inside
    assert "sensors" not in done["rows"][LIVE]
    assert backup_host.query("SELECT count(*) FROM sensor_readings") == [(total - inside,)]
    # An hour of the history that the range touches is removed, and the hours before are not.
    left = backup_host.query(
        f"SELECT max(hour) < '{first + timedelta(hours=2)}' FROM hourly.history WHERE room = 'office'"
    )
    assert left == [(True,)]
    recount = f"""
        SELECT room, date_trunc('hour', timestamp, 'UTC'), count(*) FROM sensor_readings
        WHERE room = 'office' AND timestamp >= '{first + timedelta(hours=4)}' GROUP BY 1, 2 ORDER BY 1, 2
    """
    summed = f"""
        SELECT room, hour, sum(reading_count) FROM hourly.sums
        WHERE room = 'office' AND hour >= '{first + timedelta(hours=4)}' GROUP BY 1, 2 ORDER BY 1, 2
    """
    assert backup_host.query(summed) == backup_host.query(recount)


def test_a_sensor_that_moved_is_erased_in_all_of_its_places(backup_host: BackupHost) -> None:
    owner = backup_host.database
    for since, room in (("2020-01-01", "office"), ("2026-01-01", "bedroom")):
        ok(owner.cli("sensors", "set", "sensor.x", "--room", room, "--zone", "chair", "--since", since))
    ok(owner.cli("sensors", "set", "sensor.y", "--room", "office", "--zone", "shelf"))
    for hour, room, zone, entity in (
        ("now() - interval '3 hours'", "office", "chair", "sensor.x"),
        ("now() - interval '2 hours'", "bedroom", "chair", "sensor.x"),
        ("now() - interval '2 hours'", "office", "shelf", "sensor.y"),
    ):
        backup_host.cluster.execute(READING.format(hour, room, zone, entity), database=LIVE)
    # What retention has removed: the sums name places only.
    history = (
        "INSERT INTO hourly.history "
        "(hour, room, zone, reading_count, confidence_sum, first_reading, last_reading) "
        "VALUES ('{0}', '{1}', 'chair', 1, 1, '{0}', '{0}')"
    )
    hours = [("2019-05-01", "office"), ("2021-05-01", "office"), ("2021-05-01", "bedroom")]
    for hour, room in hours:
        backup_host.cluster.execute(history.format(hour, room), database=LIVE)
    done = erase(backup_host, "--entity", "sensor.x")
    rows = {table: number for table, number in done["rows"][LIVE].items() if number}
    assert rows == {"hourly.history": 1, "sensor_readings": 2, "sensors": 2}
    assert backup_host.query("SELECT entity FROM sensors") == [("sensor.y",)]
    assert backup_host.query(
        "SELECT DISTINCT zone FROM sensor_readings WHERE zone IN ('chair', 'shelf')"
    ) == [("shelf",)]
    left = "SELECT room, extract(year FROM hour)::int FROM hourly.history WHERE zone = 'chair' ORDER BY 1"
    assert backup_host.query(left) == [("bedroom", 2021), ("office", 2019)]


def test_a_place_of_a_sensor_is_erased_and_its_other_places_keep_their_time(backup_host: BackupHost) -> None:
    owner = backup_host.database
    for since, room in (("2020-01-01", "office"), ("2024-01-01", "bedroom"), ("2026-01-01", "office")):
        ok(owner.cli("sensors", "set", "sensor.x", "--room", room, "--zone", "chair", "--since", since))
    assert erase(backup_host, "--room", "bedroom")["rows"][LIVE]["sensors"] == 1
    places = "SELECT extract(year FROM since)::int, room FROM sensors ORDER BY since"
    assert backup_host.query(places) == [(2020, "office"), (2024, None), (2026, "office")]


def test_a_zone_leaves_what_names_rooms_only(backup_host: BackupHost) -> None:
    zone = backup_host.query("SELECT zone FROM sensor_readings WHERE room = 'office' LIMIT 1")[0][0]
    transitions = backup_host.query("SELECT count(*) FROM room_transitions")
    shown = ok(backup_host.cli("erase", "--room", "office", "--zone", zone, "--dry-run"))
    assert "room_transitions and predictions are kept" in shown
    done = erase(backup_host, "--room", "office", "--zone", zone)
    assert done["rows"][LIVE]["sensor_readings"]
    left = f"SELECT count(*) FROM sensor_readings WHERE (room, zone) = ('office', '{zone}')"
    assert backup_host.query(left) == [(0,)]
    assert backup_host.query("SELECT count(*) FROM room_transitions") == transitions


def test_restores_of_earlier_sets_erase_again_and_of_later_sets_do_not(
    backup_host: BackupHost, prepared: PreparedSets
) -> None:
    erase(backup_host, "--room", "office")
    backup_host.cluster.execute(READING.format("now()", "office", "new", "x"), database=LIVE)
    later = ok(backup_host.backup("create", "--json"))["id"]
    manifest = Manifest.unseal(backup_host.sets / later / MANIFEST)
    assert [one.selection.room for one in manifest.erasures] == ["office"]
    ok(backup_host.restore(prepared.old))
    assert rows_of(backup_host, "office") == {}
    ok(backup_host.restore(later))
    assert rows_of(backup_host, "office")["readings"] == 1
    # The database that the restore has replaced can become live again.
    erase(backup_host, "--room", "bedroom")
    ok(backup_host.cli("restore-rollback", "--confirm", LIVE))
    assert rows_of(backup_host, "bedroom") == {}


def test_the_sets_bring_the_record_to_another_host(backup_host: BackupHost, prepared: PreparedSets) -> None:
    erase(backup_host, "--room", "office")
    ok(backup_host.backup("create"))
    (backup_host.sets / f"{LIVE}.erasures.json").unlink()
    ok(backup_host.restore(prepared.new))
    assert rows_of(backup_host, "office") == {}
    assert (backup_host.sets / f"{LIVE}.erasures.json").exists()


def test_an_erasure_that_was_interrupted_is_applied_by_a_restore(
    backup_host: BackupHost,
) -> None:
    backup_host.cluster.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''power cut''; END'",
        "CREATE TRIGGER fail BEFORE DELETE ON predictions EXECUTE FUNCTION fail()",
        database=LIVE,
    )
    stopped = backup_host.cli("erase", "--room", "office", "--confirm", LIVE)
    assert "power cut" in stopped.stderr
    backup_host.cluster.execute("DROP FUNCTION fail CASCADE", database=LIVE)
    assert rows_of(backup_host, "office")["readings"]
    made = ok(backup_host.backup("create", "--json"))["id"]
    assert Manifest.unseal(backup_host.sets / made / MANIFEST).erasures == []
    ok(backup_host.restore(made))
    assert rows_of(backup_host, "office") == {}
    record = json.loads((backup_host.sets / f"{LIVE}.erasures.json").read_text())["erasures"]
    assert [one["complete"] for one in record] == [True]


def test_the_older_sets_are_removed_after_a_new_one_is_verified(
    backup_host: BackupHost, prepared: PreparedSets
) -> None:
    ok(backup_host.backup("pin", prepared.old, "before the move"))
    done = erase(backup_host, "--zone", "nowhere", "--from-backups")
    assert done["removed_sets"] == [prepared.old, prepared.new]
    assert done["sets_with_the_data"] == []
    assert backup_host.states() == {done["new_set"]: "verified"}


def test_nothing_is_removed_if_the_new_set_fails(backup_host: BackupHost, prepared: PreparedSets) -> None:
    backup_host.cluster.execute(
        "CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION nothing()",
        database=LIVE,
    )
    failed = backup_host.cli("erase", "--room", "office", "--from-backups", "--confirm", LIVE)
    assert failed.returncode == ExitCode.DAMAGED
    assert {prepared.old, prepared.new} < set(backup_host.states())
    assert rows_of(backup_host, "office") == {}


def test_the_sets_are_listed_with_their_last_day(backup_host: BackupHost, prepared: PreparedSets) -> None:
    ok(backup_host.backup("pin", prepared.old, "before the move"))
    plan = ok(backup_host.cli("erase", "--zone", "x", "--dry-run", "--json", BACKUP_KEEP_MONTHLY=0))
    old, new = plan["sets_with_the_data"]
    assert (old["id"], old["expires_at"], old["pinned"]) == (prepared.old, None, "before the move")
    now = datetime.now(UTC)
    assert now < datetime.fromisoformat(new["expires_at"]) < now + timedelta(weeks=6)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--confirm", LIVE), ExitCode.USAGE, "nothing is selected"),
        (("--room", "cellar", "--confirm", LIVE), ExitCode.USAGE, "'cellar' is not a room"),
        (("--room", "office"), ExitCode.REFUSED, "--confirm was not given"),
        (("--room", "office", "--confirm", "other"), ExitCode.REFUSED, "names other"),
        (("--room", "office", "--from", "noon", "--confirm", LIVE), ExitCode.USAGE, "noon is not a time"),
        (
            ("--room", "office", "--from", "2026-02-01", "--to", "2026-01-01", "--confirm", LIVE),
            ExitCode.USAGE,
            "not later",
        ),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(
    backup_host: BackupHost, arguments: tuple[str, ...], code: ExitCode, words: str
) -> None:
    before = backup_host.fingerprint()
    refused = backup_host.cli("erase", *arguments)
    assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr
    assert backup_host.fingerprint() == before
    assert not list(backup_host.sets.glob("*.erasures.json"))


def test_a_damaged_record_stops_backups_and_restores(backup_host: BackupHost, prepared: PreparedSets) -> None:
    (backup_host.sets / f"{LIVE}.erasures.json").write_text("{}")
    for result in (backup_host.backup("create"), backup_host.restore(prepared.new)):
        assert result.returncode == ExitCode.DAMAGED
        assert f"{LIVE}.erasures.json" in result.stderr


def test_writers_go_on(backup_host: BackupHost) -> None:
    """A writer of the erased room itself loses nothing that it writes after the erasure."""
    stop, written = threading.Event(), []

    def write() -> None:
        connection = backup_host.connect("occupancy_app")
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(READING.format("clock_timestamp()", "office", "live", "x"))
                written.append(datetime.now(UTC))
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(written) > 20, "readings of the writer")
        done = erase(backup_host, "--room", "office")
        count = len(written)
        wait_for(lambda: len(written) > count + 20, "readings after the erasure")
    finally:
        stop.set()
        writer.join()
    removed = done["rows"][LIVE]["sensor_readings"]
    left = backup_host.query("SELECT count(*) FROM sensor_readings WHERE zone = 'live'")[0][0]
    assert 20 < left <= len(written)
    assert removed + left >= len(written)
