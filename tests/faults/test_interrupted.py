"""Backups and restores that are killed, or stopped by a signal."""

import signal

import pytest

from tests.database.backup_host import LIVE
from tests.faults.environment import CREATING, RESTORING, FaultEnvironment, alive, dump_that_waits
from tests.waiting import LIMIT, wait_for

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("place", CREATING)
def test_a_backup_is_killed(fault_env: FaultEnvironment, place: str) -> None:
    hold, when = CREATING[place]
    process = fault_env.start("backup", "create", hold=hold, when=when)
    children = process.children()
    process.process.kill()
    process.finish()
    fault_env.assert_survived("create")
    wait_for(lambda: not alive(children), f"the end of {children}")


def test_a_backup_is_killed_while_it_dumps(fault_env: FaultEnvironment) -> None:
    with dump_that_waits(fault_env) as process:
        children = process.children()
        assert "pg_dump" in children.values()
        process.process.kill()
    fault_env.assert_survived("create")
    wait_for(lambda: not alive(children), f"the end of {children}")


def test_a_backup_is_killed_while_it_prunes(fault_env: FaultEnvironment) -> None:
    """A set is renamed before its files are removed, so that a partly removed set is not a set."""
    backup_host, old = fault_env.host, fault_env.prepared.old
    keep = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")}
    process = fault_env.start(
        "backup", "create", environment={**keep, "BACKUP_KEEP_LAST": 2},
        hold="shutil:rmtree", when=rf"\.partial-{old}",
    )  # fmt: skip
    process.process.kill()
    process.finish()
    assert (backup_host.sets / f".partial-{old}").exists()
    del fault_env.sets[old]
    fault_env.assert_survived("create")
    assert old not in fault_env.host.states()


@pytest.mark.parametrize("place", RESTORING)
def test_a_restore_is_killed(fault_env: FaultEnvironment, place: str) -> None:
    hold, when = RESTORING[place]
    process = fault_env.start(
        "restore", "latest", "--confirm", LIVE, "--without-safety-backup", hold=hold, when=when
    )
    process.process.kill()
    process.finish()
    fault_env.assert_survived("restore")


def test_a_restore_is_killed_while_it_saves_the_live_database(fault_env: FaultEnvironment) -> None:
    with dump_that_waits(fault_env, "restore", "latest", "--confirm", LIVE) as process:
        process.process.kill()
    assert fault_env.host.unfinished() != []
    fault_env.assert_unchanged()
    fault_env.assert_backup_works()  # removes what the killed run has left
    fault_env.assert_survived("restore")


def test_a_restore_is_killed_after_the_exchange(fault_env: FaultEnvironment) -> None:
    """The exchange is one transaction: the restored database is live, and the former one is kept."""
    process = fault_env.start(
        "restore", fault_env.prepared.old, "--confirm", LIVE, "--without-safety-backup",
        hold="occupancy_db.backup.restore:_verify_exchange",
    )  # fmt: skip
    process.process.kill()
    process.finish()
    assert fault_env.host.databases() == {LIVE, f"{LIVE}_replaced"}
    assert fault_env.host.fingerprint("public") != fault_env.live[1]
    back = fault_env.host.cli("restore-rollback", "--confirm", LIVE)
    assert back.returncode == 0, back.stderr
    fault_env.assert_survived("restore")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_stopped_while_it_dumps_leaves_no_files(
    fault_env: FaultEnvironment, number: signal.Signals
) -> None:
    with dump_that_waits(fault_env) as process:
        children = process.children()
        process.process.send_signal(number)
        assert process.finish().returncode != 0
        assert alive(children) == {}
        assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["rehearse, restoring", "rehearse, comparing"])
def test_a_rehearsal_that_is_stopped_leaves_no_files(
    fault_env: FaultEnvironment, place: str, number: signal.Signals
) -> None:
    hold, when = CREATING[place]
    process = fault_env.start("backup", "create", hold=hold, when=when)
    children = process.children()
    assert "postgres" in children.values()
    process.process.send_signal(number)
    process.process.wait(LIMIT)
    assert process.finish().returncode != 0
    assert alive(children) == {}
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["restore", "in the exchange"])
def test_a_restore_that_is_stopped_does_not_change_the_live_database(
    fault_env: FaultEnvironment, place: str, number: signal.Signals
) -> None:
    hold, when = RESTORING[place]
    process = fault_env.start(
        "restore", "latest", "--confirm", LIVE, "--without-safety-backup", hold=hold, when=when
    )
    process.process.send_signal(number)
    process.process.wait(LIMIT)
    assert process.finish().returncode != 0
    assert fault_env.host.unfinished() == []
    fault_env.assert_survived("restore")
