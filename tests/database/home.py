"""A site with rows and rights, as the service ``migrate`` has it, and releases that come to it."""

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
from occupancy_db.schema import runner
from occupancy_db.schema.runner import alembic_config
from occupancy_db.settings import Environment, Settings, SslMode
from tests.database.conftest import Database
from tests.database.site import open_site
from tests.database.users import OWNER, ROOT, grant, password

EXAMPLE = Path(__file__).parent / "example"


@dataclass(frozen=True)
class Home:
    """The database, and what the service ``migrate`` has on a host."""

    database: Database
    backup: BackupSettings

    def settings(self, environment: Environment = Environment.PRODUCTION) -> Settings:
        return self.database.settings().model_copy(
            update={"environment": environment, "postgres_sslmode": SslMode.DISABLE}
        )

    async def deploy(self, say: Callable[[str], None] = lambda _: None, **more: Any) -> dict[str, Any]:
        return await protocol.deploy(self.settings(), self.backup, say, **{"wait": 60, **more})

    def connect(self, user: str = OWNER, **options: Any) -> psycopg2.extensions.connection:
        return self.database.cluster.connect(self.database.name, user, password(user), **options)

    def ask(self, query: str) -> Any:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchone() if cursor.description else None
        finally:
            connection.close()


@pytest.fixture
def home(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    cluster = database.cluster
    grant(cluster, database.name)
    assert database.cli("seed", "--days", "1").returncode == 0
    monkeypatch.setenv("PATH", f"{cluster.bin}{os.pathsep}{os.environ['PATH']}")
    site = open_site(database, cluster.directory / database.name)
    monkeypatch.setattr("tempfile.tempdir", str(site.temporary))
    settings = BackupSettings(dir=site.sets, rehearsal_dir=site.rehearsals, secrets_dir=site.secrets)
    yield Home(database, settings)
    shutil.rmtree(site.directory)
    cluster.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a next release: the shipped revisions, and those that are given as files or as id and SQL."""
    more = tmp_path / "next"
    more.mkdir()

    def make(*files: Path, **revisions: str) -> Path:
        for former in more.glob("*.py"):
            former.unlink()
        for file in files:
            (more / file.name).write_text(file.read_text())
        for name, text in revisions.items():
            (more / f"{name.removeprefix('r')}.py").write_text(text)

        def config() -> Any:
            made = alembic_config()
            made.set_main_option("version_locations", f"{ROOT}/migrations/versions{os.pathsep}{more}")
            return made

        monkeypatch.setattr(runner, "alembic_config", config)
        return more

    return make
