"""Releases for the tests of deployments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.errors import DatabaseError
from tests.database.migration_host import EXAMPLE, MigrationHost
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.unit.test_lint import FIELDS, REVISION

EXPAND, DATA, CONTRACT = sorted(EXAMPLE.glob("*.py"))
Release = Callable[..., Path]


def revision(id: str, revises: str, *sql: str, **fields: Any) -> str:  # noqa: A002
    """Return the text of a revision with all required declarations."""
    upgrade = "; ".join(f"op.execute({statement!r})" for statement in sql) or "pass"
    return REVISION.format(**{**FIELDS, "id": id, "revises": revises, "upgrade": upgrade, **fields})


async def failure(migration_host: MigrationHost, **more: Any) -> DatabaseError:
    with pytest.raises(DatabaseError) as raised:
        await migration_host.deploy(**more)
    return raised.value
