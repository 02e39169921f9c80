"""Fixtures of the hostile users: a server with the product's users and three of the inventory."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database.backup_host import BackupHost, PreparedSets, make_backup_host
from tests.database.backup_host import prepared as prepared
from tests.database.cluster import Cluster
from tests.database.conftest import prefork as prefork
from tests.database.conftest import template as template
from tests.database.prefork import Prefork
from tests.database.users import OWNER, make_users
from tests.hostile.attackers import OPERATORS, Scene

STATES = ("as provisioned", "after a restore")
WHOLE = "everything"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.start()
    make_users(cluster, OPERATORS)
    cluster.execute(f"ALTER ROLE {OWNER} CREATEDB")  # for the fixtures
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session", params=STATES)
def backup_host(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    prepared: PreparedSets,
    prefork: Prefork,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BackupHost]:
    """One host for all attacks, which leave nothing behind: as provisioned, and after a restore."""
    with make_backup_host(cluster, prepared, prefork, tmp_path_factory.mktemp("host")) as made:
        if request.param == STATES[1]:
            done = made.restore("latest", "--without-safety-backup")
            assert done.returncode == 0, done.stderr
        yield made


@pytest.fixture
def scene(backup_host: BackupHost, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(backup_host, tmp_path)
    yield scene
    scene.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("hostile").addoption("--sample", action="store_true", help="one case of each attack")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --sample, keep one case of each attack."""
    if not config.getoption("sample"):
        return
    kept: dict[str, pytest.Item] = {}
    for item in items:
        attack = item.get_closest_marker("attack")
        kept.setdefault(f"{item.nodeid.partition('[')[0]} {attack.args[0] if attack else ''}", item)
    chosen = set(kept.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many attacks were carried out, and whom they stopped."""
    found: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call":
                found.update(dict(report.user_properties))
    terminalreporter.write_line(
        f"{found['carried out']} attacks carried out, {found['refused']} refused; until a limit ended them, "
        f"{found['ended by a limit']} stopped something; after that {found['writers stopped']} writers and "
        f"{found['backups stopped']} backups stopped"
    )
