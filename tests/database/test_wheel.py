"""The installed package on a database: no checkout is needed to migrate one."""

from pathlib import Path

import pytest

from tests.database.conftest import HEAD, REVISIONS, Database
from tests.installation import Installation, build_wheel


def test_installed_package_migrates_an_empty_database(
    empty: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(directory / "dist")
    installed = Installation(directory, f"occupancy-db[tools] @ {wheel.as_uri()}")
    environment = {name: value for name, value in empty.environment().items() if name.startswith("POSTGRES_")}

    assert installed.answer("migrate", **environment)["applied"] == REVISIONS
    assert installed.answer("current", **environment)["revision"] == HEAD
    assert installed.answer("check-tables", **environment)["missing"] == []
    assert installed.answer("rollback", **environment)["reverted"] == [HEAD]
