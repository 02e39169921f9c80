"""The collector of the host: what it finds, and the job that writes the results."""

import importlib.util
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from cryptography import x509

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.host import Host, read_host
from occupancy_db.checks.model import Level, Result, Status
from provisioning.variables import ROLES

NOW = 1_764_245_000.0  # 2025-11-27 12:03:20 UTC
HOUR, DAY = 3600, 86400
ANSWERS = """#!/bin/sh
case "$*" in
  ps*) echo 0a1b2c ;;
  "container inspect"*) echo '[{"Name": "/occupancy-postgres-1", "RestartCount": 2, "State":
    {"Status": "running", "Health": {"Status": "healthy"}}}]' ;;
  "image inspect"*) echo '[{"Created": "2026-11-01T10:00:00.123456789Z"}]' ;;
esac
"""
STOPPED = "#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with a host in the directory of the test."""
    path = ROLES / "checks/files/occupancy-checks.py"
    spec = importlib.util.spec_from_file_location("occupancy_checks", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("data/status", "data/metrics", "data/notify", "cron.d", "opt/tls", "bin"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(module, "CRON", tmp_path / "cron.d")
    monkeypatch.setattr(module, "REQUEST", tmp_path / "checks.json")
    install(tmp_path / "bin/docker", ANSWERS)
    request = {
        "host": "home",
        "dir": str(tmp_path / "opt"),
        "data_dir": str(tmp_path / "data"),
        "interval": 300,
    }
    (tmp_path / "checks.json").write_text(json.dumps(request))
    (tmp_path / "opt/.env").write_text(
        "OCCUPANCY_DATABASE=occupancy\nOCCUPANCY_OTHER_DATABASES=recorder\nOCCUPANCY_POSTGRES_IMAGE=postgres:16\n"
    )
    (tmp_path / "opt/initialised").touch()
    (tmp_path / "opt/users.json").write_text(
        '[{"name": "app", "limit": 5, "settings": {"work_mem": 1}, "x": 1}]'
    )
    cron = tmp_path / "cron.d/occupancy-backup"
    cron.write_text(
        "# x\nSHELL=/bin/sh\n20 * * * * root occupancy-job backup 3000 occupancy-db backup create\n"
    )
    os.utime(cron, (NOW - 10 * DAY, NOW - 10 * DAY))
    (tmp_path / "data/metrics/occupancy_backup.prom").write_text(
        "# HELP x y\n"
        f'occupancy_job_last_start_timestamp_seconds{{job="backup"}} {NOW - 200:.0f}\n'
        f'occupancy_job_last_success_timestamp_seconds{{job="backup"}} {NOW - 100:.0f}\n'
        'occupancy_job_last_exit_code{job="backup"} 0\n'
        'occupancy_backup_sets{state="damaged"} 1\noccupancy_backup_free_bytes NaN\n'
    )
    monkeypatch.setattr(module.time, "time", lambda: NOW)
    return module


def install(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def collected(tmp_path: Path) -> Host:
    host = read_host(tmp_path / "data/status")
    assert host
    return host


def test_what_is_found_is_a_document_for_the_checks(program: ModuleType, tmp_path: Path) -> None:
    assert program.main("collect") == 0
    host = collected(tmp_path)
    assert (host.host, host.time.timestamp(), host.interval) == ("home", NOW, 300)
    assert host.databases == ("occupancy", "recorder")
    job = host.job("backup")
    assert job
    assert (job.missed, job.last_exit_code, job.last_success) == (
        0,
        0,
        datetime.fromtimestamp(NOW - 100, UTC),
    )
    assert (host.metric("occupancy_backup_sets", state="damaged"), host.offsite) == (1, False)
    (container,), (image,) = host.containers, host.images
    assert (container.name, container.health, container.restarts) == ("occupancy-postgres-1", "healthy", 2)
    assert (image.name, image.created.year) == ("postgres:16", 2026)
    assert host.users[0].settings == {"work_mem": "1"}
    assert host.disks
    assert host.engine == ""
    assert host.notify is None


def test_an_engine_that_does_not_answer_is_said_without_it(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "bin/docker", STOPPED)
    assert program.main("collect") == 1
    assert collected(tmp_path).engine == "Cannot connect to the Docker daemon"
    before = Status(
        datetime.now(UTC), "home", "1", (Result("cron", Level.GOOD, ""), Result("disk_free", Level.BAD, ""))
    )
    (tmp_path / "data/status/status.json").write_text(before.to_json())
    assert program.main("without-engine", "--json", "status") == 21
    found = Status.from_json(capsys.readouterr().out)
    levels = {one.name: one.level for one in found.results}
    assert levels["container"] == levels["server"] == Level.BAD
    assert levels["disk_free"] == Level.SKIPPED
    assert program.main("without-engine") == 21
    assert "systemctl start docker" in capsys.readouterr().out


def status(*results: Result) -> str:
    return Status(datetime.fromtimestamp(NOW, UTC), "home", "1", results).to_json()


def test_the_job_writes_results_and_metrics(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = (
        Result("server", Level.GOOD, "x"), Result("backup_age", Level.BAD, "x", value=9000.5),
        Result("offsite", Level.SKIPPED, "x"),
    )  # fmt: skip
    answer = {"text": status(*results), "code": 21}

    sent: list[object] = []

    def run(command: list[str], **options: Any) -> Any:
        if command[1:] == ["notify", "send"]:
            sent.append(answer["code"])  # after the evaluation, whatever its result
            raise program.subprocess.TimeoutExpired(command, options["timeout"])
        assert command[1:] == ["--json", "status", "--scheduled"]
        return program.subprocess.CompletedProcess(command, answer["code"], answer["text"], "no image")

    monkeypatch.setattr(program.subprocess, "run", run)
    assert program.main("run") == 0
    assert Status.from_json((tmp_path / "data/status/status.json").read_text()).level is Level.BAD
    lines = (tmp_path / "data/metrics/occupancy_check_results.prom").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'occupancy_check_level{check="server"} 1',
        'occupancy_check_level{check="backup_age"} 3',
        'occupancy_check_value{check="backup_age"} 9000.5',
        f"occupancy_checks_timestamp_seconds {NOW:.0f}",
    ]
    assert "bad: backup_age" in capsys.readouterr().out
    answer |= {"text": "", "code": 3}
    assert program.main("run") == 3
    assert "no image" in capsys.readouterr().out
    assert sent == [21, 3]
    assert Status.from_json((tmp_path / "data/status/status.json").read_text()).level is Level.BAD


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()  # local time, as cron's


@pytest.mark.parametrize(
    ("schedule", "since", "until", "expected"),
    [
        ("20 * * * *", "2026-11-27T10:30", "2026-11-27T12:19", 1),
        ("20 * * * *", "2026-11-27T10:30", "2026-11-27T12:20", 2),
        ("20 * * * *", "2026-11-27T12:30", "2026-11-27T12:20", 0),
        ("*/15 * * * *", "2026-11-27T23:59", "2026-11-28T00:46", 4),
        ("5 3 * * *", "2026-11-20T04:00", "2026-11-27T03:05", 7),
        ("40 4 * * 0", "2026-11-20T04:00", "2026-11-27T03:05", 1),  # Sunday, the 22nd
        ("40 4 * * 7", "2026-11-20T04:00", "2026-11-27T03:05", 1),
        ("0 12 1,15 * 5", "2026-11-10T00:00", "2026-11-21T00:00", 3),  # Friday, or the 15th
        ("0 0 1 1-3/2 *", "2026-01-01T00:00", "2026-03-01T00:00", 1),
        ("* * * * *", "2026-11-01T00:00", "2026-11-27T00:00", 99),
    ],
)
def test_missed_runs_are_counted(
    program: ModuleType, schedule: str, since: str, until: str, expected: int
) -> None:
    assert program.missed(schedule, at(since), at(until)) == expected


def test_a_run_counts_as_missed_when_its_time_limit_has_passed(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "data/metrics/occupancy_backup.prom").unlink()
    program.main("collect")
    (job,) = collected(tmp_path).jobs
    assert (job.missed, job.last_success) == (99, None)


def test_samples_of_the_disks_are_kept_for_a_trend(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"now": NOW}
    monkeypatch.setattr(program.time, "time", lambda: clock["now"])
    for hours in (0, 1, 3, 6):
        clock["now"] = NOW + hours * HOUR
        program.main("collect")
    times = [(one.time.timestamp() - NOW) / HOUR for one in collected(tmp_path).disks[0].history]
    assert times == [0, 3]
    clock["now"] = NOW - HOUR  # a clock that was ahead
    program.main("collect")
    clock["now"] = NOW + 40 * DAY
    program.main("collect")
    assert collected(tmp_path).disks[0].history == ()


def test_messages_that_wait_are_read_without_trust(program: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "data/notify/state.json"
    secret = tmp_path / "secret.json"
    text = json.dumps(
        {"pending": 2, "oldest_pending": "2026-11-27T10:00:00+00:00", "last_error": "x" * 999, "url": 1}
    )
    secret.write_text(text)
    state.symlink_to(secret)
    assert program.notifications(state) is None
    state.unlink()
    os.mkfifo(state)
    assert program.notifications(state) is None
    state.unlink()
    state.write_text(text)
    found = program.notifications(state)
    assert (found["pending"], len(found["last_error"]), set(found)) == (
        2,
        200,
        {"pending", "oldest_pending", "last_error"},
    )


def test_the_list_knows_the_checks_of_the_program() -> None:
    """without-engine names checks itself."""
    assert {"container", "server", "cron"} <= {check.name for check in CHECKS}


def test_the_ends_of_the_certificates_are_read(program: ModuleType, tmp_path: Path) -> None:
    end = datetime(2031, 3, 1, tzinfo=UTC)
    former, authority = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("localhost", not_after=end)
    tls = tmp_path / "opt/tls"
    leaf.private_key_and_cert_chain_pem.write_to_path(tls / "server.pem")
    for one in (former, authority):
        one.cert_pem.write_to_path(tls / "ca.crt", append=True)
    first = min(ca_end(one) for one in (former, authority))
    found = program.certificates(tls)
    assert found == {"server": end.isoformat(), "ca": first.isoformat()}
    (tls / "server.pem").write_text("")
    (tls / "ca.crt").unlink()
    assert program.certificates(tls) == {}


def ca_end(authority: trustme.CA) -> datetime:
    return x509.load_pem_x509_certificate(authority.cert_pem.bytes()).not_valid_after_utc
