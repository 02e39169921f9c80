"""Ended in the middle: killed, or told to stop."""

import signal

import pytest

from tests.database.site import LIVE
from tests.faults.house import CREATING, RESTORING, House, alive, dump_that_waits
from tests.waiting import LIMIT, wait_for

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("place", CREATING)
def test_a_backup_is_killed(house: House, place: str) -> None:
    hold, when = CREATING[place]
    process = house.start("backup", "create", hold=hold, when=when)
    children = process.children()
    process.process.kill()
    process.end()
    house.survived("create")
    wait_for(lambda: not alive(children), f"the end of {children}")


def test_a_backup_is_killed_while_it_dumps(house: House) -> None:
    with dump_that_waits(house) as process:
        children = process.children()
        assert "pg_dump" in children.values()
        process.process.kill()
    house.survived("create")
    wait_for(lambda: not alive(children), f"the end of {children}")


def test_a_backup_is_killed_while_it_prunes(house: House) -> None:
    """Half a set is never taken for a whole one: it loses its name first."""
    site, old = house.site, house.stock.old
    keep = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")}
    process = house.start(
        "backup", "create", environment={**keep, "BACKUP_KEEP_LAST": 2},
        hold="shutil:rmtree", when=rf"\.partial-{old}",
    )  # fmt: skip
    process.process.kill()
    process.end()
    assert (site.sets / f".partial-{old}").exists()
    del house.sets[old]
    house.survived("create")
    assert old not in house.site.states()


@pytest.mark.parametrize("place", RESTORING)
def test_a_restore_is_killed(house: House, place: str) -> None:
    hold, when = RESTORING[place]
    process = house.start(
        "restore", "latest", "--confirm", LIVE, "--without-safety-backup", hold=hold, when=when
    )
    process.process.kill()
    process.end()
    house.survived("restore")


def test_a_restore_is_killed_while_it_saves_the_live_database(house: House) -> None:
    with dump_that_waits(house, "restore", "latest", "--confirm", LIVE) as process:
        process.process.kill()
    assert house.site.unfinished() != []
    house.untouched()
    house.works()  # which clears what it left
    house.survived("restore")


def test_a_restore_is_killed_after_the_exchange(house: House) -> None:
    """It was one transaction: the restored database is the live one, and the other one is kept."""
    process = house.start(
        "restore", house.stock.old, "--confirm", LIVE, "--without-safety-backup",
        hold="occupancy_db.backup.restore:_look_again",
    )  # fmt: skip
    process.process.kill()
    process.end()
    assert house.site.databases() == {LIVE, f"{LIVE}_replaced"}
    assert house.site.fingerprint("public") != house.live[1]
    back = house.site.cli("restore-rollback", "--confirm", LIVE)
    assert back.returncode == 0, back.stderr
    house.survived("restore")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_told_to_stop_while_it_dumps_leaves_nothing(
    house: House, number: signal.Signals
) -> None:
    with dump_that_waits(house) as process:
        children = process.children()
        process.process.send_signal(number)
        assert process.end().returncode != 0
        assert alive(children) == {}
        assert house.site.unfinished() == []
    house.survived()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["rehearse, restoring", "rehearse, comparing"])
def test_a_rehearsal_that_is_told_to_stop_leaves_nothing(
    house: House, place: str, number: signal.Signals
) -> None:
    hold, when = CREATING[place]
    process = house.start("backup", "create", hold=hold, when=when)
    children = process.children()
    assert "postgres" in children.values()
    process.process.send_signal(number)
    process.process.wait(LIMIT)
    assert process.end().returncode != 0
    assert alive(children) == {}
    assert house.site.unfinished() == []
    house.survived()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["restore", "in the exchange"])
def test_a_restore_that_is_told_to_stop_leaves_the_live_database(
    house: House, place: str, number: signal.Signals
) -> None:
    hold, when = RESTORING[place]
    process = house.start(
        "restore", "latest", "--confirm", LIVE, "--without-safety-backup", hold=hold, when=when
    )
    process.process.send_signal(number)
    process.process.wait(LIMIT)
    assert process.end().returncode != 0
    assert house.site.unfinished() == []
    house.survived("restore")
