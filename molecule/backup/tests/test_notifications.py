"""The job of the checks sends messages from a container that reaches receivers, and nothing of the database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from testinfra.host import Host

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
http.server.ThreadingHTTPServer(("0.0.0.0", 18999), Handler).serve_forever()
"""
SECRET = "5ecret"
URLS = "/opt/occupancy/notify/urls"
STATE = "/var/lib/occupancy/notify/state.json"


@pytest.fixture(scope="module")
def receiver(host: Host) -> Iterator[None]:
    host.check_output("touch /run/received")
    host.check_output("systemd-run --unit=receiver python3 -c %s", RECEIVER)
    wait_for(lambda: host.socket("tcp://0.0.0.0:18999").is_listening, "the receiver listens")
    yield
    host.check_output("systemctl stop receiver")


def titles(host: Host) -> list[str]:
    lines = host.check_output("cat /run/received").splitlines()
    return [json.loads(line.partition(" ")[2])["title"] for line in lines if line.startswith("/tk-5ecret ")]


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
    assert "No longer bad:" in host.check_output("tail -n 3 /run/received")
    assert "/beat-5ecret" in host.check_output("cat /run/received")
    shown = json.loads(host.check_output(f"cat {STATE}"))
    assert (shown["pending"], shown["last_error"]) == (0, "")
    assert SECRET not in printed + json.dumps(shown)


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
