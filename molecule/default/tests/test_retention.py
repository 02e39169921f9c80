"""The scheduled jobs: started by cron, one at a time, with a time limit, a log and metrics."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from tests.hosts import Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

TABLE = "/etc/cron.d/occupancy-retention"
METRICS = "/var/lib/occupancy/metrics"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module", autouse=True)
def ticking(host: Host) -> Iterator[None]:
    """A job that cron runs every minute. The last test of this file waits for it."""
    line = f"* * * * * root PATH={PATH} occupancy-job ticking 60 occupancy-db current\n"
    host.check_output("printf 'MAILTO=\"\"\n%%s' %s > /etc/cron.d/occupancy-ticking", line)
    yield
    host.check_output(
        f"rm -f /etc/cron.d/occupancy-ticking {METRICS}/occupancy_ticking.prom {METRICS}/occupancy_probe.prom"
    )


def scheduled(host: Host) -> dict[str, str]:
    """The command of each job in the crontab."""
    lines = re.findall(r"^(?:\S+ ){5}root (.+)$", host.file(TABLE).content_string, re.MULTILINE)
    return {line.split()[1]: line for line in lines}


def as_cron(host: Host, command: str) -> CommandResult:
    """Run a command without a terminal and with the environment that cron gives to a job."""
    return host.run(
        f"env -i HOME=/root LOGNAME=root SHELL=/bin/sh PATH={PATH} /bin/sh -c %s </dev/null", command
    )


def metrics(host: Host, job: str) -> dict[str, int]:
    """The values of the job's metric file, by the part of the name that differs."""
    text = host.file(f"{METRICS}/occupancy_{job}.prom").content_string
    found = re.findall(
        r'^occupancy_job_last_(\w+?)(?:_timestamp)?(?:_seconds)?\{job="(\w+)"\} (\d+)$', text, re.MULTILINE
    )
    assert {name for _, name, _ in found} == {job}
    assert text.count("# TYPE ") == text.count("# HELP ") == len(found) == 4
    return {name: int(value) for name, _, value in found}


def log(host: Host, job: str, *arguments: str) -> str:
    """The job's lines in the journal."""
    said: str = host.check_output(
        f"journalctl --sync; journalctl --quiet --output cat --identifier occupancy-{job} {' '.join(arguments)}"
    )
    return said


def test_the_crontab_has_the_jobs_of_the_inventory(host: Host) -> None:
    table = host.file(TABLE)
    assert (table.user, table.group, table.mode) == ("root", "root", 0o644)
    assert scheduled(host) == {
        "maintain": "occupancy-job maintain 600 occupancy-db partitions maintain --months-ahead 3 --months-back 12",
        "cleanup": "occupancy-job cleanup 3600 occupancy-db cleanup --no-dry-run --months 12 --transitions-months 24 --predictions-months 12",
        "users": "occupancy-job users 60 occupancy-users /opt/occupancy /run/occupancy/postgresql",
    }
    assert "\n*/15 * * * * root occupancy-job maintain" in table.content_string
    assert "\n5 3 * * * root occupancy-job cleanup" in table.content_string


def test_cleanup_by_hand_keeps_what_the_inventory_says(host: Host) -> None:
    shown = json.loads(host.check_output("occupancy-db --json cleanup"))
    assert {table: found["months"] for table, found in shown["tables"].items()} == {
        "sensor_readings": 12, "room_transitions": 24, "predictions": 12,
    }  # fmt: skip
    told = json.loads(host.check_output("occupancy-db cleanup --months 7 --json"))
    assert told["months"] == 7


def test_the_clock_is_checked_by_the_jobs_and_confirmed_by_the_user_of_sudo(host: Host) -> None:
    assert json.loads(host.check_output("occupancy-db clock status --json"))["contradiction"] is None
    confirmed = json.loads(host.check_output("SUDO_USER=ada occupancy-db clock confirm --json"))
    assert confirmed["confirmed_by"] == "ada"


def test_cron_runs_and_is_enabled_at_boot(host: Host) -> None:
    assert host.service("cron").is_running
    assert host.service("cron").is_enabled


def test_only_root_writes_metrics(host: Host) -> None:
    directory = host.file(METRICS)
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o755)


@pytest.mark.parametrize("job", ["maintain", "cleanup", "users"])
def test_a_job_in_the_environment_of_cron_succeeds_and_writes_metrics(host: Host, job: str) -> None:
    before = time.time() - 5  # the metrics are in whole seconds
    run = as_cron(host, scheduled(host)[job])
    if run.rc == 9:  # cron has just started the same job
        host.check_output(f"flock --wait 300 /run/occupancy/{job}.lock true")
        run = as_cron(host, scheduled(host)[job])
    assert run.rc == 0, run.stderr
    found = metrics(host, job)
    assert found["exit_code"] == 0
    assert before < found["start"] <= found["success"] == found["start"] + found["duration"]
    assert "ended with exit code 0" in log(host, job)
    assert host.file(f"{METRICS}/occupancy_{job}.prom").mode == 0o644  # the collector of the metrics reads it
    assert host.check_output(f"find {METRICS} -type f -not -name '*.prom'") == ""


def test_a_user_that_lifts_its_limit_is_put_right_and_named(host: Host, server: Server) -> None:
    server.query("occupancy_app", "ALTER ROLE occupancy_app SET statement_timeout = 0")
    assert server.query("occupancy_app", "SHOW statement_timeout") == [("0",)]
    assert as_cron(host, scheduled(host)["users"]).rc == 13
    assert metrics(host, "users")["exit_code"] == 13
    said = log(host, "users", "--priority", "warning..warning")
    assert "user occupancy_app had changed its settings: statement_timeout=0" in said
    assert server.query("occupancy_app", "SHOW statement_timeout") == [("1min",)]
    assert as_cron(host, scheduled(host)["users"]).rc == 0


