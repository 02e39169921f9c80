"""Sending: messages by Apprise, and the heartbeat. Nothing here prints or keeps any part of a URL."""

import logging
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from occupancy_db.notify.receivers import Receiver
from occupancy_db.notify.state import Message

HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
"""The CAs that the host trusts, as Debian's update-ca-certificates writes them."""

SECONDS = 45.0
"""How long all deliveries of one run may take together; the receivers get theirs at the same time."""

HEARTBEAT_SECONDS = 10.0
"""How long a heartbeat may take."""

LATE = "no answer in time"

_REASONS = (
    (r"certificate verify failed|certificate ?error|hostname mismatch", "certificate not trusted"),
    (r"name or service not known|name resolution|getaddrinfo|no address associated", "name not found"),
    (r"connection refused", "connection refused"),
    (r"timed out|timeout|could not be delivered", LATE),
    (r"no route to host|network is unreachable", "no route to it"),
    (r"tunnel connection failed|proxyerror", "refused by the proxy"),
    (r"authentication|\b535\b", "login refused"),
    (r"\bssl\b|sslerror|\btls\b", "TLS failed"),
    (r"connection reset|remotedisconnected|connection aborted|unexpectedly closed", "connection closed"),
)
# The rest of what Apprise says may quote the URL.
_STATUS = re.compile(r"error=([1-5]\d\d)\b|\(([45]\d\d), b'")


class _Log(logging.Handler):
    """Collects what Apprise says in each thread: it returns only whether a message was sent."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: dict[int, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.setdefault(record.thread or 0, []).append(record.getMessage())

    def take(self) -> str:
        """The lines of this thread since the last call."""
        return "\n".join(self.lines.pop(threading.get_ident(), ()))


_log = _Log()


def reason(text: str) -> str:
    """Why something failed, in fixed words, from what a library says about it."""
    if found := _STATUS.search(text):
        return f"answered with status {found[1] or found[2]}"
    lower = text.lower()
    return next((said for pattern, said in _REASONS if re.search(pattern, lower)), "refused, or not reached")


def trust_the_host() -> None:
    """Trust the CAs of the host, private ones among them, and without its file those of the package certifi.

    Requests would trust certifi's alone, and the rest of Python none in the container.
    """
    if HOST_CAS.exists():
        found = str(HOST_CAS)
    else:
        import certifi

        found = certifi.where()
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        os.environ.setdefault(name, found)


def quiet() -> None:
    """Keep what Apprise and urllib3 log, URLs among it, from all other logs and from standard error."""
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    for logger in (logging.getLogger("apprise"), logging.getLogger("urllib3")):
        logger.propagate = False
        logger.addHandler(_log)  # which it has once


def usable(url: str) -> bool:
    """Whether Apprise understands a URL."""
    quiet()
    found = _service(url)
    _log.take()
    return found is not None


def _service(url: str) -> Any:
    import apprise  # a second of work, which runs without messages do not need

    asset = apprise.AppriseAsset(
        app_id="occupancy-db",
        app_desc="Occupancy database",
        app_url="",
        async_mode=False,
        plugin_paths=[],
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    return apprise.Apprise.instantiate(url, asset=asset)


def deliver(
    receivers: Sequence[Receiver], waiting: Mapping[str, Sequence[Message]], seconds: float = SECONDS
) -> Iterator[tuple[Receiver, Message, str]]:
    """Send messages: to all receivers at once, to each in their order, up to the first that fails.

    Args:
        receivers: Who gets messages.
        waiting: The messages of each receiver, by its key.
        seconds: When to give up.

    Yields:
        The receiver, the message, and "" or why it failed, when it is known.
    """
    due = [one for one in receivers if waiting.get(one.key)]
    if not due:
        return
    quiet()
    results: queue.SimpleQueue[tuple[Receiver, Message, str]] = queue.SimpleQueue()
    # A library may wait for longer than its own limits allow: a thread that is late is left behind.
    for one in due:
        service = _service(one.url)
        _log.take()
        arguments = (one, service, waiting[one.key], results)
        threading.Thread(target=_send_all, args=arguments, daemon=True).start()
    left = {one.key: list(waiting[one.key]) for one in due}
    end = time.monotonic() + seconds
    while left:
        try:
            receiver, message, failure = results.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        left[receiver.key].remove(message)
        if failure or not left[receiver.key]:
            del left[receiver.key]
        yield receiver, message, failure
    for one in due:
        if one.key in left:
            yield one, left[one.key][0], LATE


def _send_all(receiver: Receiver, service: Any, messages: Sequence[Message], results: Any) -> None:
    for message in messages:
        failure = "Apprise does not understand this URL" if service is None else _send(service, message)
        results.put((receiver, message, failure))
        if failure:
            return


def _send(service: Any, message: Message) -> str:
    try:
        sent = service.notify(
            body=message.body, title=message.title, notify_type=message.kind, body_format="text"
        )
    except Exception as error:  # of any library below Apprise
        _log.take()
        return reason(f"{type(error).__name__}: {error}")
    said = _log.take()
    return "" if sent else reason(said)


def beat(url: str, release: str, seconds: float = HEARTBEAT_SECONDS) -> str:
    """Request the URL of the heartbeat.

    Args:
        url: It begins with https:// or http://.
        release: Release of the product, for the name of the client.
        seconds: When to give up.

    Returns:
        "" or why it failed.
    """
    results: queue.SimpleQueue[str] = queue.SimpleQueue()

    def request() -> None:
        try:
            # Preflight accepts https and http alone (provisioning/notify_checks.py).
            wanted = urllib.request.Request(url, headers={"User-Agent": f"occupancy-db/{release}"})  # noqa: S310
            with urllib.request.urlopen(wanted, timeout=seconds) as answer:  # noqa: S310
                answer.read(1024)
            results.put("")
        except urllib.error.HTTPError as error:
            results.put(f"answered with status {error.code}")
        except Exception as error:  # a URL that cannot be parsed, a proxy, a socket
            results.put(reason(f"{type(error).__name__}: {error}"))

    threading.Thread(target=request, daemon=True).start()
    try:
        return results.get(timeout=seconds)
    except queue.Empty:
        return LATE
