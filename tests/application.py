"""An application and a dashboard that use a host's database beside a test."""

import threading

import psycopg2
import psycopg2.extensions

from tests.hosts import Server
from tests.waiting import LIMIT, wait_for

PAUSE = 0.02
INSERT = """
    INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity)
    VALUES (now(), 'office', 'desk', true, %s)
"""
COUNT = "SELECT count(*) FROM sensor_readings WHERE source_entity = %s"


class Application(threading.Thread):
    """Insert and read rows until `end` is called; connect again after an error.

    Attributes:
        entity: The source_entity of its rows.
        written: How many inserts the server has confirmed.
        failures: The errors of the server, and of attempts to connect.
    """

    def __init__(self, server: Server, entity: str) -> None:
        super().__init__(name=f"application of {server.name}", daemon=True)
        self.entity = entity
        self.written = 0
        self.failures: list[str] = []
        self._server = server
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            sessions: list[psycopg2.extensions.connection] = []
            try:
                sessions = [self._server.connect(user) for user in ("occupancy_app", "occupancy_readonly")]
                self._work(*sessions)
            except psycopg2.Error as error:
                self.failures.append(str(error))
                self._end.wait(PAUSE)
            finally:
                for session in sessions:
                    session.close()

    def _work(
        self, application: psycopg2.extensions.connection, dashboard: psycopg2.extensions.connection
    ) -> None:
        with application.cursor() as writer, dashboard.cursor() as reader:
            while not self._end.wait(PAUSE):
                writer.execute(INSERT, [self.entity])
                self.written += 1
                reader.execute("SELECT * FROM room_occupancy_status")

    def write_more(self) -> None:
        """Wait until another insert has been confirmed."""
        before = self.written
        wait_for(
            lambda: self.written > before, f"a row of the {self.name}", explain=lambda: self.failures[-1:]
        )

    def end(self) -> None:
        """End, and wait until the thread has ended."""
        self._end.set()
        self.join(LIMIT)

    def rows(self) -> int:
        """How many of its rows the table has."""
        connection = self._server.connect("occupancy_app")
        try:
            with connection.cursor() as cursor:
                cursor.execute(COUNT, [self.entity])
                row = cursor.fetchone()
                assert row is not None
                return int(row[0])
        finally:
            connection.close()
