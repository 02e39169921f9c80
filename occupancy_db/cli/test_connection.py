"""``occupancy-db test-connection``."""

import asyncio
import time

from occupancy_db.cli.output import Json, out
from occupancy_db.driver import connect_driver
from occupancy_db.settings import Settings

SERVER = """
    SELECT current_setting('server_version') AS server, current_database()::text AS database,
           current_user::text AS "user", ssl, version AS tls_version, cipher
    FROM pg_stat_ssl
    WHERE pid = pg_backend_pid()
"""


def test_connection(json: Json = False) -> None:
    """Connect, and show the server, the encryption and the latency."""
    asyncio.run(_test_connection(Settings()))


async def _test_connection(settings: Settings) -> None:
    async with connect_driver(settings, "occupancy-db test-connection") as connection:
        server = await connection.fetchrow(SERVER)
        start = time.perf_counter()
        await connection.execute("SELECT 1")
        latency = (time.perf_counter() - start) * 1000
    if settings.uses_socket:
        protection = "socket"
    elif server["ssl"]:
        protection = f"{server['tls_version']} ({server['cipher']})"
    else:
        protection = "plaintext"
    data = {
        "server_version": server["server"],
        "host": settings.postgres_host,
        "port": settings.postgres_port,
        "database": server["database"],
        "user": server["user"],
        "transport": "socket" if settings.uses_socket else "tls" if server["ssl"] else "plaintext",
        "tls_version": server["tls_version"],
        "tls_cipher": server["cipher"],
        "latency_ms": round(latency, 2),
    }
    out.result(
        data,
        f"Server      PostgreSQL {server['server']} at {settings.postgres_host}:{settings.postgres_port}",
        f"Database    {server['database']}",
        f"User        {server['user']}",
        f"Connection  {protection}",
        f"Latency     {latency:.2f} ms",
        "connection OK",
    )
