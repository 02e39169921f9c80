"""The ends of months and years, the changes of daylight saving, late and early readings, and no battery."""

from datetime import UTC, datetime, timedelta

import pytest

from occupancy_db.errors import ExitCode
from tests.clocks.environment import ClockHost
from tests.database.backup_host import LIVE
from tests.database.users import grant

BOUNDARIES = {
    "the end of a month": datetime(2027, 3, 1, tzinfo=UTC),
    "the end of a month in local time": datetime(2027, 6, 30, 22, tzinfo=UTC),
    "the end of a year": datetime(2028, 1, 1, tzinfo=UTC),
    "the day before the end of a leap year's February": datetime(2028, 2, 29, tzinfo=UTC),
    "the change to summer time": datetime(2027, 3, 28, 1, tzinfo=UTC),
    "the change to winter time": datetime(2027, 10, 31, 1, tzinfo=UTC),
}


def install(host: ClockHost, moment: datetime) -> None:
    """Provision a new host whose clock says a time."""
    host.cluster.shift(moment - datetime.now(UTC))
    host.expect(0, "migrate")
    grant(host.cluster, LIVE)


@pytest.mark.sample
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_clock_passes_a_boundary(new_host: ClockHost, boundary: str) -> None:
    """The server's sessions and the tools have the local time of Berlin."""
    moment = BOUNDARIES[boundary]
    install(new_host, moment - timedelta(hours=3))
    for step in range(-8, 9):
        new_host.cluster.shift(moment + step * timedelta(minutes=17) - datetime.now(UTC))
        now = new_host.cluster.now()
        new_host.write(now, now - timedelta(hours=1), zone="desk", state=step % 2 == 0)
        if step % 3 == 0:
            new_host.expect(0, "partitions", "maintain")
        new_host.assert_views()
    new_host.expect(0, "cleanup", "--months", "1", "--no-dry-run")
    new_host.expect(0, "backup", "create")
    new_host.sets = new_host.published()
    new_host.wait_for_next_second()
    new_host.assert_nothing_lost()
    new_host.make_right()


def test_retention_counts_from_two_days_ago_at_the_end_of_a_month(new_host: ClockHost) -> None:
    """On the last day of March, one month before is in February: no reading of it is removed early."""
    install(new_host, datetime(2027, 3, 31, 12, tzinfo=UTC))
    new_host.expect(0, "partitions", "maintain")
    kept, gone = datetime(2027, 2, 28, 12, 5, tzinfo=UTC), datetime(2027, 2, 28, 11, 55, tzinfo=UTC)
    new_host.write(kept, gone)
    new_host.cluster.shift(datetime(2027, 3, 30, 12, tzinfo=UTC) + timedelta(days=1) - datetime.now(UTC))
    new_host.expect(0, "cleanup", "--months", "1", "--no-dry-run")
    # Two days before is 29 March, and one month before that the last day of February.
    assert {row[0] for row in new_host.rows()} == {kept}
    new_host.assert_views()
    new_host.stored = new_host.rows()


@pytest.mark.sample
def test_late_and_early_readings(clock_host: ClockHost) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    clock_host.write(*(now - timedelta(days=days) for days in (0.5, 45, 100, 210)), zone="late")
    clock_host.write(now + timedelta(hours=20), zone="desk", state=False)
    clock_host.write(now + timedelta(days=30), zone="early")
    clock_host.assert_nothing_lost()
    clock_host.expect(0, "partitions", "maintain")
    clock_host.assert_nothing_lost()
    clock_host.cluster.shift(timedelta(hours=20, minutes=30))  # it is due
    clock_host.assert_nothing_lost()
    clock_host.expect(0, "partitions", "maintain")
    clock_host.assert_nothing_lost()
    clock_host.make_right()


@pytest.mark.sample
@pytest.mark.parametrize("year", [1970, 2010])
def test_a_host_without_a_battery_starts_and_gets_the_time_later(clock_host: ClockHost, year: int) -> None:
    """No one has to confirm the right clock."""
    clock_host.cluster.shift(datetime(year, 1, 2, tzinfo=UTC) - datetime.now(UTC))
    clock_host.cluster.restart()
    clock_host.cluster.wait()
    for command in (
        ("partitions", "maintain"),
        ("cleanup", "--months", "12", "--no-dry-run"),
        ("backup", "create"),
        ("backup", "prune"),
        ("partitions", "maintain"),
    ):
        clock_host.expect(ExitCode.CLOCK, *command)
        clock_host.write(clock_host.cluster.now())
        clock_host.assert_nothing_lost()
    clock_host.wait_for_next_second()
    clock_host.make_right()
    assert clock_host.confirmed == 0


@pytest.mark.parametrize("year", [1970, 2010])
def test_a_host_is_provisioned_before_its_clock_is_set(new_host: ClockHost, year: int) -> None:
    install(new_host, datetime(year, 1, 2, tzinfo=UTC))
    done = new_host.run("partitions", "maintain")
    assert done.returncode == (ExitCode.CLOCK if year < 2010 else 0), done
    new_host.write(new_host.cluster.now())
    new_host.assert_views()
    new_host.make_right()
    assert new_host.confirmed == (year >= 2010)


@pytest.mark.parametrize("months", [1, 12, 120])
def test_a_backup_set_of_long_ago_is_restored(clock_host: ClockHost, months: int) -> None:
    """The check in the set is old, and the check of the host counts: no one has to confirm the clock."""
    (oldest, *_) = sorted(clock_host.sets)
    offset = timedelta(days=30 * months)
    clock_host.cluster.shift(offset)
    clock_host.expect(0, "clock", "confirm")  # the host was in use until then, with another database
    clock_host.write(clock_host.cluster.now()) if months <= 1 else None
    clock_host.expect(0, "partitions", "maintain")
    clock_host.expect(0, "restore", oldest, "--confirm", LIVE, "--without-safety-backup")
    clock_host.expect(0, "partitions", "maintain")
    clock_host.expect(0, "clock", "status")
