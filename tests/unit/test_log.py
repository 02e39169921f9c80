"""occupancy-db log: lines as the server, the journal and syslog write them, and what is left out of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from occupancy_db.cli import log as command
from provisioning.variables import ROLES

SCRIPT = ROLES / "postgres/files/occupancy-log.py"
# PostgreSQL 16.14 has written them.
SERVER = (Path(__file__).parent / "server_log.jsonl").read_text()
DAY = "2026-11-27T00:00:00Z"

# As `journalctl --output=json` prints them
JOURNAL: list[dict[str, Any]] = [
    {
        "__REALTIME_TIMESTAMP": "1795787554900000",  # 2026-11-27 13:52:34.9
        "SYSLOG_IDENTIFIER": "occupancy-backup",
        "PRIORITY": "5",
        "MESSAGE": "copying to sftp://keeper:hunter2-h@store/homes",
    },
    {
        "__REALTIME_TIMESTAMP": "1795787555000000",
        "SYSLOG_IDENTIFIER": "occupancy-backup",
        "PRIORITY": "3",
        "MESSAGE": "ended with exit code 11 after 2 s",
    },
    {
        "__REALTIME_TIMESTAMP": "1795787556000000",
        "SYSLOG_IDENTIFIER": "occupancy-checks",
        "PRIORITY": "5",
        "MESSAGE": "ended with exit code 0 after 1 s",
    },
    {
        "__REALTIME_TIMESTAMP": "1795787557000000",
        "SYSLOG_IDENTIFIER": "occupancy-cleanup",
        "PRIORITY": "4",
        "MESSAGE": [0x73, 0x6B, 0x69, 0x70, 0xFF],
    },
]

SYSLOG = """\
2026-11-27T14:52:34.900000+01:00 home occupancy-maintain: skipped: the previous run has not ended yet
2026-11-27T14:52:35+01:00 home cron[7]: (root) CMD (occupancy-job maintain)
2026-11-27T13:52:36Z home occupancy-maintain[812]: ended with exit code 9 after 0 s
2026-11-27T13:52:37Z home occupancy-backup: error: password=hunter2-i is wrong
"""


def load() -> ModuleType:
    spec = spec_from_file_location("occupancy_log", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


log = load()


class Host:
    """The directories of a host, the program for them, and a stub in place of journalctl.

    A machine that runs the tests may have no journal; molecule/default reads that of a host.
    """

    def __init__(self, place: Path) -> None:
        self.data, self.journal, self.syslog = place / "data", place / "journal", place / "syslog"
        self.log = self.data / "log"
        self._bin = place / "bin"
        for directory in (self.log, self.journal, self._bin, place / "opt"):
            directory.mkdir(parents=True)
        (place / "opt/.env").write_text(f"OCCUPANCY_DATA_DIR={self.data}\n")
        self._program = place / "occupancy-log"
        text = SCRIPT.read_text().replace("/opt/occupancy", str(place / "opt"))
        text = text.replace("/var/log/journal", str(self.journal)).replace("/run/log/journal", "/none")
        text = text.replace("/var/log/syslog", str(self.syslog)).replace("/var/log/messages", "/none")
        self._program.write_text(text)
        self.write_journal(JOURNAL)
        (self.log / "postgresql-2026-11-27_135234.json").write_text(SERVER)

    def write_journal(self, entries: list[dict[str, Any]]) -> None:
        lines = self._bin / "entries"
        lines.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        names = "\n".join({str(entry["SYSLOG_IDENTIFIER"]) for entry in entries} | {"sshd", "occupancy"})
        stub = f"#!/bin/sh\ncase $* in *--field=*) echo '{names}' ;; *) cat {lines} ;; esac\n"
        (self._bin / "journalctl").write_text(stub)
        (self._bin / "journalctl").chmod(0o755)

    def run(self, *arguments: str, command: str = "log") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, self._program, command, *arguments],
            env=os.environ | {"PATH": f"{self._bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    def entries(self, *arguments: str) -> list[dict[str, str]]:
        done = self.run("--json", "--since", DAY, *arguments)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)["entries"]
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_server_and_jobs_are_in_order_of_time(host: Host) -> None:
    found = host.entries()
    assert [one["time"] for one in found] == sorted(one["time"] for one in found)
    sources = [one["source"] for one in found]
    assert sources[0] == "server"
    assert sources.index("backup") < len(sources) - 1 - sources[::-1].index("server")


def test_lines_are_short_and_say_what_happened(host: Host) -> None:
    done = host.run("--since", DAY)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        "2026-11-27 13:52:34 UTC  notice   server        LOG: database system is ready to accept connections"
        in lines
    )
    assert "2026-11-27 13:52:35 UTC  error    backup        ended with exit code 11 after 2 s" in lines
    assert any(
        'violates unique constraint "t_pkey"; Key (id)=(1) already exists.; statement: CREATE TABLE t' in line
        and line.endswith("[user=postgres dbname=postgres application_name=psql]")
        for line in lines
    )
    assert "skip�" in done.stdout


def test_no_line_shows_a_secret(host: Host) -> None:
    for options in ((), ("--json",)):
        done = host.run("--since", DAY, "--level", "info", *options)
        assert done.stdout.count("not shown: the statement may have a password") == 3
        assert "hunter2" not in done.stdout
        assert "'::text, pg_sleep(0.15)" in done.stdout


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"message": 'password authentication failed for user "x"', "state_code": "28P01"}, "password auth"),
        ({"message": "m", "statement": "SELECT E'a\\'b', 'hunter2'"}, "m; statement: SELECT E…"),
        ({"message": "m", "statement": "SELECT $a$hunter2$a$, $b$hunter2"}, "m; statement: SELECT '…', '…'"),
        ({"message": "m", "context": "PL/pgSQL: ALTER ROLE x PASSWORD 'hunter2'"}, "(not shown"),
        (
            {"message": "m", "detail": "Process 7: UPDATE t SET a = 'hunter2'"},
            "m; Process 7: UPDATE t SET a = '…'",
        ),
        ({"message": "duration: 9 ms  statement: CREATE USER x PASSWORD 'hunter2'"}, "(not shown"),
    ],
)
def test_a_message_of_the_server_is_shown_without_literals(said: dict[str, str], shown: str) -> None:
    text = log.described(said)
    assert shown in text
    assert "hunter2" not in text


@pytest.mark.parametrize(("level", "least"), [("info", 18), ("notice", 16), ("warning", 8), ("error", 7)])
def test_a_level_leaves_out_what_is_less(host: Host, level: str, least: int) -> None:
    found = host.entries("--level", level)
    assert len(found) == least, [(one["level"], one["text"]) for one in found]
    levels = ["info", "notice", "warning", "error"]
    assert all(levels.index(one["level"]) >= levels.index(level) for one in found)


def test_jobs_of_a_host_with_syslog(host: Host) -> None:
    host.journal.rmdir()
    host.syslog.write_text(SYSLOG)
    found = [(one["time"], one["level"], one["text"]) for one in host.entries() if one["source"] != "server"]
    assert found == [
        ("2026-11-27T13:52:34.900000+00:00", "warning", "skipped: the previous run has not ended yet"),
        ("2026-11-27T13:52:36+00:00", "warning", "ended with exit code 9 after 0 s"),
        ("2026-11-27T13:52:37+00:00", "error", "error: password=… is wrong"),
    ]


def test_syslog_without_years_and_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        written = datetime(2027, 1, 2, tzinfo=UTC)
        old = log.syslog_entry(
            "Dec  9 10:00:00 home occupancy-backup: ended with exit code 0 after 2 s", written
        )
        new = log.syslog_entry(
            "Jan  1 10:00:00 home occupancy-backup: ended with exit code 0 after 2 s", written
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (old.time, new.time) == (
        datetime(2026, 12, 9, 9, tzinfo=UTC),
        datetime(2027, 1, 1, 9, tzinfo=UTC),
    )


def test_a_host_without_any_log_says_so(host: Host) -> None:
    host.journal.rmdir()
    for file in host.log.iterdir():
        file.unlink()
    host.log.rmdir()
    done = host.run("--since", DAY)
    assert done.returncode == 0
    assert "There is no log of the server" in done.stderr
    assert "neither a journal nor a syslog" in done.stderr
    assert done.stdout.startswith("Nothing at level notice or above from 2026-11-27 00:00:00")


def test_incomplete_lines_links_and_pipes_are_passed_over(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text(SERVER)
    (host.log / "postgresql-2026-11-28_000000.json").symlink_to(tmp_path / "shadow")
    os.mkfifo(host.log / "postgresql-2026-11-29_000000.json")
    before = host.entries()
    with (host.log / "postgresql-2026-11-27_135234.json").open("a") as file:
        file.write('{"timestamp":"2026-11-27 13:52')
    assert host.entries() == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("yesterday", "2026-11-26T00:00:00+00:00"),
        ("today", "2026-11-27T00:00:00+00:00"),
        ("now", "2026-11-27T13:00:00+00:00"),
        ("2026-11-20T10:00:00+01:00", "2026-11-20T09:00:00+00:00"),
        ("2026-11-20 10:00", "2026-11-20T10:00:00+00:00"),
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),
    ],
)
def test_times(text: str, found: str) -> None:
    assert log.moment("--since", text, datetime(2026, 11, 27, 13, tzinfo=UTC)).isoformat() == found


def test_a_wrong_time_is_named(host: Host) -> None:
    done = host.run("--since", "someday")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --since someday is not a time. Write it as in --since 2026-")
    done = host.run("--json", "--until", "someday")
    assert json.loads(done.stderr)["error"]["exit_code"] == 2


def test_old_files_of_the_server_are_removed_and_those_in_use_stay(host: Host) -> None:
    for day in range(10, 24):
        with (host.log / f"postgresql-2026-11-{day}_000000.json").open("wb") as file:
            file.truncate(10 * 2**20)
    old = host.log / "postgresql-2026-10-01_000000.log"
    old.touch()
    os.utime(old, (0, 0))
    newest = host.log / "postgresql-2026-11-27_135234.json"
    os.utime(newest, (0, 0))
    assert host.run(command="tidy").returncode == 0
    left = sorted(file.name for file in host.log.iterdir())
    assert left[-1] == newest.name
    assert left[0] == "postgresql-2026-11-15_000000.json"
    assert sum(file.stat().st_size for file in host.log.iterdir()) <= log.KEPT_BYTES


def test_a_server_that_starts_again_and_again_leaves_no_more_than_so_many_files(host: Host) -> None:
    for number in range(log.KEPT_FILES + 9):
        (host.log / f"postgresql-2026-11-25_{number:06}.log").touch()
    assert host.run(command="tidy").returncode == 0
    assert len(list(host.log.iterdir())) == log.KEPT_FILES


def test_the_help_of_occupancy_db_has_the_options_and_defaults_of_the_program(host: Host) -> None:
    found = {name: field.default for name, field in signature(command.log).parameters.items()}
    assert vars(log.arguments(["log"])) == found | {"command": "log", "level": str(found["level"])}
    assert tuple(command.LogLevel) == log.LEVELS
    assert "--since TIME" in host.run("--help").stdout
