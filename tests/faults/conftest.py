"""Fixtures of the fault tests: those of tests/database, with a separate server that tests may kill."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.database.backup_host import BackupHost, PreparedSets
from tests.database.backup_host import backup_host as backup_host
from tests.database.backup_host import prepared as prepared
from tests.database.conftest import cluster as cluster
from tests.database.conftest import prefork as prefork
from tests.database.conftest import template as template
from tests.faults.environment import FaultEnvironment


@pytest.fixture
def fault_env(backup_host: BackupHost, prepared: PreparedSets) -> Iterator[FaultEnvironment]:
    fault_env = FaultEnvironment(backup_host, prepared)
    yield fault_env
    fault_env.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--corruptions", type=int, default=210, help="how many backup sets are corrupted")
    group.addoption("--corruption-seed", type=int, default=16, help="another number corrupts other bytes")
    group.addoption(
        "--sample", action="store_true", help="one case of each test and of each kind of corruption"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --sample, keep one case of each test, and of each kind of corruption."""
    if not config.getoption("sample"):
        return
    kept: dict[str, pytest.Item] = {}
    for item in items:
        test, _, case = item.nodeid.partition("[")
        # The case of a corruption is "kind-form-chance", that of a retry "seed-disturbance".
        kind = case.partition("-")[0] if item.get_closest_marker("corruption") else ""
        if item.get_closest_marker("retries"):
            kind = case.partition("-")[2]
        kept.setdefault(f"{test} {kind}", item)
    chosen = set(kept.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many corruptions and faults ran, and the sums of the tests of retries."""
    ran = Counter(
        marker
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for marker in ("corruption", "fault")
        if marker in report.keywords
    )
    terminalreporter.write_line(
        f"{ran['corruption']} corruptions found, {ran['fault']} operational faults survived"
    )
    sums = Counter[str]()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call" and "retries" in report.keywords:
            sums.update(dict(report.user_properties))
    terminalreporter.write_line(
        f"{sums['retries']} retries, {sums['duplicates']} duplicates, {sums['losses']} losses"
    )