def test_the_partitions_of_the_coming_months_and_of_a_year_back_exist(host: Host) -> None:
    found = json.loads(host.check_output("occupancy-db partitions status --json"))
    now = datetime.now(UTC)
    coming = [divmod(now.year * 12 + now.month - 1 + ahead, 12) for ahead in range(-12, 4)]
    names = {month["name"] for month in found["months"] if month["attached"]}
    assert {f"sensor_readings_{year}_{month + 1:02}" for year, month in coming} <= names
    assert found["plan"] == []


@pytest.mark.parametrize(("code", "severity"), [(5, "err"), (9, "warning")])
def test_a_failed_job_is_logged_and_keeps_the_time_of_the_last_success(
    host: Host, code: int, severity: str
) -> None:
    assert as_cron(host, "occupancy-job probe 60 echo works").rc == 0
    success = metrics(host, "probe")["success"]
    # The times are in whole seconds, and the failure must be of a later second than the success.
    now = wait_for(
        lambda: now if (now := int(host.check_output("date +%s"))) > success else 0, "the next second"
    )
    since = f"@{now}"
    run = as_cron(host, f"occupancy-job probe 60 sh -c 'echo broken; exit {code}'")
    assert run.rc == code
    found = metrics(host, "probe")
    assert found["exit_code"] == code
    assert found["success"] == success < found["start"]
    assert "broken" in log(host, "probe", "--since", since)
    line = f"ended with exit code {code}"
    assert line in log(host, "probe", "--since", since, "--priority", f"{severity}..{severity}")


def test_a_job_that_overlaps_is_skipped(host: Host) -> None:
    host.check_output("occupancy-job probe 60 true")
    before = metrics(host, "probe")
    host.check_output(
        "rm -f /run/started /run/continue; "
        "(occupancy-job probe 300 sh -c 'date +%s >/run/started; until test -e /run/continue; do sleep 0.1; done' >/dev/null 2>&1 &)"
    )
    wait_for(lambda: host.file("/run/started").exists, "the first job")
    run = as_cron(host, "occupancy-job probe 60 touch /run/overlapped")
    assert run.rc == 9
    assert "skipped" in log(host, "probe")
    assert not host.file("/run/overlapped").exists
    assert metrics(host, "probe") == before  # the first job writes them when it ends
    wait_for(lambda: host.run("test $(date +%s) -gt $(cat /run/started)").rc == 0, "a duration of a second")
    host.check_output("touch /run/continue")
    assert host.check_output("flock --wait 300 /run/occupancy/probe.lock echo free") == "free"
    assert metrics(host, "probe")["duration"] >= 1


def test_a_job_that_exceeds_its_time_ends_with_its_container_and_session(
    host: Host, superuser: Callable[[str], str]
) -> None:
    wait = (
        "import asyncio; from sqlalchemy import text; from occupancy_db.connection import connect; from occupancy_db.settings import Settings\n"
        "async def main():\n"
        "    async with connect(Settings(), 'too long') as connection:\n"
        "        await connection.execute(text('SELECT pg_sleep(600)'))\n"
        # As the command line does; the init process passes the signal on.
        "import signal; signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))\n"
        "asyncio.run(main())\n"
    )
    host.check_output("printf %%s %s > /run/too-long.py", wait)
    compose = "docker compose --project-directory /opt/occupancy run --rm --no-deps -T"
    command = f'{compose} --name "$OCCUPANCY_CONTAINER" --entrypoint python3 ops -c "$(cat /run/too-long.py)"'
    host.check_output("printf %%s %s > /run/too-long.sh", command)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'too long'"
    containers = "docker ps --all --quiet --filter name=occupancy-database-probe"

    def ended() -> bool:
        return bool(host.run("flock --nonblock /run/occupancy/probe.lock true").rc == 0)

    # On a busy machine the container may not have started within the first limits.
    for limit in (15, 60, 240):
        host.check_output(
            f"rm -f /run/started; (occupancy-job probe {limit} sh -c 'touch /run/started; exec sh /run/too-long.sh' >/run/too-long.log 2>&1 &)"
        )
        wait_for(lambda: host.file("/run/started").exists, "the job")
        wait_for(lambda: superuser(sessions) == "1" or ended(), "its session")
        if superuser(sessions) == "1":
            break
    else:
        pytest.fail(f"the job had no session within {limit} s: {host.check_output('cat /run/too-long.log')}")
    assert len(host.check_output(containers).split()) == 1
    host.check_output("flock --wait 400 /run/occupancy/probe.lock true")
    assert (superuser(sessions), host.check_output(containers)) == ("0", "")
    assert metrics(host, "probe")["exit_code"] == 124
    assert host.run("pgrep -f 'too[-]long'").rc != 0


@pytest.mark.any_release  # the scenario backup waits for cron on Debian 12
def test_cron_runs_what_is_scheduled(host: Host) -> None:
    wait_for(
        lambda: host.file(f"{METRICS}/occupancy_ticking.prom").exists,
        "a job of cron's",
        interval=1,
        explain=lambda: host.check_output("journalctl --unit cron --lines 20"),
    )
    assert metrics(host, "ticking")["exit_code"] == 0, log(host, "ticking")
    assert "(head)" in log(host, "ticking")
