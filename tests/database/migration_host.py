"""The parts of a provisioned host that migrations need: a database with rows and privileges, and releases."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.release import protocol
from occupancy_db.release.results import Deployment
from occupancy_db.schema import runner
from occupancy_db.schema.runner import alembic_config
from occupancy_db.settings import Environment, Settings, SslMode
from tests.database.backup_host import make_directories
from tests.database.conftest import Database
from tests.database.users import OWNER, ROOT, grant, password
from tests.releases import example_revision

EXAMPLE = Path(__file__).parent / "example"


@dataclass(frozen=True)
class MigrationHost:
    """The database, and the settings of the service ``migrate``."""

    database: Database
    backup: BackupSettings

    def settings(self, environment: Environment = Environment.PRODUCTION) -> Settings:
        return self.database.settings().model_copy(
            update={"environment": environment, "postgres_sslmode": SslMode.DISABLE}
        )

    async def deploy(self, say: Callable[[str], None] = lambda _: None, **more: Any) -> Deployment:
        return await protocol.deploy(self.settings(), self.backup, say, **{"wait": 60, **more})

    def connect(self, user: str = OWNER, **options: Any) -> psycopg2.extensions.connection:
        return self.database.cluster.connect(self.database.name, user, password(user), **options)

    def query(self, query: str) -> Any:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchone() if cursor.description else None
        finally:
            connection.close()


@pytest.fixture
def migration_host(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[MigrationHost]:
    cluster = database.cluster
    grant(cluster, database.name)
    assert database.cli("seed", "--days", "1").returncode == 0
    monkeypatch.setenv("PATH", f"{cluster.bin}{os.pathsep}{os.environ['PATH']}")
    backup_host = make_directories(database, cluster.directory / database.name)
    monkeypatch.setattr("tempfile.tempdir", str(backup_host.temporary))
    settings = BackupSettings(
        dir=backup_host.sets, rehearsal_dir=backup_host.rehearsals, secrets_dir=backup_host.secrets
    )
    yield MigrationHost(database, settings)
    shutil.rmtree(backup_host.directory)
    cluster.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Create a release with the product's revisions and additional ones: files, or texts by ID."""
    more = tmp_path / "next"
    more.mkdir()

    def make(*files: Path, **revisions: str) -> Path:
        for former in more.glob("*.py"):
            former.unlink()
        for file in files:
            (more / file.name).write_text(example_revision(file))
        for name, text in revisions.items():
            (more / f"{name.removeprefix('r')}.py").write_text(text)

        def config() -> Any:
            made = alembic_config()
            made.set_main_option("version_locations", f"{ROOT}/migrations/versions{os.pathsep}{more}")
            return made

        monkeypatch.setattr(runner, "alembic_config", config)
        return more

    return make
