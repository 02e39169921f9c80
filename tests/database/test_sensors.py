"""Sensors are added, moved and retired, and readings that name an entity alone follow them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.connection import dispose_engine, get_async_session
from occupancy_db.errors import ExitCode
from occupancy_db.readings import InvalidReadings, Reading, ingest
from tests.database.chain import run
from tests.database.conftest import Database
from tests.database.test_commands import answer
from tests.database.users import grant, password

NOW = datetime.now(UTC).replace(microsecond=0)
DESK = "binary_sensor.desk"
ALONE = Reading(NOW, None, None, True, DESK)


def places(database: Database) -> list[tuple[Any, ...]]:
    found = answer(database, "sensors", "list")["sensors"]
    return [
        (one["entity"], one["since"], one["room"], one["zone"], one["label"], one["hold"]) for one in found
    ]


def refused(database: Database, *arguments: str, code: ExitCode, **environment: Any) -> str:
    result = database.cli("sensors", *arguments, **environment)
    assert (result.returncode, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def shown(moment: datetime) -> str:
    return str(moment)


def test_a_sensor_moves_and_keeps_its_label_and_hold(database: Database) -> None:
    then = NOW - timedelta(days=3)
    answer(
        database,
        "sensors",
        "set",
        DESK,
        "--room",
        "office",
        "--zone",
        "desk",
        "--label",
        "Desk",
        "--hold",
        "30 min",
    )
    answer(database, "sensors", "set", DESK, "--room", "bedroom", "--since", then.isoformat())
    assert places(database) == [
        (DESK, None, "office", "desk", "Desk", "0:30:00"),
        (DESK, shown(then), "bedroom", "desk", "Desk", "0:30:00"),
    ]
    # Said again, it changes nothing; a label and a hold alone belong to the newest place.
    assert answer(database, "sensors", "set", DESK, "--room", "bedroom")["sensor"] is None
    answer(database, "sensors", "set", DESK, "--label", "", "--hold", "0")
    assert places(database)[1] == (DESK, shown(then), "bedroom", "desk", None, None)
    assert places(database)[0] == (DESK, None, "office", "desk", "Desk", "0:30:00")


def test_a_sensor_is_retired_and_brought_back(database: Database) -> None:
    answer(database, "sensors", "set", DESK, "--room", "office", "--zone", "desk")
    at = NOW - timedelta(days=1)
    answer(database, "sensors", "retire", DESK, "--at", at.isoformat())
    assert answer(database, "sensors", "retire", DESK)["retired_at"] == shown(at)
    assert places(database)[-1] == (DESK, shown(at), None, None, None, None)
    assert "(retired)" in database.cli("sensors", "list").stdout
    # Another time, and a place afterwards
    answer(database, "sensors", "retire", DESK, "--at", NOW.isoformat())
    assert [place[1] for place in places(database)] == [None, shown(NOW)]
    assert "both must be given" in refused(database, "set", DESK, "--label", "Desk", code=ExitCode.USAGE)
    answer(database, "sensors", "retire", DESK, "--undo")
    assert places(database) == [(DESK, None, "office", "desk", None, None)]
    assert "was not retired" in database.cli("sensors", "retire", DESK, "--undo").stdout
    answer(database, "sensors", "set", DESK, "--room", "bedroom", "--since", NOW.isoformat())
    assert "is in 'bedroom' since" in refused(
        database, "retire", DESK, "--at", at.isoformat(), code=ExitCode.USAGE
    )
    answer(database, "sensors", "remove", DESK)
    assert places(database) == []


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["set", DESK, "--room", "office"], ExitCode.USAGE, "both must be given"),
        (["set", DESK, "--room", "attic", "--zone", "desk"], ExitCode.USAGE, "unknown room 'attic'"),
        (["set", DESK, "--room", "office", "--zone", "x" * 51], ExitCode.USAGE, "zone is longer than 50"),
        (
            ["set", "x" * 101, "--room", "office", "--zone", "desk"],
            ExitCode.USAGE,
            "entity is longer than 100",
        ),
        (["set", DESK, "--hold", "soon"], ExitCode.USAGE, "'soon' is not an interval"),
        (
            ["set", DESK, "--room", "office", "--zone", "desk", "--max-silence", "-1 h"],
            ExitCode.USAGE,
            "longest silence is negative",
        ),
        (["set", DESK, "--room", "office", "--zone", "desk", "--hold", "-5 min"], ExitCode.USAGE, "negative"),
        (["set", DESK, "--since", "yesterday"], ExitCode.USAGE, "--since yesterday is not a time"),
        (["retire", DESK], ExitCode.FAILED, "unknown sensor 'binary_sensor.desk'"),
        (["remove", DESK], ExitCode.FAILED, "unknown sensor"),
        (["add", "missing.csv"], ExitCode.FAILED, "missing.csv"),
    ],
)
def test_what_cannot_be_is_refused(
    database: Database, arguments: list[str], code: ExitCode, reason: str
) -> None:
    assert reason in refused(database, *arguments, code=code)
    assert places(database) == []


def test_a_file_adds_sensors_and_changes_none(database: Database, tmp_path: Path) -> None:
    answer(database, "sensors", "set", DESK, "--room", "bedroom", "--zone", "bed")
    file = tmp_path / "sensors.csv"
    file.write_text(
        "\ufeffentity_id,room,zone,since,hold,max_silence\n"
        "binary_sensor.desk,office,desk,,,\n"
        'binary_sensor.sofa,living_kitchen,"sofa, left",,1 hour,2 days\n'
        "binary_sensor.sofa,guest_bedroom,sofa,2026-11-01T00:00:00+01:00,,\n"
    )
    done = answer(database, "sensors", "add", str(file))
    assert (done["added"], done["present"]) == (["binary_sensor.sofa"], [DESK])
    assert places(database) == [
        (DESK, None, "bedroom", "bed", None, None),
        ("binary_sensor.sofa", None, "living_kitchen", "sofa, left", None, "1:00:00"),
        ("binary_sensor.sofa", "2026-10-31 23:00:00+00:00", "guest_bedroom", "sofa", None, None),
    ]
    silences = [one["max_silence"] for one in answer(database, "sensors", "list")["sensors"]]
    assert silences == [None, "2 days, 0:00:00", None]
    again = database.cli("sensors", "add", "-", stdin=file.read_text())
    assert again.stdout == "0 sensors added, 2 exist already\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has the columns of an empty file"),
        ("entity_id,room\n", "has the columns entity_id, room"),
        ("entity_id,room,zone,colour\n", "colour"),
        ("entity_id,room,zone\na,office\n", "line 2 has more or fewer columns"),
        ("entity_id,room,zone\na,office,desk,x\n", "line 2 has more or fewer columns"),
        ("entity_id,room,zone\na,office,desk\nb,attic,desk\n", "unknown room 'attic'"),
        ("entity_id,room,zone,since\na,office,desk,soon\n", "line 2: since soon is not a time"),
        ("entity_id,room,zone,hold\na,office,desk,soon\n", "line 2: 'soon' is not an interval"),
        ("entity_id,room,zone\na,office,desk\na,bedroom,desk\n", "listed twice"),
        ("entity_id,room,zone\n\xff", "more or fewer"),
    ],
)
def test_a_file_with_a_fault_adds_nothing(database: Database, tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "sensors.csv"
    file.write_text(text, encoding="utf-8")
    result = database.cli("sensors", "add", str(file))
    assert result.returncode in (ExitCode.FAILED, ExitCode.USAGE)
    assert reason in result.stderr
    assert places(database) == []


@pytest.fixture
async def application(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """This process, as the application."""
    grant(database.cluster, database.name)
    for name, value in database.environment(
        POSTGRES_USER="occupancy_app", POSTGRES_PASSWORD=password("occupancy_app")
    ).items():
        if name.startswith("POSTGRES_"):
            monkeypatch.setenv(name, value)
    yield database
    await dispose_engine()


def stored(cursor: Cursor) -> list[tuple[Any, ...]]:
    cursor.execute("SELECT timestamp, room, zone FROM sensor_readings ORDER BY timestamp, zone")
    return cursor.fetchall()


async def set_place(database: Database, *arguments: str) -> None:
    await asyncio.to_thread(answer, database, "sensors", *arguments)


async def test_readings_are_stored_where_their_sensor_was(application: Database, cursor: Cursor) -> None:
    moved = NOW - timedelta(hours=2)
    await set_place(application, "set", DESK, "--room", "office", "--zone", "desk")
    await set_place(
        application, "set", DESK, "--room", "bedroom", "--zone", "bed", "--since", moved.isoformat()
    )
    before = moved - timedelta(microseconds=1)
    batch: list[Any] = [
        replace(ALONE, timestamp=before),
        {"timestamp": moved, "state": True, "source_entity": DESK},
        SimpleNamespace(timestamp=NOW, state=False, source_entity=DESK),
        Reading(NOW, "office", "chair", True, DESK),
    ]
    assert await ingest(batch) == 4
    assert await ingest(batch) == 0
    assert stored(cursor) == [
        (before, "office", "desk"),
        (moved, "bedroom", "bed"),
        (NOW, "bedroom", "bed"),
        (NOW, "office", "chair"),
    ]


async def test_a_move_takes_the_next_reading_along(application: Database, cursor: Cursor) -> None:
    since = NOW - timedelta(days=1)
    await set_place(application, "set", DESK, "--room", "office", "--zone", "desk")
    async with get_async_session() as session:
        assert await ingest([replace(ALONE, timestamp=since)], session=session) == 1
        await session.commit()
    await set_place(
        application, "set", DESK, "--zone", "window", "--since", (since + timedelta(hours=1)).isoformat()
    )
    assert await ingest([ALONE]) == 1
    assert [row[2] for row in stored(cursor)] == ["desk", "window"]


async def test_a_reading_without_a_place_is_refused_with_the_reason(
    application: Database, cursor: Cursor
) -> None:
    with pytest.raises(InvalidReadings, match=r"'binary_sensor\.desk' is not a sensor of the database"):
        await ingest([ALONE])
    since, until = NOW - timedelta(days=2), NOW - timedelta(days=1)
    await set_place(
        application, "set", DESK, "--room", "office", "--zone", "desk", "--since", since.isoformat()
    )
    await set_place(application, "retire", DESK, "--at", until.isoformat())
    early = replace(ALONE, timestamp=since - timedelta(days=1))
    with pytest.raises(InvalidReadings, match="has no place before"):
        await ingest([early])
    with pytest.raises(InvalidReadings, match="was retired on"):
        await ingest([ALONE])
    with pytest.raises(InvalidReadings, match="missing key zone"):
        await ingest([{"timestamp": NOW, "room": "office", "state": True, "source_entity": DESK}])
    with pytest.raises(InvalidReadings, match="unknown room None"):
        await ingest([Reading(NOW, None, "desk", True, DESK)])
    # With room and zone, a reading needs no sensor.
    assert await ingest([Reading(NOW, "office", "desk", True, DESK)]) == 1
    assert await ingest([replace(ALONE, timestamp=since)]) == 1
    assert len(stored(cursor)) == 2


def test_clients_read_sensors_and_do_not_change_them(application: Database) -> None:
    with application.cluster.connect(
        application.name, "occupancy_app", password("occupancy_app")
    ).cursor() as client:
        client.execute("SELECT count(*) FROM sensors")
        with pytest.raises(Exception, match="permission denied for table sensors"):
            client.execute("INSERT INTO sensors (entity, since) VALUES ('x', now())")
    assert "cannot change sensors" in refused(
        application,
        "set", DESK, "--room", "office", "--zone", "desk",
        code=ExitCode.PERMISSION,
        POSTGRES_USER="occupancy_app",
        POSTGRES_PASSWORD=password("occupancy_app"),
    )  # fmt: skip


def test_the_table_accepts_no_place_without_a_room(database: Database) -> None:
    for values in ("'x', now(), 'office', NULL", "'x', now(), 'attic', 'desk'", "'', now(), NULL, NULL"):
        with pytest.raises(Exception, match=r"check constraint|enum room_type"):
            run(database, f"INSERT INTO sensors (entity, since, room, zone) VALUES ({values})")
