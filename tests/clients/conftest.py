"""Fixtures: one container of the server image for the session, one database for each test."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2.extensions
import pytest

from bench.server import Server
from tests.clients.server import APPLICATION, LIMITS, SETTINGS, Login, Provisioned
from tests.database.users import OWNER

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provisioned]:
    """The server; its container and its volume are removed at the end."""
    name = f"occupancy-clients-{os.getpid()}"
    with Server(tmp_path_factory.mktemp("ca"), LIMITS, SETTINGS, name) as server:
        yield Provisioned(server)


@dataclass(frozen=True)
class Database:
    """A migrated database without rows."""

    server: Provisioned
    name: str


@pytest.fixture(scope="session")
def shared(server: Provisioned) -> Database:
    """The database of the tests that change rows only."""
    server.create_database("clients")
    return Database(server, "clients")


@pytest.fixture
def database(request: pytest.FixtureRequest, server: Provisioned, shared: Database) -> Iterator[Database]:
    """A database without rows: the shared one, or with the marker own_database one for this test."""
    if request.node.get_closest_marker("own_database") is None:
        yield shared
        server.execute("TRUNCATE sensor_readings, room_transitions, predictions", database=shared.name)
        return
    name = f"clients_{next(_numbers)}"
    server.create_database(name)
    yield Database(server, name)
    server.drop_database(name)


@pytest.fixture
def application(database: Database) -> Login:
    """What a client is given: the application's login."""
    return database.server.login(APPLICATION, database.name)


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor of the owner; each statement is a transaction of its own."""
    connection = database.server.connect(OWNER, database.name)
    with connection.cursor() as cursor:
        yield cursor
    connection.close()
