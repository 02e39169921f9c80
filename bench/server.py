"""A temporary server in a container with its own volume, TLS and SCRAM."""

import secrets
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import trustme

from occupancy_db.settings import Environment, Settings
from provisioning import images

ROOT = Path(__file__).parents[1]

OWNER = "occupancy"

_NEEDED = {
    "timezone": "UTC",
    "log_checkpoints": "off",
    "listen_addresses": "*",
    "unix_socket_directories": "/var/run/postgresql",
    "ssl": "on",
    "ssl_cert_file": "/var/lib/postgresql/data/server.pem",
    "ssl_key_file": "/var/lib/postgresql/data/server.pem",
}
"""Settings of all measurements; the other settings have PostgreSQL's defaults, including durability."""

# initdb as in the Compose file, but with SCRAM for the superuser.
_INITIALISE = """
set -eu
umask 077
read -r password
printf '%s' "$password" >/tmp/password
initdb --pgdata="$PGDATA" --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 --data-checksums \
    --encoding=UTF8 --locale=C.UTF-8 --lc-collate=C >/dev/null
echo 'hostssl all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
cat >"$PGDATA/server.pem"
"""


class NoEngineError(Exception):
    """No engine has the image of the server."""


class Server:
    """A running PostgreSQL server, which is removed when the ``with`` block ends.

    Attributes:
        name: Name of the container and of its volume.
        image: Image of the container.
        port: Port on 127.0.0.1.
    """

    def __init__(
        self,
        work: Path,
        limits: Mapping[str, str],
        settings: Mapping[str, str],
        name: str = "occupancy-bench",
    ) -> None:
        """Find the image.

        Args:
            work: A directory for the CA certificate.
            limits: Limits of the container, by Docker's names.
            settings: Settings of the server.
            name: Name of the container and of its volume.

        Raises:
            NoEngineError: no image was made ready, or no engine is running.
        """
        try:
            self.image: str = images.read_manifest(ROOT)["postgres"]["image"]
            _docker("image", "inspect", self.image)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoEngineError("no engine with the server's image: run 'make images' first") from error
        self.name, self._limits, self._settings = name, limits, settings
        self.port = 0
        self._ca_file = work / f"{name}.crt"
        self._password = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        self._remove()
        try:
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _start(self) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self._ca_file)
        self.ssl = ssl.create_default_context(cafile=str(self._ca_file))
        pem = ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes()
        hardened = ["--user=999:999", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
        data = f"--volume={self.name}:/var/lib/postgresql/data"
        _docker("volume", "create", self.name)
        _docker(
            *("run", "--rm", "--interactive", "--network=none", *hardened, data),
            *("--entrypoint=/bin/sh", self.image, "-c", _INITIALISE),
            stdin=self._password.encode() + b"\n" + pem,
        )
        limits = [f"--{name}={value}" for name, value in self._limits.items()]
        settings = [f"-c{name}={value}" for name, value in {**self._settings, **_NEEDED}.items()]
        _docker(
            *(
                "run",
                "--detach",
                "--init",
                f"--name={self.name}",
                "--publish=127.0.0.1::5432",
                *hardened,
                *limits,
                data,
            ),
            *("--tmpfs=/var/run/postgresql:uid=999,gid=999", "--entrypoint=postgres", self.image, *settings),
        )
        self.port = int(_docker("port", self.name, "5432/tcp").splitlines()[0].rsplit(":", 1)[1])
        for _ in range(300):
            try:
                self.execute("pg_isready", "--quiet", "--host=127.0.0.1")
            except subprocess.CalledProcessError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError(f"the server did not start: {_docker('logs', '--tail=20', self.name)}")

    def _remove(self) -> None:
        for command in (("rm", "--force", "--volumes", self.name), ("volume", "rm", "--force", self.name)):
            subprocess.run(["docker", *command], check=False, capture_output=True)

    def execute(self, *command: str) -> str:
        """Run a program in the container, and return its output."""
        return _docker("exec", self.name, *command)

    def pgbench(self, database: str, *arguments: str) -> str:
        """Run pgbench as the superuser, in the container and on its processors."""
        script = 'umask 077; read -r line; echo "$line" >/tmp/pass; PGPASSFILE=/tmp/pass exec pgbench "$@"'
        return _docker(
            *("exec", "--interactive", self.name, "sh", "-c", script, "sh"),
            *("--host=/var/run/postgresql", "--username=postgres", *arguments, database),
            stdin=f"*:*:*:*:{self._password}\n".encode(),
        )

    async def connect(self, database: str, user: str = OWNER) -> Any:
        """Open a connection of asyncpg over TLS."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=self._password,
            database=database,
            ssl=self.ssl,
        )

    async def administer(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in its own transaction."""
        connection = await self.connect(database, "postgres")
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def create_owner(self) -> None:
        """Create the role that owns all databases, without superuser."""
        await self.create_user(OWNER)

    async def create_user(self, name: str) -> None:
        """Create a role with the password that all users have."""
        await self.administer(f"CREATE ROLE {name} LOGIN PASSWORD '{self._password}'")

    async def create_database(self, name: str) -> None:
        """Create an empty database."""
        await self.administer(f"CREATE DATABASE {name} OWNER {OWNER}")

    async def drop_database(self, name: str) -> None:
        """Drop a database, and end its sessions."""
        await self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def settle(self, *databases: str) -> None:
        """Vacuum, analyze and write everything to disk, so that nothing runs in the background."""
        for database in databases:
            await self.administer("VACUUM (ANALYZE)", database=database)
        await self.administer("CHECKPOINT")

    def environment(self, database: str, user: str = OWNER) -> dict[str, str]:
        """Return environment variables for a database, with the production profile."""
        return {
            "ENVIRONMENT": Environment.PRODUCTION.value,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DB": database,
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD": self._password,
            "POSTGRES_SSLROOTCERT": str(self._ca_file),
        }

    def settings(self, database: str) -> Settings:
        """Return the settings of the product for a database."""
        variables = {name.lower(): value for name, value in self.environment(database).items()}
        return Settings(**variables)  # type: ignore[arg-type]  # text, as in an environment: pydantic converts it


def _docker(*arguments: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, check=True, capture_output=True)
    return (done.stdout + done.stderr).decode().strip()
