"""Each check turns bad and good again, decided by documents alone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.checks import thresholds
from occupancy_db.checks.catalogue import BY_NAME, CHECKS
from occupancy_db.checks.evaluation import EVALUATIONS, evaluate
from occupancy_db.checks.evidence import Evidence
from occupancy_db.checks.facts import Connections, Facts, Ingest, Lifted, Schema, Silent, usual
from occupancy_db.checks.host import Host
from occupancy_db.checks.model import Level, Result, Status
from occupancy_db.checks.of_server import seconds
from occupancy_db.history.clock import ClockState

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
DAY = 86400
GB = 10**9


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def metric(name: str, value: float, **labels: str) -> dict[str, Any]:
    return {"name": f"occupancy_{name}", "labels": labels, "value": value}


def job(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "missed": 0,
        "last_success": ago(600),
        "last_start": ago(610),
        "last_exit_code": 0,
        **changes,
    }


def disk(free_now: float, free_before: float, days: int = 10) -> dict[str, Any]:
    history = [
        {"time": ago(age * DAY), "free": int((free_now + (free_before - free_now) * age / days) * GB)}
        for age in range(days, 0, -1)
    ]
    return {"path": "/var/lib/occupancy", "size": 100 * GB, "free": int(free_now * GB), "history": history}


def timestamp(seconds: float) -> float:
    return (NOW - timedelta(seconds=seconds)).timestamp()


HOST: dict[str, Any] = {
    "time": ago(0),
    "host": "home",
    "installed": ago(100 * DAY),
    "cron": True,
    "synchronised": True,
    "databases": ["occupancy"],
    "offsite": True,
    "jobs": [job("backup"), job("maintain"), job("users"), job("check-schema"), job("checks")],
    "disks": [disk(50, 50)],
    "certificates": {"server": ago(-400 * DAY), "ca": ago(-3000 * DAY)},
    "containers": [{"name": "occupancy-postgres-1", "state": "running", "health": "healthy"}],
    "images": [{"name": "ops", "created": ago(10 * DAY)}],
    "metrics": [
        metric("backup_last_success_timestamp_seconds", timestamp(1200)),
        metric("backup_last_verified_timestamp_seconds", timestamp(1100)),
        metric("backup_sets", 0, state="damaged"),
        metric("offsite_last_copy_timestamp_seconds", timestamp(900)),
    ],
    "notify": {"pending": 0, "oldest_pending": None, "last_error": ""},
    "users": [{"name": "occupancy_app", "connections": 20, "settings": {"statement_timeout": "1min",
               "idle_in_transaction_session_timeout": "15min"}}],
}  # fmt: skip

SETTINGS: set[tuple[str | None, str]] = {
    (None, "statement_timeout=1min"), (None, "idle_in_transaction_session_timeout=15min"),
}  # fmt: skip
CLOCK = ClockState(NOW, NOW, "maintain", None, None, NOW, None)
FACTS = Facts(
    version="16.10",
    schema=Schema("014", "014", known=True, pending=0),
    ingest=Ingest(rows=900, usual=1000),
    silent=Silent(0, None),
    stale_zones=0,
    rows_since=300,
    clock=CLOCK,
    connections=Connections(10, 100, {"occupancy_app": (5, 20)}),
    lifted=Lifted({"occupancy_app": SETTINGS}, {"occupancy_app": 20}),
    slow=(0.2,),
)


def results(facts: Facts = FACTS, previous: Status | None = None, **host: Any) -> dict[str, Result]:
    document = Host.model_validate(HOST | host)
    previous = previous or Status(NOW - timedelta(seconds=200), "home", "1", ())
    return {
        one.name: one for one in evaluate(CHECKS, Evidence(NOW, document, facts, previous), "x", "1").results
    }


def metrics(name: str, value: float | None, **labels: str) -> dict[str, Any]:
    """The metrics of the host with another value, or without that one."""
    others = [one for one in HOST["metrics"] if one["name"] != f"occupancy_{name}"]
    return {"metrics": others + ([metric(name, value, **labels)] if value is not None else [])}


def jobs(name: str, **changes: Any) -> dict[str, Any]:
    return {"jobs": [job(one["name"], **(changes if one["name"] == name else {})) for one in HOST["jobs"]]}


def facts(**changes: Any) -> Callable[[], dict[str, Result]]:
    return lambda: results(replace(FACTS, **changes))


def host(**changes: Any) -> Callable[[], dict[str, Result]]:
    return lambda: results(**changes)


BAD, WARNING, SKIPPED = Level.BAD, Level.WARNING, Level.SKIPPED
STALE = Status(NOW - timedelta(seconds=1000), "home", "1", ())
KEPT = {"occupancy_app": SETTINGS}
LIFTED = Lifted({"occupancy_app": {(None, "statement_timeout=0")}}, {"occupancy_app": 20})
OPEN = replace(FACTS.lifted, sessions={"occupancy_app": [1000.0]}) if FACTS.lifted else None

CASES = [
    ("server", BAD, "refused", lambda: results(Facts(unreachable="connection refused"))),
    ("container", BAD, "unhealthy", host(containers=[HOST["containers"][0] | {"health": "unhealthy"}])),
    ("container", BAD, "exited", host(containers=[HOST["containers"][0] | {"state": "exited"}])),
    ("container", BAD, "no container", host(containers=[])),
    ("container", BAD, "Engine", host(engine="it is stopped")),
    ("schema", BAD, "does not know", facts(schema=Schema("015", "014", known=False, pending=0))),
    ("schema", WARNING, "2 migrations", facts(schema=Schema("012", "014", known=True, pending=2))),
    ("drift", BAD, "differs", host(**jobs("check-schema", last_exit_code=13))),
    ("drift", WARNING, "3 days", host(**jobs("check-schema", last_success=ago(3 * DAY)))),
    ("ingest", BAD, "0 readings", facts(ingest=Ingest(0, 1000))),
    ("ingest", WARNING, "40 %", facts(ingest=Ingest(400, 1000))),
    ("ingest", SKIPPED, "a week", facts(ingest=Ingest(400, None))),
    ("ingest", SKIPPED, "too few", facts(ingest=Ingest(0, 3))),
    ("silent_sensors", WARNING, "1 sensor silent", facts(silent=Silent(1, 7200))),
    ("silent_sensors", BAD, "never", facts(silent=Silent(4, None))),
    ("stale_zones", WARNING, "2 zones", facts(stale_zones=2)),
    ("checks", BAD, "16 min ago", lambda: results(previous=STALE)),
    ("checks", BAD, "not scheduled", host(jobs=[job("backup")])),
    ("cron", BAD, "does not run", host(cron=False)),
    ("jobs", BAD, "backup", host(**jobs("backup", last_exit_code=11, missed=1))),
    ("jobs", WARNING, "maintain", host(**jobs("maintain", missed=2))),
    ("jobs", BAD, "maintain", host(**jobs("maintain", missed=5))),
    ("jobs", BAD, "no job", host(jobs=[])),
    ("backup_age", WARNING, "3 h ago: a loss now costs 3 h, 300 readings",
     host(**metrics("backup_last_success_timestamp_seconds", timestamp(3 * 3600)))),
    ("backup_age", BAD, "8 h", host(**metrics("backup_last_success_timestamp_seconds", timestamp(8 * 3600)))),
    ("backup_age", BAD, "no verified set", host(**metrics("backup_last_success_timestamp_seconds", None))),
    ("backup_age", BAD, "of recorder", host(databases=["occupancy", "recorder"])),
    ("backup_age", WARNING, "no backups", host(jobs=[job("maintain")])),
    ("backup_verified", BAD, "8 days",
     host(**metrics("backup_last_verified_timestamp_seconds", timestamp(8 * DAY)))),
    ("backup_damaged", BAD, "1 damaged", host(**metrics("backup_sets", 1, state="damaged"))),
    ("offsite", BAD, "2 days", host(**metrics("offsite_last_copy_timestamp_seconds", timestamp(2 * DAY)))),
    ("offsite", BAD, "no copy yet", host(**metrics("offsite_last_copy_timestamp_seconds", None))),
    ("offsite", SKIPPED, "configured", host(offsite=False)),
    ("disk_free", WARNING, "10 %", host(disks=[disk(10, 10)])),
    ("disk_free", BAD, "4 %", host(disks=[disk(4, 4)])),
    ("disk_full", BAD, "in 5 days", host(disks=[disk(20, 60)])),
    ("disk_full", WARNING, "in 20 days", host(disks=[disk(20, 30)])),
    ("disk_full", SKIPPED, "after a day", host(disks=[disk(20, 30) | {"history": []}])),
    ("certificate", BAD, "5 days left", host(certificates={"server": ago(-5.5 * DAY)})),
    ("certificate", BAD, "ended", host(certificates={"server": ago(DAY)})),
    ("certificate", BAD, "could not", host(certificates={})),
    ("ca", WARNING, "100 days left", host(certificates={"ca": ago(-100.5 * DAY)})),
    ("clock", BAD, "never set", facts(clock=replace(CLOCK, contradiction="it was never set"))),
    ("clock", BAD, "backup", host(**jobs("backup", last_start=ago(-3600)))),
    ("clock", WARNING, "not synchronised", host(synchronised=False)),
    ("connections", BAD, "server has 100 of 100", facts(connections=Connections(100, 100, {}))),
    ("connections", WARNING, "app has 17", facts(connections=Connections(17, 100, {"app": (17, 20)}))),
    ("limits", WARNING, "occupancy_app", facts(lifted=LIFTED)),
    ("limits", WARNING, "occupancy_app", facts(lifted=Lifted(KEPT, {"occupancy_app": -1}))),
    ("limits", WARNING, "occupancy_app", facts(lifted=OPEN)),
    ("slow_statements", WARNING, "2 statements", facts(slow=(2.5, 1.5, 0.1))),
    ("notifications", WARNING, "2 messages for 20 min; receiver 1 (json): timeout",
     host(notify={"pending": 2, "oldest_pending": ago(1200), "last_error": "receiver 1 (json): timeout"})),
    ("notifications", BAD, "1 message for", host(notify={"pending": 1, "oldest_pending": ago(-2 * DAY)})),
    ("notifications", SKIPPED, "nobody", host(notify=None)),
    ("image_age", WARNING, "200 days", host(images=[{"name": "ops", "created": ago(200 * DAY)}])),
    ("image_age", BAD, "400 days", host(images=[{"name": "ops", "created": ago(400 * DAY)}])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "words", "broken"), CASES)
def test_a_check_notices_a_fault_and_its_end(
    name: str, level: Level, words: str, broken: Callable[[], dict[str, Result]]
) -> None:
    found = broken()[name]
    assert (found.level, words in found.summary) == (level, True), found
    assert results()[name].level is Level.GOOD


def test_every_check_is_made_and_has_a_case() -> None:
    assert set(EVALUATIONS) == set(BY_NAME)
    assert {name for name, *_ in CASES} == set(BY_NAME)
    assert all(one.level is Level.GOOD for one in results().values()), results()


def test_without_a_server_its_checks_are_skipped_and_those_of_the_host_are_made() -> None:
    found = results(Facts(unreachable="connection refused"))
    assert [name for name, one in found.items() if one.level is Level.BAD] == ["server"]
    skipped = {name for name, one in found.items() if one.level is Level.SKIPPED}
    assert skipped == {
        "schema", "ingest", "silent_sensors", "stale_zones", "connections", "limits", "slow_statements",
    }  # fmt: skip


def test_without_a_collector_the_server_is_checked() -> None:
    found = evaluate(CHECKS, Evidence(NOW, None, FACTS), "laptop", "1")
    assert found.host == "laptop"
    assert found.level is Level.GOOD
    assert {one.name for one in found.results if one.level is Level.GOOD} >= {
        "server",
        "schema",
        "ingest",
        "clock",
    }


def test_what_could_not_be_asked_is_a_warning() -> None:
    found = results(replace(FACTS, silent=None, problems={"silent": "the server took too long to answer"}))
    assert found["silent_sensors"].level is Level.WARNING
    assert "too long" in found["silent_sensors"].summary


def test_no_job_fails_that_was_skipped_or_has_put_a_limit_right() -> None:
    assert results(**jobs("backup", last_exit_code=9))["jobs"].level is Level.GOOD
    assert results(**jobs("users", last_exit_code=13))["jobs"].level is Level.GOOD


def test_a_level_keeps_the_time_at_which_it_began() -> None:
    began = NOW - timedelta(hours=2)
    before = (Result("cron", Level.BAD, "", since=began), Result("server", Level.BAD, "", since=began))
    found = results(cron=False, previous=Status(NOW - timedelta(minutes=5), "home", "1", before))
    assert found["cron"].since == began
    assert found["server"].since == NOW


def test_an_old_document_says_so_where_it_is_read() -> None:
    status = Status(
        NOW, "home", "1", (Result("checks", Level.GOOD, ""), Result("cron", Level.GOOD, "")), interval=60
    )
    assert status.as_read(NOW + timedelta(seconds=170)) == status
    stale = status.as_read(NOW + timedelta(seconds=190))
    assert (stale.level, [one.name for one in stale.results]) == (Level.BAD, ["checks", "cron"])
    assert "future" in status.as_read(NOW - timedelta(hours=1)).results[0].summary


def test_the_usual_is_the_median_of_the_weeks() -> None:
    starts = [NOW - timedelta(weeks=week) for week in (1, 2, 3)]
    sums: dict[datetime, int] = {}
    for start, rows in zip(starts, (100, 1000, 140), strict=True):
        hour = start.replace(minute=0)
        sums |= {hour: rows, hour + timedelta(hours=1): rows + 20}
    assert usual(starts, sums) == 150
    assert usual([], sums) is None
    assert usual(starts[:1], {}) == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("1min", 60), ("500", 0.5), ("0", None), ("2 h", 7200), ("soon", None), ("", None)],
)
def test_times_of_postgresql(setting: str, expected: float | None) -> None:
    assert seconds(setting) == expected


def test_a_file_of_thresholds_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / thresholds.THRESHOLDS).write_text("[]")
    with pytest.raises(ValueError, match="is not a mapping of checks to thresholds"):
        thresholds.read(tmp_path)
