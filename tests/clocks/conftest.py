"""Fixtures of the clock tests: a server and tools with a clock that the tests shift."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.clocks.environment import READINGS, ClockHost, FakedCluster, FakedDatabase
from tests.database.backup_host import LIVE, PreparedSets, drop, make_directories
from tests.database.conftest import OWNER, create
from tests.database.prefork import Prefork
from tests.database.users import grant, make_users
from tests.packages import debian_package

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[FakedCluster]:
    cluster = FakedCluster(debian_package("libfaketime", "faketime/libfaketime.so.1"))
    cluster.start()
    make_users(cluster)
    cluster.execute(f"ALTER ROLE {OWNER} CREATEDB CONNECTION LIMIT -1")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def prefork(cluster: FakedCluster) -> Iterator[Prefork]:
    prefork = Prefork(cluster.environment)
    yield prefork
    prefork.close()


@pytest.fixture(scope="session")
def prepared(
    cluster: FakedCluster, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory
) -> PreparedSets:
    """A database with readings of eight months, and two verified sets of it."""
    create(cluster, LIVE)
    grant(cluster, LIVE)
    database = FakedDatabase(cluster, LIVE, tmp_path_factory.mktemp("stock"), prefork)
    host = make_directories(database, cluster.directory / "stock")
    for command in ("migrate", "partitions maintain"):
        assert database.cli(*command.split()).returncode == 0
    grant(cluster, LIVE)
    connection = database.connect()
    with connection.cursor() as cursor:
        cursor.execute(READINGS, ["240 days"])
    connection.close()
    assert database.cli("partitions", "maintain").returncode == 0
    filled, ids = ClockHost(host), []
    for _ in range(2):
        filled.wait_for_next_second()
        ids.append(json.loads(filled.expect(0, "backup", "create", "--json").stdout)["id"])
    filled.wait_for_next_second()
    cluster.execute(f"CREATE DATABASE filled OWNER {OWNER} TEMPLATE {LIVE} STRATEGY FILE_COPY")
    drop(cluster)
    return PreparedSets("filled", host.sets, *ids)


@pytest.fixture
def clock_host(
    cluster: FakedCluster,
    prefork: Prefork,
    prepared: PreparedSets,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[ClockHost]:
    """A host for one test, in use until now with a clock that was right."""
    cluster.shift(timedelta())
    host = make_directories(
        FakedDatabase(cluster, LIVE, tmp_path, prefork), cluster.directory / f"host-{next(_numbers)}"
    )
    shutil.copytree(prepared.sets, host.sets, dirs_exist_ok=True)
    cluster.execute(f"CREATE DATABASE {LIVE} OWNER {OWNER} TEMPLATE {prepared.database} STRATEGY FILE_COPY")
    grant(cluster, LIVE)
    made = ClockHost(host)
    made.expect(0, "partitions", "maintain")
    yield made
    cluster.shift(timedelta())
    record_property("lost", made.lost)
    record_property("confirmed", made.confirmed)
    drop(cluster)
    shutil.rmtree(host.directory)


@pytest.fixture
def new_host(
    cluster: FakedCluster, prefork: Prefork, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[ClockHost]:
    """A host without a schema."""
    cluster.shift(timedelta())
    create(cluster, LIVE)
    grant(cluster, LIVE)
    host = make_directories(
        FakedDatabase(cluster, LIVE, tmp_path, prefork), cluster.directory / f"host-{next(_numbers)}"
    )
    made = ClockHost(host)
    yield made
    cluster.shift(timedelta())
    record_property("lost", made.lost)
    record_property("confirmed", made.confirmed)
    drop(cluster)
    shutil.rmtree(host.directory)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("clocks").addoption(
        "--sample", action="store_true", help="one case of each test with the marker sample"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --sample, keep one case of each test with the marker sample."""
    if not config.getoption("sample"):
        return
    kept: dict[str, pytest.Item] = {}
    for item in (item for item in items if item.get_closest_marker("sample")):
        kept.setdefault(item.nodeid.partition("[")[0], item)
    chosen = set(kept.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many cases ran, what was lost, and how often an operator had to decide."""
    cases = {
        report.nodeid: dict(report.user_properties)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown" and report.user_properties
    }
    lost = sum(int(str(found.get("lost", 0))) for found in cases.values())
    confirmed = sum(int(str(found.get("confirmed", 0))) for found in cases.values())
    terminalreporter.write_line(
        f"{len(cases)} clock cases, {lost} rows and sets lost, {confirmed} decided by an operator"
    )
