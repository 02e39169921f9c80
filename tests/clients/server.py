"""The server image with the product's users, TLS and a migrated database for each test."""

import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - used as a type
from sqlalchemy import URL

from bench.server import Server
from tests.database.cluster import CONFIGURATION
from tests.database.users import OWNER, grant, make_users, password
from tests.waiting import LIMIT

APPLICATION = "occupancy_app"
TEMPLATE = "migrated"

LIMITS = {"memory": "512m", "cpus": "2"}
# The container chooses the address itself.
SETTINGS = {name: value for name, value in CONFIGURATION.items() if name != "listen_addresses"}


@dataclass(frozen=True)
class Login:
    """A user of a database: the arguments of each driver for a connection over verify-full.

    Attributes:
        user: The name of the user.
        password: The user's password.
        database: The name of the database.
        port: On 127.0.0.1.
        ca_file: The certificate that the server's certificate is verified with.
    """

    user: str
    password: str
    database: str
    port: int
    ca_file: Path
    host: str = "127.0.0.1"

    def libpq(self) -> dict[str, Any]:
        """The keywords of libpq, which psycopg and psycopg2 take."""
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca_file),
        }

    def conninfo(self) -> str:
        """The same as one string, as libpq reads it."""
        quoted = {
            name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in self.libpq().items()
        }
        return " ".join(f"{name}='{value}'" for name, value in quoted.items())

    def url(self, driver: str) -> URL:
        """The address for SQLAlchemy; libpq's drivers find the TLS settings in it."""
        tls = {} if driver == "asyncpg" else {"sslmode": "verify-full", "sslrootcert": str(self.ca_file)}
        return URL.create(
            f"postgresql+{driver}", self.user, self.password, self.host, self.port, self.database, tls
        )

    def connect_args(self, driver: str) -> dict[str, Any]:
        """The arguments of the driver that SQLAlchemy passes on."""
        if driver != "asyncpg":
            return {}
        return {"ssl": ssl.create_default_context(cafile=str(self.ca_file))}

    async def asyncpg(self) -> Any:
        """A connection of asyncpg itself."""
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.database,
            **self.connect_args("asyncpg"),
        )

    def environment(self) -> dict[str, str]:
        """The variables of occupancy_db."""
        return {
            "ENVIRONMENT": "production",
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DB": self.database,
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_SSLMODE": "verify-full",
            "POSTGRES_SSLROOTCERT": str(self.ca_file),
        }


class Provisioned:
    """A running server with the product's users and one migrated database, the template of the others."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._superuser: Mapping[str, str] = server.environment("postgres", "postgres")
        make_users(self)
        self._create(f"{TEMPLATE} OWNER {OWNER} TEMPLATE template0")
        self.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", database=TEMPLATE)
        self.cli("migrate", database=TEMPLATE)

    def login(self, user: str, database: str) -> Login:
        """A user of a database."""
        return Login(
            user=user,
            password=self._superuser["POSTGRES_PASSWORD"] if user == "postgres" else password(user),
            database=database,
            port=self._server.port,
            ca_file=Path(self._superuser["POSTGRES_SSLROOTCERT"]),
        )

    def create_database(self, name: str) -> None:
        """Copy the template, with the rights that the access role gives."""
        self._create(f"{name} OWNER {OWNER} TEMPLATE {TEMPLATE}")
        grant(self, name)

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _create(self, database: str) -> None:
        self.execute(f"CREATE DATABASE {database}")
        self.execute(f"REVOKE ALL ON DATABASE {database.split()[0]} FROM PUBLIC")

    def connect(self, user: str, database: str) -> Connection:
        """A connection where each statement is a transaction of its own."""
        connection: Connection = psycopg2.connect(**self.login(user, database).libpq())
        connection.autocommit = True
        return connection

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        connection = self.connect("postgres", database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def cli(self, *arguments: str, database: str, **variables: str) -> None:
        """Run occupancy-db as the owner of a database, with further variables of the environment."""
        done = subprocess.run(
            [sys.executable, "-m", "occupancy_db", *arguments],
            env={"PATH": os.defpath, **self.login(OWNER, database).environment(), **variables},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
