"""The job of the checks sends messages from a container that reaches receivers, and nothing of the database."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from occupancy_db.checks.catalogue import BY_NAME
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

# Keeps what it gets; the port is that of occupancy_notify in the inventory.
RECEIVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        with open("/run/received", "a") as file:
            print(self.path, body, file=file)
        self.send_response(200)
        self.end_headers()
    do_GET = do_POST
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 18999), Handler).serve_forever()
"""
SECRET = "5ecret"
URLS = "/opt/occupancy/notify/urls"
STATE = "/var/lib/occupancy/notify/state.json"

SECRETS = "/opt/occupancy/secrets"
TLS = "/opt/occupancy/tls"
SENSORS = "binary_sensor.never_1 binary_sensor.never_2 binary_sensor.never_3"
SQL = "docker exec --user 999 occupancy-postgres-1 psql --host=/var/run/postgresql -qX --dbname=occupancy --command"

FAULTS = {
    "server": (
        "docker stop occupancy-postgres-1",
        "docker compose --project-directory /opt/occupancy up --detach --wait postgres",
    ),
    # A backup that fails
    "jobs": (
        f"cp -p {SECRETS}/occupancy_backup /run/kept; echo wrong >{SECRETS}/occupancy_backup; ! occupancy-job backup 600 "
        "occupancy-db backup create",
        f"cp -p /run/kept {SECRETS}/occupancy_backup; occupancy-job backup 600 occupancy-db backup create",
    ),
    "certificate": (
        f"cp -p {TLS}/server.pem /run/kept; openssl req -x509 -newkey rsa:2048 -noenc -days 5 -subj /CN=ends "
        f"-keyout /run/key -out {TLS}/server.pem",
        f"cp -p /run/kept {TLS}/server.pem",
    ),
    "silent_sensors": (
        f"for one in {SENSORS}; do occupancy-db sensors set $one --room office --zone desk "
        "--since 2026-01-01 --max-silence '1 day' </dev/null; done",
        f"for one in {SENSORS}; do occupancy-db sensors remove $one </dev/null; done",
    ),
    # As after a day in which the clock was a week ahead
    "clock": (
        f'{SQL} "INSERT INTO hourly.clock (number, checked_at, job) '
        "SELECT max(number) + 1, now() + interval '7 days', 'maintain' FROM hourly.clock\"",
        f"{SQL} 'DELETE FROM hourly.clock WHERE checked_at > now()'",
    ),
    # The disk of this host cannot be filled without that of the machine: its free space is below the limit.
    "disk_free": (
        """echo '{"disk_free": {"warning": 100, "bad": 99.9}}' >/var/lib/occupancy/status/thresholds.json""",
        "echo '{}' >/var/lib/occupancy/status/thresholds.json",
    ),
}
"""By the check: what breaks it, and what mends it."""


@pytest.fixture(scope="module")
def receiver(host: Host) -> Iterator[None]:
    host.check_output("touch /run/received")
    host.check_output("systemd-run --unit=receiver python3 -c %s", RECEIVER)
    wait_for(lambda: host.socket("tcp://0.0.0.0:18999").is_listening, "the receiver listens")
    yield
    host.check_output("systemctl stop receiver")


def messages(host: Host) -> list[dict[str, str]]:
    lines = host.check_output("cat /run/received").splitlines()
    return [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("/tk-5ecret ")]


def titles(host: Host) -> list[str]:
    return [one["title"] for one in messages(host)]


def run_checks(host: Host) -> str:
    schedule = host.file("/etc/cron.d/occupancy-checks").content_string
    command = re.search(r"root (occupancy-job checks .+)$", schedule, re.MULTILINE)
    assert command
    # A run of cron's may be active.
    ran = wait_for(
        lambda: run if (run := host.run(f"{command[1]} 2>&1")).rc == 0 else None, "a run of the checks"
    )
    return str(ran and ran.stdout)


