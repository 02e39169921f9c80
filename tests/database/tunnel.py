"""A TLS proxy for the tests' server, whose build does not support TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""The message that a client sends before TLS begins (PostgreSQL's protocol, SSLRequest)."""


@contextmanager
def tls_tunnel(context: ssl.SSLContext, host: str, port: int) -> Iterator[int]:
    """Accept clients with TLS as PostgreSQL does, and connect each to a server without it.

    A client that does not request TLS is connected as well, because the tests' psql does not support it.

    Args:
        context: The certificate and its key.
        host: Where the server is.
        port: Its port.

    Yields:
        The port of the tunnel on localhost.
    """

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(len(SSL_REQUEST))
            if first == SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                first = b""
            answers, requests = await asyncio.open_connection(host, port)
            try:
                requests.write(first)
                await asyncio.gather(_copy(reader, requests), _copy(answers, writer))
            finally:
                requests.close()  # when the tunnel ends before its clients have gone
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has disconnected
        finally:
            writer.close()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listener = asyncio.run_coroutine_threadsafe(asyncio.start_server(connect, "localhost", 0), loop).result()
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_stop(listener), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


async def _stop(listener: asyncio.Server) -> None:
    listener.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
