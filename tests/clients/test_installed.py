"""The client part of occupancy_db beside the versions that an application pins, over verified TLS."""

import sys
from pathlib import Path

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from tests.clients.server import Login
from tests.installation import Installation, build_wheel

# asyncpg and SQLAlchemy have builds for later versions of Python in later versions only.
OLD_PYTHON = sys.version_info < (3, 13)
PINNED = {
    "asyncpg": "0.29.0" if OLD_PYTHON else "0.30.0",
    "pydantic-settings": "2.2.0",
    "rich": "13.0.0",
    "sqlalchemy": "2.0.16" if OLD_PYTHON else "2.0.31",
    "typer": "0.9.0",
}

PROGRAM = """
import asyncio
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import alembic
from sqlalchemy import select

from occupancy_db.connection import get_async_session
from occupancy_db.models import RoomType, SensorReading
from occupancy_db.readings import Reading, ingest


async def main() -> None:
    now = datetime.now(UTC)
    values = dict(timestamp=now, zone="desk", state=True, source_entity="binary_sensor.fp2_desk")
    print(await ingest([Reading(room="office", **values), {"room": "bedroom", **values}]))
    async with get_async_session() as session:
        one = SensorReading(room="office", **values)
        session.add(one)
        await session.commit()
        await session.refresh(one)
        found = await session.scalars(select(SensorReading).where(SensorReading.room == RoomType.OFFICE))
        print([(reading.room, reading.timestamp == now) for reading in found])


asyncio.run(main())
print(alembic.__file__, *sorted({"numpy", "pandas", "typer"} & set(sys.modules)))
print(*(f"{name}=={version(name)}" for name in sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The application's environment, and in its root a package of its own that is called alembic."""
    directory = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(directory / "dist")
    installed = Installation(directory, str(wheel), *(f"{name}=={pin}" for name, pin in PINNED.items()))
    migrations = installed.directory / "alembic"
    migrations.mkdir()
    (migrations / "__init__.py").touch()
    (installed.directory / "application.py").write_text(PROGRAM)
    return installed


def test_an_application_with_old_versions_writes_and_reads(
    installed: Installation, application: Login, owner: Cursor
) -> None:
    result = installed.run("python", "application.py", *PINNED, **application.environment())
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "2",
        "[('office', True), ('office', True)]",
        str(Path(installed.directory, "alembic", "__init__.py")),
        " ".join(f"{name}=={pin}" for name, pin in PINNED.items()),
    ]
    owner.execute("SELECT room, count(*) FROM sensor_readings GROUP BY room ORDER BY room")
    assert owner.fetchall() == [("bedroom", 1), ("office", 2)]
