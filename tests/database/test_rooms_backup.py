"""Added rooms are in backup sets, restored whatever rooms are live, and no obstacle to a migration."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.database.backup_host import BackupHost, drop
from tests.database.backup_host import backup_host as backup_host
from tests.database.backup_host import prepared as prepared
from tests.database.chain import run
from tests.database.migration_host import EXAMPLE, MigrationHost
from tests.database.migration_host import migration_host as migration_host
from tests.database.migration_host import release as release
from tests.database.test_backup import ok

ROOMS = (
    "SELECT known.room, rooms.label, rooms.retired_at "
    "FROM unnest(enum_range(NULL::room_type)::text[]) WITH ORDINALITY AS known (room, place) "
    "LEFT JOIN rooms USING (room) ORDER BY place"
)


def add(host: BackupHost, *arguments: str) -> None:
    done = host.database.cli("rooms", *arguments)
    assert done.returncode == 0, done.stderr


def make_set(host: BackupHost) -> Any:
    made = host.backup("create", "--json")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["state"] == "verified"  # the rehearsal has compared it
    return found["id"]


@pytest.mark.parametrize("live", ["other rooms", "no database"])
def test_added_rooms_are_rehearsed_and_restored(backup_host: BackupHost, live: str) -> None:
    retired_at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    add(backup_host, "add", "kitchen", "l'atelier", "--label", "Küche", "--label", "")
    add(backup_host, "retire", "l'atelier", "--at", retired_at.isoformat())
    run(
        backup_host.database,
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (now(), 'kitchen', 'stove', true, 'x'), "
        "(now() - interval '2 days', 'l''atelier', 'easel', true, 'x')",
    )
    ok(backup_host.database.cli("timezone", "set", "Asia/Kathmandu"))
    before, rows = run(backup_host.database, ROOMS), backup_host.fingerprint("public")
    name = make_set(backup_host)
    if live == "no database":
        drop(backup_host.cluster)
    else:
        add(backup_host, "add", "garage", "--label", "Garage")
        add(backup_host, "label", "kitchen", "Cuisine")
        add(backup_host, "retire", "l'atelier", "--undo")
        ok(backup_host.database.cli("timezone", "set", "Europe/Berlin"))
    restored = backup_host.restore(name)
    assert restored.returncode == 0, restored.stderr
    assert run(backup_host.database, ROOMS) == before
    assert run(backup_host.database, "SELECT time_zone FROM hourly.home") == [("Asia/Kathmandu",)]
    assert backup_host.fingerprint("public") == rows
    add(backup_host, "add", "garage", "kitchen")
    assert len(run(backup_host.database, ROOMS)) == len(before) + 1


async def test_a_database_with_added_rooms_is_migrated(
    migration_host: MigrationHost, release: Callable[..., Path]
) -> None:
    done = migration_host.database.cli("rooms", "add", "kitchen", "--label", "Küche")
    assert done.returncode == 0, done.stderr
    release(*sorted(EXAMPLE.glob("*.py"))[:1])
    migrated = await migration_host.deploy()
    assert len(migrated.applied) == 1
    assert migrated.warnings == []
    assert migration_host.query("SELECT label FROM rooms") == ("Küche",)


def test_autogenerate_finds_no_difference_because_of_rooms(migration_host: MigrationHost) -> None:
    """The models declare the rooms of a new database."""
    database = migration_host.database
    assert database.cli("rooms", "add", "kitchen", "--label", "Küche").returncode == 0
    checked = database.alembic("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "No new upgrade operations detected" in checked.stdout
