"""Clients without an ORM: asyncpg, psycopg 3, psycopg2, and parameters of an unknown type."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
from psycopg import pq
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.string import StrDumperVarchar
from psycopg2.extras import execute_values

from tests.clients.models import Room
from tests.clients.server import Login

NOW = datetime.now(UTC)
LOOP = 7
"""More than the five executions after which PostgreSQL may choose a generic plan."""

COLUMNS = "timestamp, room, zone, state, source_entity"

# Conditions on the room of three readings (office, office, bedroom): the parameter, and how many it finds.
CONDITIONS: list[tuple[str, Any, int]] = [
    ("room = {}", "office", 2),
    ("{} = room", "office", 2),
    ("room <> {}", "office", 1),
    ("room = {}", "kitchen", 0),
    ("room LIKE {}", "off%", 2),
    ("upper(room) = {}", "OFFICE", 2),
    ("room IN ('bedroom', {})", "kitchen", 1),
    ("coalesce(room, 'initial') = {}", "office", 2),
    ("room = 'office' AND zone = {}", "desk", 2),
]
LISTS: list[tuple[str, list[str], int]] = [
    ("room = ANY({})", ["office", "bedroom"], 3),
    ("room = ANY({})", ["kitchen"], 0),
    ("room <> ALL({})", ["office", "kitchen"], 1),
]


@pytest.fixture
def filled(owner: Any) -> None:
    owner.execute(
        f"INSERT INTO sensor_readings ({COLUMNS}) "
        "SELECT now(), room, 'desk', true, 'binary_sensor.fp2_desk' "
        "FROM unnest(ARRAY['office', 'office', 'bedroom']) AS room"
    )


@pytest.fixture
def three(application: Login) -> Iterator[psycopg.Connection[Any]]:
    """A connection of psycopg 3 that commits each statement."""
    with psycopg.connect(application.conninfo(), autocommit=True) as connection:
        yield connection


class TestAsyncpg:
    @pytest.mark.usefixtures("filled")
    @pytest.mark.parametrize("cast", ["", "::varchar", "::text"])
    async def test_filters(self, application: Login, cast: str) -> None:
        """Without a cast, the server chooses the type of the parameter."""
        connection = await application.asyncpg()
        for condition, value, count in CONDITIONS:
            query = f"SELECT count(*) FROM sensor_readings WHERE {condition.format(f'$1{cast}')}"
            assert [await connection.fetchval(query, value) for _ in range(LOOP)] == [count] * LOOP, query
        for condition, values, count in LISTS:
            parameter = f"$1{cast}[]" if cast else "$1"
            query = f"SELECT count(*) FROM sensor_readings WHERE {condition.format(parameter)}"
            assert [await connection.fetchval(query, values) for _ in range(LOOP)] == [count] * LOOP, query
        await connection.close()

    @pytest.mark.usefixtures("filled")
    async def test_filters_with_the_type(self, application: Login) -> None:
        connection = await application.asyncpg()
        count = "SELECT count(*) FROM sensor_readings WHERE"
        for _ in range(LOOP):
            assert await connection.fetchval(f"{count} room = $1::room_type", "office") == 2
            assert await connection.fetchval(f"{count} room <> $1::room_type", "office") == 1
            assert (
                await connection.fetchval(f"{count} room = ANY($1::room_type[])", ["office", "bedroom"]) == 3
            )
        with pytest.raises(asyncpg.InvalidTextRepresentationError, match='enum room_type: "kitchen"'):
            await connection.fetchval(f"{count} room = $1::room_type", "kitchen")
        await connection.close()

    @pytest.mark.parametrize("cast", ["", "::varchar", "::text", "::room_type"])
    async def test_inserts(self, application: Login, cast: str) -> None:
        connection = await application.asyncpg()
        insert = (
            f"INSERT INTO sensor_readings ({COLUMNS}) VALUES ($1, $2{cast}, 'desk', true, 'e') RETURNING *"
        )
        for number in range(LOOP):
            row = await connection.fetchrow(insert, NOW - timedelta(minutes=number), "office")
            assert row["room"] == "office"
            assert await connection.fetchval("SELECT room FROM sensor_readings WHERE id = $1", row["id"])
        with pytest.raises(asyncpg.InvalidTextRepresentationError, match='enum room_type: "kitchen"'):
            await connection.fetchrow(insert, NOW, "kitchen")
        await connection.close()

    async def test_copy(self, application: Login) -> None:
        connection = await application.asyncpg()
        rows = [(NOW, room, "desk", True, "e") for room in ("office", "bedroom")]
        await connection.copy_records_to_table("sensor_readings", records=rows, columns=COLUMNS.split(", "))
        assert await connection.fetchval("SELECT count(*) FROM sensor_readings") == 2
        await connection.close()


class TestPsycopg:
    @pytest.mark.usefixtures("filled")
    @pytest.mark.parametrize("placeholder", ["%s", "%t", "%b"])
    def test_filters(self, three: psycopg.Connection[Any], placeholder: str) -> None:
        """%t sends text of an unknown type, %b sends the type text in binary."""
        for condition, value, count in CONDITIONS:
            query: Any = f"SELECT count(*) FROM sensor_readings WHERE {condition.format(placeholder)}"
            found = [three.execute(query, [value], prepare=True).fetchone() for _ in range(LOOP)]
            assert found == [(count,)] * LOOP, query
        for condition, values, count in LISTS:
            query = f"SELECT count(*) FROM sensor_readings WHERE {condition.format(placeholder)}"
            found = [three.execute(query, [values], prepare=True).fetchone() for _ in range(LOOP)]
            assert found == [(count,)] * LOOP, query

    @pytest.mark.usefixtures("filled")
    def test_strings_as_varchar(self, three: psycopg.Connection[Any]) -> None:
        """The type that Java's drivers send by default."""
        three.adapters.register_dumper(str, StrDumperVarchar)
        for condition, value, count in CONDITIONS:
            query: Any = f"SELECT count(*) FROM sensor_readings WHERE {condition.format('%s')}"
            found = [three.execute(query, [value], prepare=True).fetchone() for _ in range(LOOP)]
            assert found == [(count,)] * LOOP, query
        three.execute(
            f"INSERT INTO sensor_readings ({COLUMNS}) VALUES (now(), %s, 'd', true, 'e')", ["office"]
        )

    @pytest.mark.usefixtures("filled")
    def test_members_of_a_registered_enumeration(self, three: psycopg.Connection[Any]) -> None:
        info = EnumInfo.fetch(three, "room_type")
        assert info is not None
        mapping = {room: room.value for room in Room}
        register_enum(info, three, Room, mapping=mapping)
        for _ in range(LOOP):
            for placeholder in ("%s", "%t", "%b"):
                query: Any = f"SELECT count(*) FROM sensor_readings WHERE room = {placeholder}"
                assert three.execute(query, [Room.OFFICE], prepare=True).fetchone() == (2,)
            every: Any = "SELECT count(*) FROM sensor_readings WHERE room = ANY(%s)"
            assert three.execute(every, [[Room.OFFICE, Room.BEDROOM]], prepare=True).fetchone() == (3,)
            insert: Any = f"INSERT INTO sensor_readings ({COLUMNS}) VALUES (now(), %s, 'd', true, 'e')"
            three.execute(insert, [Room.LIVING_KITCHEN], prepare=True)
        assert three.execute("SELECT DISTINCT room::room_type FROM sensor_readings").rowcount == 3

    @pytest.mark.parametrize("placeholder", ["%s", "%t", "%b"])
    def test_inserts(self, three: psycopg.Connection[Any], placeholder: str) -> None:
        insert: Any = (
            f"INSERT INTO sensor_readings ({COLUMNS}) VALUES (%s, {placeholder}, 'desk', true, 'e') "
            "RETURNING id, room"
        )
        for _ in range(LOOP):
            row = three.execute(insert, [NOW, "office"], prepare=True).fetchone()
            assert row is not None
            assert row[1] == "office"
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match='enum room_type: "kitchen"'):
            three.execute(insert, [NOW, "kitchen"])
        with three.cursor() as cursor:
            cursor.executemany(insert, [[NOW, "office"], [NOW, "bedroom"]])
            with cursor.copy(f"COPY sensor_readings ({COLUMNS}) FROM STDIN") as copy:
                copy.write_row([NOW, "bedroom", "desk", True, "e"])
        counts = three.execute("SELECT room, count(*) FROM sensor_readings GROUP BY room ORDER BY room")
        assert counts.fetchall() == [("bedroom", 2), ("office", LOOP + 1)]