def test_a_message_comes_when_a_check_turns_bad_and_when_it_is_good_again(host: Host, receiver: None) -> None:
    del receiver
    assert host.check_output("occupancy-db notify test </dev/null").splitlines() == [
        "receiver 1 (json): sent",
        "heartbeat: sent",
    ]
    assert titles(host)[-1:] == ["occupancy-backup: test of the notifications"]
    run_checks(host)  # what waits comes now
    before = len(titles(host))
    host.check_output("systemctl stop cron")
    try:
        printed = run_checks(host)
        assert "check" in titles(host)[before:][-1]
        assert "cron runs: does not run" in host.check_output("cat /run/received")
    finally:
        host.check_output("systemctl start cron")
    for _ in range(2):
        printed += run_checks(host)
    assert "No longer bad:" in messages(host)[-1]["message"]
    assert "/beat-5ecret" in host.check_output("cat /run/received")
    shown = json.loads(host.check_output(f"cat {STATE}"))
    assert (shown["pending"], shown["last_error"]) == (0, "")
    assert SECRET not in printed + json.dumps(shown)


def level(host: Host, check: str) -> tuple[str, float]:
    """The level of a check in the results, and in the metrics."""
    status = json.loads(host.check_output("cat /var/lib/occupancy/status/status.json"))
    (found,) = [one["level"] for one in status["checks"] if one["name"] == check]
    metrics = host.check_output("cat /var/lib/occupancy/metrics/occupancy_check_results.prom")
    sample = re.search(rf'^occupancy_check_level{{check="{check}"}} (\d)$', metrics, re.MULTILINE)
    return found, int(sample[1]) if sample else 0


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_noticed_and_its_end(check: str, host: Host, receiver: None) -> None:
    """By the next run of the job: on the screen, as a metric and in a message; and by the two runs after its end."""
    del receiver
    fault, repair = FAULTS[check]
    title = f"- {BY_NAME[check].title}:"
    run_checks(host)
    assert level(host, check)[0] != "bad"
    host.check_output(f"bash -euo pipefail -c {shlex.quote(fault)}")
    try:
        run_checks(host)
        assert level(host, check) == ("bad", 3)
        assert title in messages(host)[-1]["message"]
        shown = host.run("occupancy-db status </dev/null")
        assert (shown.rc, bool(re.search(rf"^bad +{BY_NAME[check].title}", shown.stdout, re.MULTILINE))) == (
            21,
            True,
        )
    finally:
        host.check_output(f"bash -euo pipefail -c {shlex.quote(repair)}")
    for _ in range(2):
        run_checks(host)
    assert level(host, check)[0] != "bad"
    told = messages(host)[-1]["message"]
    assert title in told[told.index("No longer bad:") :]


def test_the_urls_are_in_one_file_for_the_tools_only(host: Host) -> None:
    assert (host.file(URLS).mode, host.file(URLS).uid, host.file("/opt/occupancy/notify").mode) == (
        0o600,
        10001,
        0o700,
    )
    assert (
        host.check_output(f"grep -rl {SECRET} /opt/occupancy /var/lib/occupancy/notify /etc/cron.d") == URLS
    )
    # The brackets keep this command, which is logged, from being found.
    assert host.run("journalctl --no-pager | grep -E '(tk|beat)-[5]ecret'").stdout == ""


def test_the_container_of_messages_does_not_reach_the_server(host: Host) -> None:
    address = host.check_output(
        "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' occupancy-postgres-1"
    )
    connect = f"import socket; socket.create_connection(({address!r}, 5432), 2)"
    run = host.run(
        "docker compose --project-directory /opt/occupancy run --rm --no-deps -T --entrypoint python3 notify -c %s </dev/null",
        connect,
    )
    assert run.rc == 1
    assert "timed out" in run.stderr or "refused" in run.stderr or "No route" in run.stderr
    mounts = host.check_output(
        "docker compose --project-directory /opt/occupancy config notify --format json"
    )
    assert set(json.loads(mounts)["services"]["notify"]["networks"]) == {"notify"}
