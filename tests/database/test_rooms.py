"""Rooms are added, labelled and retired beside clients, and everything that reads the schema accepts them."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg2
import pytest
import trustme
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import ExitCode
from occupancy_db.models import RoomType
from tests.database.chain import run
from tests.database.conftest import ROOT, Database
from tests.database.test_commands import answer
from tests.database.tunnel import tls_tunnel
from tests.database.users import grant, password
from tests.waiting import wait_for_async

SIX = [room.value for room in RoomType]
ODD = ["Küche", "l'atelier", 'a "quoted" room', "back\\slash", "BEDROOM", "-o", "50 % 名 €", "x" * 50]

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES ($1, $2, 'stove', true, 'binary_sensor.stove')"
)


def names(database: Database) -> list[str]:
    return [row["room"] for row in answer(database, "rooms", "list")["rooms"]]


def refused(database: Database, *arguments: str, code: ExitCode, **environment: Any) -> str:
    result = database.cli("rooms", *arguments, **environment)
    assert (result.returncode, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_rooms_are_added_once_and_keep_the_order(database: Database) -> None:
    assert names(database) == SIX
    done = answer(database, "rooms", "add", "kitchen", "garage")
    assert (done["added"], done["labelled"], done["notes"]) == (["kitchen", "garage"], [], [])
    assert names(database) == [*SIX, "kitchen", "garage"]
    again = answer(database, "rooms", "add", "kitchen", "office")
    assert (again["added"], again["labelled"], again["notes"]) == ([], [], [])
    assert "kitchen exists already" in database.cli("rooms", "add", "kitchen").stdout


def test_the_script_of_the_manual_adds_rooms_too(database: Database) -> None:
    done = database.run("python", str(ROOT / "scripts/manage_db.py"), "rooms", "add", "kitchen")
    assert (done.returncode, done.stdout) == (0, "kitchen added\n")
    assert names(database) == [*SIX, "kitchen"]


def test_every_character_that_is_printable_can_be_in_a_name(database: Database) -> None:
    assert answer(database, "rooms", "add", "--", *ODD)["added"] == ODD
    assert names(database) == [*SIX, *ODD]
    assert run(database, "SELECT enum_range(NULL::room_type)::text[]") == [([*SIX, *ODD],)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 51, "longer than 50 characters"),
        ("ü" * 32, "longer than 63 bytes"),
        (" attic", "begins or ends with a space"),
        ("attic\n", "begins or ends with a space"),
        ("at\ttic", "U+0009"),
        ("at\u200btic", "U+200B"),
    ],
)
def test_a_name_is_refused_with_the_reason_and_nothing_is_added(
    database: Database, name: str, reason: str
) -> None:
    assert reason in refused(database, "add", "kitchen", name, code=ExitCode.USAGE)
    assert names(database) == SIX


def test_names_that_differ_only_by_case_are_two_rooms_and_the_output_says_so(database: Database) -> None:
    result = database.cli("rooms", "add", "BEDROOM", "Living Kitchen")
    assert result.returncode == 0
    assert "BEDROOM and bedroom are two rooms" in result.stdout
    assert "Living Kitchen and living_kitchen are two rooms" in result.stdout


def test_labels_are_set_changed_and_removed(database: Database) -> None:
    done = answer(
        database,
        "rooms",
        "add",
        "kitchen",
        "office",
        "attic",
        "--label",
        "Küche",
        "--label",
        "Büro",
        "--label",
        "",
    )
    assert (done["added"], done["labelled"]) == (["kitchen", "attic"], ["kitchen", "office"])
    kept = answer(database, "rooms", "add", "kitchen", "--label", "Cuisine")
    assert (kept["added"], kept["labelled"]) == ([], [])
    assert "keeps its label 'Küche'" in kept["notes"][0]
    labels = {row["room"]: row["label"] for row in answer(database, "rooms", "list")["rooms"] if row["label"]}
    assert labels == {"kitchen": "Küche", "office": "Büro"}

    assert answer(database, "rooms", "label", "kitchen", "Cuisine")["label"] == "Cuisine"
    assert run(database, "SELECT room, label FROM rooms ORDER BY 1") == [
        ("kitchen", "Cuisine"),
        ("office", "Büro"),
    ]
    assert answer(database, "rooms", "label", "kitchen", "--remove")["label"] is None
    assert run(database, "SELECT room FROM rooms") == [("office",)]


def test_a_room_is_retired_and_brought_back(database: Database) -> None:
    at = "2026-11-20T10:00:00+01:00"
    assert (
        answer(database, "rooms", "retire", "office", "--at", at)["retired_at"] == "2026-11-20 09:00:00+00:00"
    )
    assert answer(database, "rooms", "retire", "office")["retired_at"] == "2026-11-20 09:00:00+00:00"
    assert "2026-11-20 09:00:00 UTC" in database.cli("rooms", "list").stdout
    added = answer(database, "rooms", "add", "office")
    assert added["added"] == []
    assert "rooms retire --undo office" in added["notes"][0]
    assert run(database, "SELECT count(*) FROM rooms WHERE retired_at IS NOT NULL") == [(1,)]

    assert answer(database, "rooms", "retire", "office", "--undo")["retired_at"] is None
    assert "was not retired" in database.cli("rooms", "retire", "office", "--undo").stdout
    assert run(database, "SELECT count(*) FROM rooms") == [(0,)]

    before = datetime.now(UTC).replace(microsecond=0)
    now = datetime.fromisoformat(answer(database, "rooms", "retire", "office")["retired_at"])
    assert before <= now <= datetime.now(UTC)


def test_a_retired_room_takes_earlier_readings_and_no_others(database: Database, cursor: Cursor) -> None:
    retired_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    insert = (
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "SELECT at, %s, 'z', true, 'x' FROM unnest(%s) AS at"
    )
    answer(database, "rooms", "add", "kitchen")
    cursor.execute(insert, ["kitchen", [retired_at + timedelta(minutes=1)]])
    answer(database, "rooms", "retire", "kitchen", "--at", retired_at.isoformat())
    earlier = retired_at - timedelta(microseconds=1)
    cursor.execute(insert, ["kitchen", [earlier, retired_at - timedelta(days=30)]])
    cursor.execute(insert, ["office", [retired_at, datetime.now(UTC)]])
    for moments in ([retired_at], [datetime.now(UTC)], [earlier, retired_at]):
        with pytest.raises(psycopg2.errors.CheckViolation, match='room "kitchen" was retired') as refusal:
            cursor.execute(insert, ["kitchen", moments])
        assert "rooms retire --undo" in str(refusal.value)
    # What was there before the retirement stays, and the room takes readings when it is back.
    cursor.execute("SELECT count(*) FROM sensor_readings WHERE room = 'kitchen'")
    assert cursor.fetchone() == (3,)
    answer(database, "rooms", "retire", "kitchen", "--undo")
    cursor.execute(insert, ["kitchen", [retired_at]])


@pytest.mark.parametrize(
    ("arguments", "reason", "code"),
    [
        (["label", "attic", "Attic"], "unknown room 'attic'", ExitCode.FAILED),
        (["label", "Office", "Office"], "(there is 'office')", ExitCode.FAILED),
        (["retire", "attic"], "rooms list", ExitCode.FAILED),
        (["retire", "attic", "--undo"], "unknown room 'attic'", ExitCode.FAILED),
        (["retire", "office", "--at", "yesterday"], "is not a time", ExitCode.USAGE),
        (["retire", "office", "--at", "2026-11-20", "--undo"], "takes no --at", ExitCode.USAGE),
        (["label", "office"], "--remove", ExitCode.USAGE),
        (["label", "office", "Office", "--remove"], "--remove", ExitCode.USAGE),
        (["label", "office", "a\nb"], "U+000A", ExitCode.USAGE),
        (["add", "a", "b", "--label", "A"], "2 rooms and 1 labels", ExitCode.USAGE),
    ],
)
def test_what_cannot_be_done_is_refused(
    database: Database, arguments: list[str], reason: str, code: ExitCode
) -> None:
    assert reason in refused(database, *arguments, code=code)
    assert names(database) == SIX
    assert run(database, "SELECT count(*) FROM rooms") == [(0,)]


def test_only_the_owner_changes_rooms_and_others_list_them(database: Database) -> None:
    grant(database.cluster, database.name)
    app = {"POSTGRES_USER": "occupancy_app", "POSTGRES_PASSWORD": password("occupancy_app")}
    for command in (["add", "kitchen"], ["label", "office", "Office"], ["retire", "office"]):
        said = refused(database, *command, code=ExitCode.PERMISSION, **app)
        assert "occupancy_app cannot change rooms: occupancy owns" in said
    with pytest.raises(AssertionError, match="permission denied for table rooms"):
        as_app(database, "INSERT INTO rooms (room, label) VALUES ('office', 'Office')")
    assert names(database) == SIX
    for user in ("occupancy_app", "occupancy_readonly"):
        listed = answer(database, "rooms", "list", POSTGRES_USER=user, POSTGRES_PASSWORD=password(user))
        assert [row["room"] for row in listed["rooms"]] == SIX


def as_app(database: Database, statement: str) -> None:
    connection = database.cluster.connect(database.name, "occupancy_app", password("occupancy_app"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except Exception as error:
        raise AssertionError(str(error)) from error
    finally:
        connection.close()


def test_the_list_shows_zones_and_the_last_reading(database: Database, cursor: Cursor) -> None:
    answer(database, "rooms", "add", "kitchen")
    moment = datetime.now(UTC).replace(microsecond=0)
    for zone, age in (("stove", 1), ("sink", 0)):
        cursor.execute(
            "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
            "VALUES (%s, 'kitchen', %s, true, 'x')",
            [moment - timedelta(days=age), zone],
        )
    found = {row["room"]: row for row in answer(database, "rooms", "list")["rooms"]}
    assert (found["kitchen"]["zones"], found["kitchen"]["last_reading"]) == (2, str(moment))
    assert (found["office"]["zones"], found["office"]["last_reading"]) == (0, None)


def test_neither_a_writer_nor_who_adds_a_room_waits_for_the_other(database: Database) -> None:
    """Each holds the locks of an open transaction while the other works with the shortest lock timeout."""
    grant(database.cluster, database.name)
    app = {"user": "occupancy_app", "password": password("occupancy_app")}
    insert = (
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
        "VALUES (now(), %s, 'desk', true, 'x')"
    )
    writer = database.cluster.connect(database.name, **app, options="-c lock_timeout=1")
    owner = database.connect(options="-c lock_timeout=1")
    try:
        with writer.cursor() as writing, owner.cursor() as adding:
            adding.execute("BEGIN; ALTER TYPE room_type ADD VALUE IF NOT EXISTS 'hall'")
            writing.execute(insert, ["office"])
            adding.execute("COMMIT")
            writing.execute("BEGIN")
            writing.execute(insert, ["hall"])
            adding.execute("ALTER TYPE room_type ADD VALUE IF NOT EXISTS 'kitchen'")
            writing.execute(insert, ["kitchen"])
            writing.execute("COMMIT")
    finally:
        writer.close()
        owner.close()
    assert run(database, "SELECT array_agg(room::text ORDER BY id) FROM sensor_readings") == [
        (["office", "hall", "kitchen"],)
    ]


RATE = 200
WRITERS = 4


class TlsWriters:
    """Sessions of the application over TLS, opened before the rooms are added.

    Attributes:
        room: The room of the next readings.
        written: The number of readings by room.
        failed: The errors of the server.
    """

    def __init__(self) -> None:
        self.room = "office"
        self.written: dict[str, int] = {}
        self.failed: list[str] = []

    def enough(self) -> bool:
        """Whether 50 readings of the present room are written, or one failed."""
        return self.written.get(self.room, 0) >= 50 or bool(self.failed)

    async def work(self, connection: Any, over: asyncio.Event) -> None:
        insert = await connection.prepare(READING)
        due = asyncio.get_running_loop().time()
        while not over.is_set():
            room = self.room
            try:
                await insert.fetch(datetime.now(UTC), room)
                self.written[room] = self.written.get(room, 0) + 1
            except asyncpg.PostgresError as error:
                self.failed.append(repr(error))
            due += WRITERS / RATE
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def test_an_added_room_takes_readings_of_sessions_that_were_open_before(
    database: Database,
) -> None:
    grant(database.cluster, database.name)
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)
    writers, over = TlsWriters(), asyncio.Event()
    with tls_tunnel(server, database.cluster.host, database.cluster.port) as port:
        sessions = [
            await asyncpg.connect(
                host="localhost", port=port, user="occupancy_app", password=password("occupancy_app"),
                database=database.name, ssl=client,
            )
            for _ in range(WRITERS)
        ]  # fmt: skip
        tasks = [asyncio.create_task(writers.work(session, over)) for session in sessions]
        try:
            await wait_for_async(writers.enough, "50 readings of office")
            for room in ("kitchen", "garage", "attic"):
                done = await asyncio.to_thread(
                    answer, database, "rooms", "add", room, "--label", room.title()
                )
                assert done["added"] == [room]
                writers.room = room
                await wait_for_async(writers.enough, f"50 readings of {room}")
        finally:
            over.set()
            await asyncio.gather(*tasks)
            for session in sessions:
                await session.close()
    assert writers.failed == []
    rows = run(database, "SELECT room::text, count(*) FROM sensor_readings GROUP BY 1")
    assert dict(rows) == writers.written
