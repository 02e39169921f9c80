"""Preflight's checks of the role notify: its URLs are secrets, of which a message has the scheme at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from occupancy_db.notify.receivers import scheme
from provisioning.request import Problems, Request

MOST = 20
"""URLs in the list."""

_LOOPBACK = ("localhost", "ip6-localhost", "::1", "0.0.0.0")  # noqa: S104 # compared, not bound
_HERE = (
    "names the container in which the tools run, not the host: write host.docker.internal for a receiver on "
    "the host, which must listen on its other addresses, too."
)


def check_notify(request: Request) -> list[str]:
    """The URLs are URLs, Apprise understands them, and their host can be reached from a container."""
    problem = Problems()
    urls: Sequence[Any] = request["occupancy_notify"]
    problem(len(urls) > MOST, f"occupancy_notify has {len(urls)} entries, and at most {MOST} are possible.")
    seen: dict[str, int] = {}
    for number, url in enumerate(urls[:MOST], 1):
        entry = f"Entry {number} of occupancy_notify"
        if not isinstance(url, str) or scheme(url) == "without a scheme":
            problem(
                True, f"{entry} is no URL of Apprise, like ntfys://ntfy.sh/TOPIC: see docs/notifications.md."
            )
            continue
        entry += f" ({scheme(url)})"
        if url in seen:
            problem(True, f"{entry} is the same as entry {seen[url]}: remove one of them.")
            continue
        seen[url] = number
        _check_url(problem, entry, url)
    heartbeat = request["occupancy_notify_heartbeat"]
    if heartbeat:
        name = "occupancy_notify_heartbeat"
        correct = scheme(heartbeat) in ("http", "https") and _host(heartbeat) and heartbeat.isprintable()
        problem(
            not correct or " " in heartbeat,
            f"{name} must be a URL that begins with https:// or http://, as the service for it shows it.",
        )
        problem(correct and _is_loopback(heartbeat), f"{name} {_HERE}")
    return problem.found


def _check_url(problem: Problems, entry: str, url: str) -> None:
    if not url.isprintable():
        problem(
            True, f"{entry} has a line break or another control character: write it on one line, in quotes."
        )
    elif _is_loopback(url):
        problem(True, f"{entry} {_HERE}")
    elif not _usable(url):
        problem(
            True,
            f"{entry} cannot be used: Apprise does not know its scheme, or a part of it is missing. Compare "
            "it with the page of this service on https://appriseit.com/services/, and write special "
            "characters of passwords as %XX.",
        )


def _usable(url: str) -> bool:
    from occupancy_db.notify.send import usable  # Apprise's plugins take a second

    return usable(url)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(url: str) -> bool:
    host = _host(url)
    return host in _LOOPBACK or host.startswith("127.")
