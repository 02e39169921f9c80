"""A host of notifications: its directory, results of checks, and receivers."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from occupancy_db.checks.model import Level, Result, Status
from occupancy_db.notify import receivers, send
from occupancy_db.notify.run import Outcome, run
from occupancy_db.notify.state import State
from tests.notify import servers

SECRET = "tk-5ecret"
"""Part of each URL: nothing may show it."""


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    """Load Apprise's plugins once: one imports a module that Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert send.usable("json://127.0.0.1")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


class Host:
    """One host. Its receivers can be changed between the runs."""

    def __init__(self, directory: Path) -> None:
        self.urls: list[str] = []
        self.heartbeat = ""
        self.directory = directory / "notify"
        self.directory.mkdir()
        self.status = directory / "status.json"
        self.secret = directory / "urls"
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def write(self, **levels: Level) -> None:
        """Write results of the checks."""
        results = tuple(Result(name, level, f"{name} is {level}") for name, level in levels.items())
        self.status.write_text(Status(self.clock(), "attic", "1.0", results).to_json())

    def receivers(self) -> receivers.Receivers:
        self.secret.write_text(json.dumps({"urls": self.urls, "heartbeat": self.heartbeat, "host": "attic"}))
        return receivers.load(self.secret)

    def run(self, seconds: float = 60, **levels: Level) -> Outcome:
        """Run the checks, with these results, and then the notifications."""
        if levels:
            self.write(**levels)
        return run(self.status, self.directory, self.receivers(), seconds, self.clock)

    @property
    def state(self) -> State:
        return State.from_json((self.directory / "state.json").read_text())


class Log(logging.Handler):
    """What reaches the log of a program that uses the library."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def host(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Host]:
    """A host. At the end no secret is in its files, in what was printed, or in a log."""
    found, log, root = Host(tmp_path), Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(log)
    root.setLevel(level)
    shown = [*capfd.readouterr(), *log.lines]
    shown += [path.read_text() for path in found.directory.glob("*.json")]
    assert [text for text in shown if SECRET in text] == []


@pytest.fixture
def web() -> Iterator[servers.Web]:
    with servers.web() as found:
        yield found


@pytest.fixture
def other() -> Iterator[servers.Web]:
    with servers.web() as found:
        yield found
