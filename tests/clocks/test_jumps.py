"""A clock that jumps before a job or in the middle of it: nothing is lost, and all is right when it is."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from occupancy_db.errors import ExitCode
from tests.clocks.environment import ClockHost
from tests.database.backup_host import LIVE
from tests.database.months import name

DAY, YEAR, CENTURY = (timedelta(days=days) for days in (1, 365, 36_525))
JUMPS = {
    "a century ahead": CENTURY,
    "a year ahead": YEAR,
    "a day ahead": DAY,
    "a day behind": -DAY,
    "a year behind": -YEAR,
    "a century behind": -CENTURY,
}
jumps = pytest.mark.parametrize("jump", JUMPS)

CLEANUP = ("cleanup", "--months", "12", "--no-dry-run")
REMOVING = {
    "maintain": ("partitions", "maintain"),
    "cleanup": CLEANUP,
    "create": ("backup", "create"),
    "prune": ("backup", "prune"),
}
HEADER = "timestamp,room,zone,state,source_entity,confidence\n"


@pytest.mark.sample
@jumps
@pytest.mark.parametrize("job", REMOVING)
def test_a_clock_that_jumped_before_a_job_removes_nothing(clock_host: ClockHost, jump: str, job: str) -> None:
    clock_host.cluster.shift(JUMPS[jump])
    for attempt in range(2):  # the second one has what the first one has recorded
        done = clock_host.run(*REMOVING[job])
        expected = ExitCode.CLOCK if clock_host.contradicts() else ExitCode.OK
        assert done.returncode == expected, (attempt, done)
        if job == "create":
            clock_host.wait_for_next_second()
    if expected is ExitCode.CLOCK:
        assert "occupancy-db clock confirm" in done.stderr
    if job == "maintain":
        clock_host.write(clock_host.cluster.now())  # clients go on
    clock_host.assert_nothing_lost()
    clock_host.make_right()


@jumps
def test_all_jobs_of_a_night_at_a_wrong_time(clock_host: ClockHost, jump: str) -> None:
    clock_host.cluster.shift(JUMPS[jump])
    for job in REMOVING.values():
        clock_host.run(*job)
        clock_host.assert_views()
        clock_host.write(clock_host.cluster.now())
        clock_host.wait_for_next_second()
    clock_host.assert_nothing_lost()
    clock_host.make_right()


@jumps
def test_an_operator_who_confirms_a_wrong_clock_can_confirm_the_right_one(
    clock_host: ClockHost, jump: str
) -> None:
    """What the operator has confirmed counts: the jobs go on. What is lost then is due by that clock."""
    clock_host.cluster.shift(JUMPS[jump])
    confirmed = clock_host.run("clock", "confirm", "--by", "Bob")
    if jump == "a century behind":  # before 2010: certainly wrong
        assert confirmed.returncode == ExitCode.CLOCK, confirmed
    else:
        assert confirmed.returncode == 0, confirmed
        clock_host.expect(0, "partitions", "maintain")
        clock_host.write(clock_host.cluster.now())
        clock_host.assert_nothing_lost()
    clock_host.make_right()


@jumps
def test_a_restore_at_a_wrong_time(clock_host: ClockHost, jump: str) -> None:
    """The set is restored; the replaced database is kept; the checks of the host stay."""
    newest = json.loads(clock_host.expect(0, "backup", "show", "latest", "--json").stdout)["id"]
    clock_host.cluster.shift(JUMPS[jump])
    if clock_host.cluster.offset < timedelta():
        clock_host.expect(ExitCode.CLOCK, "restore", "latest", "--confirm", LIVE)
    clock_host.expect(0, "restore", newest, "--confirm", LIVE)
    clock_host.sets |= clock_host.published()
    kept = clock_host.run("restore-cleanup")
    assert kept.returncode in (0, ExitCode.CLOCK), kept
    assert f"{LIVE}_replaced" in clock_host.host.databases()
    for job in REMOVING.values():
        done = clock_host.run(*job)
        assert done.returncode == (ExitCode.CLOCK if clock_host.contradicts() else 0), done
    clock_host.make_right()
    assert f"{LIVE}_replaced" in clock_host.host.databases()
    clock_host.expect(0, "restore-rollback", "--confirm", LIVE)
    clock_host.expect(0, "partitions", "maintain")
    clock_host.assert_nothing_lost()


@pytest.mark.sample
@jumps
def test_a_database_that_was_replaced_before_the_jump_is_kept(clock_host: ClockHost, jump: str) -> None:
    newest = json.loads(clock_host.expect(0, "backup", "show", "latest", "--json").stdout)["id"]
    clock_host.expect(0, "restore", newest, "--confirm", LIVE, "--without-safety-backup")
    clock_host.cluster.shift(JUMPS[jump])
    ahead = clock_host.contradicts() and clock_host.cluster.offset > timedelta()
    clock_host.expect(ExitCode.CLOCK if ahead else 0, "restore-cleanup")
    assert f"{LIVE}_replaced" in clock_host.host.databases()
    clock_host.make_right()
    assert f"{LIVE}_replaced" in clock_host.host.databases()


@jumps
def test_an_import_at_a_wrong_time_loses_no_row(clock_host: ClockHost, jump: str) -> None:
    """What the wrong clock refuses is in the file of rejects, and can be imported when the clock is right."""
    moments = [datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours) for hours in range(1, 40)]
    lines = [f"{moment.isoformat()},office,import,true,sensor,0.5\n" for moment in moments]
    (clock_host.database.directory / "a.csv").write_text(HEADER + "".join(lines))
    clock_host.cluster.shift(JUMPS[jump])
    clock_host.run("import", "a.csv", "--rejects", "rejects.csv")
    clock_host.assert_nothing_lost()
    clock_host.cluster.shift(timedelta())
    clock_host.expect(0, "import", "a.csv")
    assert {(moment, "office", "import", True, 0.5) for moment in moments} <= clock_host.rows()
    assert len(clock_host.rows()) == clock_host.host.query("SELECT count(*) FROM sensor_readings")[0][0]
    clock_host.make_right()


@jumps
def test_a_migration_at_a_wrong_time(clock_host: ClockHost, jump: str) -> None:
    clock_host.expect(0, "rollback")
    clock_host.cluster.shift(JUMPS[jump])
    clock_host.expect(0, "migrate")
    for job in REMOVING.values():
        clock_host.run(*job)
        clock_host.wait_for_next_second()
    clock_host.assert_nothing_lost()
    clock_host.make_right()


def recorded(clock_host: ClockHost, job: str) -> Callable[[], bool]:
    """Whether a job has recorded a check since this call."""
    query = f"SELECT coalesce(max(checked_at), '-infinity') FROM hourly.clock WHERE job = '{job}'"
    before = clock_host.host.query(query)
    return lambda: clock_host.host.query(query) != before


def waiting(clock_host: ClockHost) -> Callable[[], bool]:
    """Whether a session waits for a lock."""
    query = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return lambda: clock_host.host.query(query) == [(True,)]


@jumps
def test_a_clock_that_jumps_during_upkeep(clock_host: ClockHost, jump: str) -> None:
    clock_host.host.query(f"DROP TABLE {name(3)}; SELECT 1")
    with clock_host.holding("LOCK TABLE sensor_readings IN SHARE ROW EXCLUSIVE MODE") as release:
        done = clock_host.shifted_during(
            JUMPS[jump], recorded(clock_host, "maintain"), release, *REMOVING["maintain"]
        )
    assert done.returncode == 0, done
    clock_host.assert_nothing_lost()
    clock_host.make_right()


@pytest.mark.sample
@jumps
def test_a_clock_that_jumps_while_months_are_removed(clock_host: ClockHost, jump: str) -> None:
    """Exactly what was due before the jump is removed."""
    (cutoff,) = clock_host.host.query("SELECT retention_cutoff(5)")[0]
    with clock_host.holding("SELECT count(*) FROM sensor_readings") as release:
        done = clock_host.shifted_during(
            JUMPS[jump], recorded(clock_host, "cleanup"), release, "cleanup", "--months", "5", "--no-dry-run"
        )
    assert done.returncode == 0, done
    (until,) = clock_host.host.query("SELECT min(timestamp) FROM sensor_readings")[0]
    assert {row for row in clock_host.stored if row[0] >= until} == clock_host.rows()
    assert cutoff <= until < cutoff + timedelta(hours=4)
    clock_host.assert_nothing_lost(months=4)
    clock_host.stored = {row for row in clock_host.stored if row[0] >= until}
    clock_host.cluster.shift(timedelta())
    if clock_host.run("partitions", "maintain").returncode:
        clock_host.confirm()
    clock_host.expect(0, "partitions", "maintain")
    clock_host.expect(0, "cleanup", "--months", "5", "--no-dry-run")
    assert {row for row in clock_host.stored if row[0] >= until} == clock_host.rows()


@pytest.mark.sample
@jumps
@pytest.mark.parametrize("where", ["the dump", "the rehearsal"])
def test_a_clock_that_jumps_during_a_backup(clock_host: ClockHost, jump: str, where: str) -> None:
    places = {
        "the dump": lambda: list(clock_host.host.sets.glob(".partial-*")),
        "the rehearsal": lambda: list(clock_host.host.rehearsals.iterdir()),
    }
    done = clock_host.shifted_during(JUMPS[jump], places[where], nullcontext, *REMOVING["create"])
    assert done.returncode in (0, ExitCode.CLOCK), done
    clock_host.assert_nothing_lost()
    states = clock_host.host.backup("list", "--json")
    assert {one["state"] for one in json.loads(states.stdout)["sets"]} == {"verified"}
    clock_host.cluster.shift(timedelta())
    clock_host.wait_for_next_second()
    clock_host.make_right()


@jumps
def test_a_clock_that_jumps_during_a_restore(clock_host: ClockHost, jump: str) -> None:
    newest = json.loads(clock_host.expect(0, "backup", "show", "latest", "--json").stdout)["id"]
    done = clock_host.shifted_during(
        JUMPS[jump],
        lambda: f"{LIVE}_restoring" in clock_host.host.databases(),
        nullcontext,
        *("restore", newest, "--confirm", LIVE, "--without-safety-backup"),
    )
    assert done.returncode == 0, done
    clock_host.assert_nothing_lost()
    clock_host.run("restore-cleanup")
    clock_host.make_right()
    assert f"{LIVE}_replaced" in clock_host.host.databases()


@jumps
def test_a_clock_that_jumps_during_an_import(clock_host: ClockHost, jump: str) -> None:
    moments = [datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours) for hours in range(1, 40)]
    lines = [f"{moment.isoformat()},office,import,true,sensor,0.5\n" for moment in moments]
    (clock_host.database.directory / "a.csv").write_text(HEADER + "".join(lines))
    with clock_host.holding("LOCK TABLE sensor_readings IN SHARE MODE") as release:
        done = clock_host.shifted_during(JUMPS[jump], waiting(clock_host), release, "import", "a.csv")
    assert done.returncode == 0, done
    assert {(moment, "office", "import", True, 0.5) for moment in moments} <= clock_host.rows()
    clock_host.assert_nothing_lost()
    clock_host.make_right()


@jumps
def test_a_clock_that_jumps_during_a_migration(clock_host: ClockHost, jump: str) -> None:
    clock_host.expect(0, "rollback")
    with clock_host.holding("LOCK TABLE sensor_readings IN ACCESS EXCLUSIVE MODE") as release:
        done = clock_host.shifted_during(JUMPS[jump], waiting(clock_host), release, "migrate")
    assert done.returncode == 0, done
    clock_host.assert_nothing_lost()
    clock_host.make_right()


def test_the_figures_count_what_is_missing(clock_host: ClockHost) -> None:
    """The comparison of this suite finds a row that is lost, and a view that is wrong."""
    clock_host.host.query(
        "DELETE FROM sensor_readings WHERE timestamp > now() - interval '4 hours'; SELECT 1"
    )
    with pytest.raises(AssertionError):
        clock_host.assert_nothing_lost()
    assert clock_host.lost == 2
    clock_host.stored = clock_host.rows()
    clock_host.host.query("UPDATE hourly.sums SET reading_count = reading_count + 1; SELECT 1")
    with pytest.raises(AssertionError):
        clock_host.assert_views()
    clock_host.lost = 0