UNKNOWN, TEXT, VARCHAR = 0, 25, 1043


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("type_", [UNKNOWN, TEXT, VARCHAR], ids=["unknown", "text", "varchar"])
def test_parameters_of_the_protocol(application: Login, type_: int) -> None:
    """As JDBC sends them: text, prepared under a name; unspecified, or as varchar (its stringtype)."""
    connection = pq.PGconn.connect(application.conninfo().encode())
    assert connection.status == pq.ConnStatus.OK, connection.error_message

    def answers(name: str, query: str, types: list[int], *values: bytes) -> list[tuple[int, bytes | None]]:
        prepared = connection.prepare(name.encode(), query.encode(), types)
        assert prepared.status == pq.ExecStatus.COMMAND_OK, (query, prepared.error_message)
        results = [connection.exec_prepared(name.encode(), values) for _ in range(LOOP)]
        return [(r.status, r.get_value(0, 0) if r.ntuples else r.error_message) for r in results]

    ok = pq.ExecStatus.TUPLES_OK
    for number, (condition, value, count) in enumerate(CONDITIONS):
        query = f"SELECT count(*) FROM sensor_readings WHERE {condition.format('$1')}"
        found = answers(f"q{number}", query, [type_], value.encode())
        assert found == [(ok, str(count).encode())] * LOOP, query
    insert = f"INSERT INTO sensor_readings ({COLUMNS}) VALUES ($1, $2, $3, $4, $5) RETURNING room"
    types = [UNKNOWN, type_, type_, UNKNOWN, type_]
    values = [NOW.isoformat().encode(), b"office", b"desk", b"true", b"e"]
    assert answers("insert", insert, types, *values) == [(ok, b"office")] * LOOP
    move = (
        "INSERT INTO room_transitions (timestamp, from_room, to_room, transition_duration_seconds) "
        "VALUES ($1, $2, $3, $4) RETURNING coalesce(from_room, 'initial')"
    )
    types = [UNKNOWN, type_, type_, UNKNOWN]
    assert answers("move", move, types, values[0], b"office", b"bedroom", b"4") == [(ok, b"office")] * LOOP
    status, message = answers(
        "bad", insert, [UNKNOWN, type_, type_, UNKNOWN, type_], values[0], b"kitchen", *values[2:]
    )[0]
    assert status == pq.ExecStatus.FATAL_ERROR
    assert b'invalid input value for enum room_type: "kitchen"' in (message or b"")
    connection.finish()


