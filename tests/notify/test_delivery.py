"""Messages reach real servers, or wait for them."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from occupancy_db.backup import files
from occupancy_db.checks.model import Level
from occupancy_db.notify import run as runs
from occupancy_db.notify.state import Store
from tests.notify import servers
from tests.notify.conftest import SECRET, Host
from tests.waiting import wait_for

GOOD, BAD = Level.GOOD, Level.BAD


@pytest.mark.parametrize("scheme", ["json", "xml", "form", "ntfy"])
def test_a_web_server_gets_a_message_when_a_check_turns_bad_and_when_it_is_good_again(
    host: Host, web: servers.Web, scheme: str
) -> None:
    host.urls = [f"{scheme}://127.0.0.1:{web.port}/{SECRET}"]
    assert host.run(backup_age=GOOD).sent == 0
    assert host.run(backup_age=BAD).sent == 1
    assert host.run(backup_age=BAD).sent == 0
    assert host.run(backup_age=GOOD).sent == 0
    assert host.run(backup_age=GOOD).sent == 1
    first, second = web.bodies
    assert "newest verified backup set" in first.replace("+", " ")
    assert "good again" in second.replace("+", " ")
    assert host.state.queue == ()


def test_a_mail_server_gets_a_message(host: Host) -> None:
    with servers.smtp() as (box, port):
        host.urls = [f"mailto://127.0.0.1:{port}?from=a@example.org&to=b@example.org&name={SECRET}"]
        host.run(backup_age=BAD)
        (mail,) = box.mails
        assert "Subject: attic: 1 check is bad" in mail
        box.refuse = "451 later"
        outcome = host.run(backup_age=BAD, server=BAD)
        assert outcome.failures == ("receiver 1 (mailto): answered with status 451",)
        box.refuse = ""
        assert host.run(backup_age=BAD, server=BAD).sent == 1


def test_a_broker_gets_a_message(host: Host, tmp_path: Path) -> None:
    with servers.broker(tmp_path, "home/alerts") as (port, got):
        host.urls = [f"mqtt://127.0.0.1:{port}/home/alerts?qos=1"]
        assert host.run(backup_age=BAD).sent == 1
        wait_for(lambda: "backup_age is bad" in got.read_text(), "the message")
    assert host.run(backup_age=BAD, server=BAD).failures == ("receiver 1 (mqtt): connection refused",)


def test_a_message_waits_for_one_receiver_and_is_not_repeated_to_the_other(
    host: Host, web: servers.Web, other: servers.Web
) -> None:
    host.urls = [f"json://127.0.0.1:{server.port}/{SECRET}" for server in (web, other)]
    other.status = 500
    outcome = host.run(backup_age=BAD)
    assert (outcome.sent, outcome.pending) == (1, 1)
    assert outcome.failures == ("receiver 2 (json): answered with status 500",)
    host.run(backup_age=BAD, server=BAD)
    shown = json.loads((host.directory / "state.json").read_text())
    assert shown["pending"] == 2
    assert shown["oldest_pending"] == host.state.queue[0].time.isoformat()
    assert shown["last_error"] == "receiver 2 (json): answered with status 500"
    other.status, already = 200, len(other.requests)
    assert host.run(backup_age=BAD, server=BAD).sent == 2
    assert len(web.requests) == 2
    # In their order
    titles = [json.loads(body)["title"] for body in other.bodies[already:]]
    assert titles == ["attic: 1 check is bad", "attic: 2 checks are bad"]
    shown = json.loads((host.directory / "state.json").read_text())
    assert (shown["pending"], shown["oldest_pending"], shown["last_error"]) == (0, None, "")


def test_a_refused_connection_a_missing_name_and_an_unusable_url_are_named(host: Host) -> None:
    nothing = f"127.0.0.1:{servers.free_port()}/{SECRET}"
    host.urls = [f"json://{nothing}", f"json://nowhere.invalid/{SECRET}", f"nothing://{SECRET}", SECRET]
    assert set(host.run(backup_age=BAD).failures) == {
        "receiver 1 (json): connection refused",
        "receiver 2 (json): name not found",
        "receiver 3 (nothing): Apprise does not understand this URL",
        "receiver 4 (without a scheme): Apprise does not understand this URL",
    }


def test_a_server_that_does_not_answer_delays_no_other(
    host: Host, web: servers.Web, other: servers.Web
) -> None:
    other.status = 0
    host.urls = [f"json://127.0.0.1:{port}/{SECRET}?rto=60" for port in (other.port, web.port)]
    late = host.receivers().each[0].key
    thread = threading.Thread(target=lambda: host.run(backup_age=BAD))
    thread.start()
    wait_for(lambda: (host.directory / "state.json").exists(), "the run has begun")
    wait_for(lambda: host.state.queue[0].receivers == (late,), "the other has its message")
    other.released.set()
    thread.join()
    assert [one.text for one in host.state.failures.values()] == ["connection closed"]


def test_a_server_that_does_not_answer_is_left_when_the_time_is_over(host: Host, web: servers.Web) -> None:
    web.status = 0
    host.urls = [f"json://127.0.0.1:{web.port}/{SECRET}?rto=60"]
    assert host.run(seconds=0.1, backup_age=BAD).failures == ("receiver 1 (json): no answer in time",)
    assert len(host.state.queue) == 1


@pytest.mark.parametrize("scheme", ["jsons", "ntfys"])
def test_a_server_whose_certificate_is_not_trusted_gets_nothing(
    host: Host, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    with servers.web(authority.issue_cert("localhost")) as web:
        host.urls = [f"{scheme}://localhost:{web.port}/{SECRET}"]
        host.heartbeat = f"https://localhost:{web.port}/{SECRET}"
        outcome = host.run(backup_age=BAD)
        assert web.requests == []
        assert outcome.failures == (
            f"receiver 1 ({scheme}): certificate not trusted",
            "heartbeat: certificate not trusted",
        )
        # The file of the host's CAs, as the container has it
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.crt"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
        assert host.run(backup_age=BAD).failures == ()
        assert [method for method, _, _ in web.requests] == ["POST", "GET"]


def test_messages_go_through_a_proxy(host: Host, web: servers.Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.port}")
    host.urls = [f"json://receiver.invalid/{SECRET}"]
    assert host.run(backup_age=BAD).sent == 1
    assert web.requests[0][1] == f"http://receiver.invalid/{SECRET}"


def test_the_heartbeat_says_that_the_checks_run(host: Host, web: servers.Web) -> None:
    host.heartbeat = f"http://127.0.0.1:{web.port}/ping/{SECRET}"
    host.run(backup_age=BAD)
    host.run(backup_age=BAD)
    assert [(method, path) for method, path, _ in web.requests] == [("GET", f"/ping/{SECRET}")] * 2
    host.status.unlink()
    host.run()
    assert len(web.requests) == 2
    web.status = 404
    since = datetime.now(UTC)
    assert host.run(backup_age=BAD).failures == ("heartbeat: answered with status 404",)
    shown = json.loads((host.directory / "state.json").read_text())
    assert shown["pending"] == 1
    assert datetime.fromisoformat(shown["oldest_pending"]) >= since
    web.status = 200
    assert host.run(backup_age=BAD).failures == ()


def test_receivers_may_change_while_messages_wait(host: Host, web: servers.Web) -> None:
    gone = f"json://127.0.0.1:{servers.free_port()}/{SECRET}"
    kept = f"json://127.0.0.1:{web.port}/{SECRET}"
    web.status = 503
    host.urls = [gone, kept]
    host.run(backup_age=BAD)
    host.urls = [kept, kept, f"xml://127.0.0.1:{web.port}"]
    web.status = 200
    assert host.run(backup_age=BAD).sent == 1
    assert host.state.queue == ()
    assert host.state.failures == {}


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 4096, b'{"host": 1}', b"[]", b"\xff"])
def test_a_damaged_state_is_begun_again(host: Host, web: servers.Web, content: bytes) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}"]
    host.run(backup_age=BAD)
    (host.directory / "state.json").write_bytes(content)
    outcome = host.run(backup_age=BAD)
    assert outcome.sent == 1
    assert "was damaged" in outcome.failures[0]
    assert host.run(backup_age=BAD).failures == ()


def test_files_of_the_state_are_for_their_owner(host: Host, web: servers.Web) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}"]
    host.run(backup_age=BAD)
    modes = {path.name: path.stat().st_mode & 0o777 for path in host.directory.iterdir()}
    assert modes == {"state.json": 0o600, "lock": 0o600, "reserve": 0o600}


def test_a_full_disk_delays_no_message_and_repeats_none(
    host: Host, web: servers.Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}"]
    host.run(backup_age=GOOD)
    assert (host.directory / "reserve").stat().st_size > 64 * 1024
    real = files.replace

    def full(path: Path, content: bytes) -> None:
        if (host.directory / "reserve").exists() or path.name == "reserve":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(files, "replace", full)
    assert host.run(backup_age=BAD).sent == 1
    assert host.run(backup_age=BAD).sent == 0
    assert not (host.directory / "reserve").exists()
    monkeypatch.setattr(files, "replace", real)
    host.run(backup_age=BAD)
    assert (host.directory / "reserve").exists()


def test_a_state_that_cannot_be_written_sends_every_hour(
    host: Host, web: servers.Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}"]
    monkeypatch.setattr(Store, "save", lambda *_: False)
    start = datetime.now(UTC).replace(minute=0)
    found = []
    for minutes in range(0, 120, 5):
        host.clock = lambda minutes=minutes: start + timedelta(minutes=minutes)  # type: ignore[misc]
        outcome = host.run(backup_age=BAD)
        assert not outcome.recorded
        found.append(outcome.sent)
    assert sum(found) == 4
    assert found[0] == found[12] == 1


def test_a_second_run_at_the_same_time_does_nothing(host: Host, web: servers.Web) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}"]
    with Store(host.directory).locked() as alone:
        assert alone
        assert host.run(backup_age=BAD).skipped
    assert web.requests == []
    assert host.run(backup_age=BAD).sent == 1


def test_a_run_that_is_killed_forgets_no_message(host: Host, web: servers.Web) -> None:
    host.urls = [f"json://127.0.0.1:{web.port}/{SECRET}?rto=60"]
    web.status = 0
    host.write(backup_age=BAD)
    host.receivers()
    process = subprocess.Popen(command(host, "send"), stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    wait_for(lambda: web.requests, "the message is being sent")
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    web.status = 200
    web.released.set()
    assert host.run(backup_age=BAD).sent == 1
    assert host.run(backup_age=BAD).sent == 0


ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def command(host: Host, *arguments: str) -> list[str]:
    program = [sys.executable, "-m", "occupancy_db", "notify", *arguments, "--urls", str(host.secret)]
    if "send" in arguments:
        program += ["--status", str(host.status), "--directory", str(host.directory)]
    return program


def test_the_command_sends_a_test_and_names_who_did_not_get_it(
    host: Host, web: servers.Web, other: servers.Web
) -> None:
    other.status = 403
    host.urls = [f"json://127.0.0.1:{web.port}/{SECRET}", f"xml://127.0.0.1:{other.port}/{SECRET}"]
    host.heartbeat = f"http://127.0.0.1:{web.port}/{SECRET}"
    host.receivers()
    result = subprocess.run(
        command(host, "test"), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        "receiver 1 (json): sent",
        "receiver 2 (xml): answered with status 403",
        "heartbeat: sent",
    ]
    assert json.loads(web.bodies[0])["title"] == "attic: test of the notifications"
    assert not (host.directory / "state.json").exists()
    other.status = 200
    assert set(runs.test(host.receivers()).values()) == {""}


def test_the_command_of_the_job_ends_with_0_and_prints_no_url(host: Host) -> None:
    host.urls = [f"json://127.0.0.1:{servers.free_port()}/{SECRET}"]
    host.write(backup_age=BAD)
    host.receivers()
    result = subprocess.run(
        command(host, "send"), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "0 sent, 1 waiting\nreceiver 1 (json): connection refused\n"


@pytest.mark.parametrize("content", [None, SECRET, f'{{"urls": "{SECRET}"}}', "[1]"])
def test_a_file_of_receivers_that_cannot_be_used_is_explained(host: Host, content: str | None) -> None:
    if content is not None:
        host.secret.write_text(content)
    result = subprocess.run(
        command(host, "test"), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 3
    assert re.match(rf"error: {host.secret} (cannot be read|is not a file of receivers)", result.stderr)
    assert SECRET not in result.stderr
