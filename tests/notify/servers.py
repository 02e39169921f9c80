"""Receivers of messages on the loopback interface: real servers, which keep what they get."""

import contextlib
import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme
from aiosmtpd.controller import Controller

from tests.packages import debian_package
from tests.waiting import wait_for


@dataclass
class Web:
    """A web server.

    Attributes:
        status: The status that it answers with; 0 for no answer.
        requests: Method, path and body of each request.
    """

    port: int = 0
    status: int = 200
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[str]:
        return [body for _, _, body in self.requests]


@contextlib.contextmanager
def web(certificate: trustme.LeafCert | None = None) -> Iterator[Web]:
    """A web server, with TLS if it has a certificate."""
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            found.requests.append((self.command, self.path, body))
            if found.status == 0:
                found.released.wait(30)
                return
            self.send_response(found.status)
            self.end_headers()
            # ntfy's plugin reads JSON.
            self.wfile.write(b'{"id": "1"}')

        do_GET = do_POST = do_PUT = answer  # noqa: N815 # names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that do not trust it
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.released.set()
        server.shutdown()
        server.server_close()


class Mailbox:
    """What an SMTP server got."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.refuse = ""

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        """Keep a mail."""
        del server, session
        if self.refuse:
            return self.refuse
        self.mails.append(envelope.content.decode())  # type: ignore[attr-defined]
        return "250 kept"


@contextlib.contextmanager
def smtp() -> Iterator[tuple[Mailbox, int]]:
    """An SMTP server without TLS."""
    logging.getLogger("mail.log").setLevel(logging.ERROR)  # it logs what it gets
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def broker(directory: Path, topic: str) -> Iterator[tuple[int, Path]]:
    """An MQTT broker, and the file to which its messages of a topic are written.

    The package of the clients reads what the broker got: not the library that sends.
    """
    program = debian_package("mosquitto", "sbin/mosquitto")
    client = debian_package("mosquitto-clients", "bin/mosquitto_sub")
    port, got = free_port(), directory / "got"
    configuration = directory / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("w"))
        stack.enter_context(_process([str(program), "-v", "-c", str(configuration)], log))
        wait_for(lambda: _listens(port), "the broker listens")
        stack.enter_context(
            _process([str(client), "-p", str(port), "-t", topic], stack.enter_context(got.open("w")))
        )
        wait_for(lambda: "SUBSCRIBE" in (directory / "log").read_text(), "the client has subscribed")
        yield port, got


@contextlib.contextmanager
def _process(command: list[str], output: object) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