class TestPsycopg2:
    """psycopg2 writes the parameters into the statement as literals."""

    @pytest.mark.usefixtures("filled")
    def test_filters(self, application: Login) -> None:
        connection = psycopg2.connect(**application.libpq())
        with connection, connection.cursor() as cursor:
            for condition, value, count in [*CONDITIONS, *LISTS]:
                cursor.execute(
                    f"SELECT count(*) FROM sensor_readings WHERE {condition.format('%s')}", [value]
                )
                assert cursor.fetchone() == (count,), condition
            cursor.execute("SELECT count(*) FROM sensor_readings WHERE room IN %s", [("office", "kitchen")])
            assert cursor.fetchone() == (2,)
        connection.close()

    def test_inserts(self, application: Login) -> None:
        connection = psycopg2.connect(**application.libpq())
        row = [NOW, "office", "desk", True, "e"]
        with connection, connection.cursor() as cursor:
            insert = f"INSERT INTO sensor_readings ({COLUMNS}) VALUES"
            cursor.execute(f"{insert} (%s, %s, %s, %s, %s) RETURNING id", row)
            assert cursor.fetchone() is not None
            cursor.executemany(f"{insert} (%s, %s, %s, %s, %s)", [row, row])
            execute_values(cursor, f"{insert} %s", [row] * 10)
            cursor.execute("SELECT DISTINCT room, count(*) FROM sensor_readings GROUP BY room")
            assert cursor.fetchall() == [("office", 13)]
        with (
            pytest.raises(psycopg2.errors.InvalidTextRepresentation, match='enum room_type: "kitchen"'),
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"{insert} (%s, %s, %s, %s, %s)", [NOW, "kitchen", "desk", True, "e"])
        connection.close()
