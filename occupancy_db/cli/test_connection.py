"""``occupancy-db test-connection``."""

import asyncio
import time

from rich.table import Table
from sqlalchemy import text

from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.settings import Settings

SERVER = text("""
    SELECT current_setting('server_version') AS server, current_database() AS database,
           current_user AS "user", ssl, version AS tls_version, cipher
    FROM pg_stat_ssl
    WHERE pid = pg_backend_pid()
""")


def test_connection(json: Json = False) -> None:
    """Connect, and tell what was reached, how it is protected and how fast it answers."""
    asyncio.run(_test_connection(Settings()))


async def _test_connection(settings: Settings) -> None:
    async with connect(settings, "occupancy-db test-connection") as connection:
        server = (await connection.execute(SERVER)).one()
        start = time.perf_counter()
        await connection.execute(text("SELECT 1"))
        latency = (time.perf_counter() - start) * 1000
    if settings.uses_socket:
        protection = "socket"
    elif server.ssl:
        protection = f"{server.tls_version} ({server.cipher})"
    else:
        protection = "plaintext"
    data = {
        "server_version": server.server,
        "host": settings.postgres_host,
        "port": settings.postgres_port,
        "database": server.database,
        "user": server.user,
        "transport": "socket" if settings.uses_socket else "tls" if server.ssl else "plaintext",
        "tls_version": server.tls_version,
        "tls_cipher": server.cipher,
        "latency_ms": round(latency, 2),
    }
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "Server", f"PostgreSQL {server.server} at {settings.postgres_host}:{settings.postgres_port}"
    )
    table.add_row("Database", server.database)
    table.add_row("User", server.user)
    table.add_row("Connection", protection)
    table.add_row("Latency", f"{latency:.2f} ms")
    out.result(data, table, "connection OK")
