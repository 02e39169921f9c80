"""The receivers of messages: the file with their URLs, which are secrets."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from occupancy_db.errors import DatabaseError, ExitCode


@dataclass(frozen=True)
class Receiver:
    """One URL of Apprise.

    Attributes:
        number: Its place in the list, from 1.
        url: The URL; a secret.
    """

    number: int
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What it is called in messages: its number and scheme."""
        return f"receiver {self.number} ({scheme(self.url)})"

    @property
    def key(self) -> str:
        """What it is called in the state: the same URL has the same key wherever it is in the list."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Receivers:
    """What the file holds.

    Attributes:
        host: Name of the host until a document of results names it.
        each: The receivers of messages.
        heartbeat: URL that is requested after each run of the checks; "" for none.
    """

    host: str
    each: tuple[Receiver, ...]
    heartbeat: str = field(default="", repr=False)


def scheme(url: str) -> str:
    """The scheme of a URL, as far as it can be shown: a text without one may be a password."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]{0,20})://", url)
    return found[1].lower() if found else "without a scheme"


def load(path: Path) -> Receivers:
    """Read the file: a JSON object with ``host``, ``urls`` and ``heartbeat``.

    Raises:
        DatabaseError: It is missing or not such a file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        urls, heartbeat = found["urls"], found.get("heartbeat", "")
        if not isinstance(urls, list) or not all(isinstance(one, str) for one in (heartbeat, *urls)):
            raise TypeError
        # The same URL twice is one receiver.
        each = tuple(Receiver(urls.index(url) + 1, url) for url in dict.fromkeys(urls))
        return Receivers(str(found.get("host", "")), each, heartbeat)
    except OSError as error:
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"{path} cannot be read ({error.strerror}): it has the URLs of the receivers",
            "On a provisioned host, set occupancy_notify in the inventory, run site.yml --tags notify, and "
            "then 'sudo occupancy-db notify test'. Elsewhere name a file with --urls.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without the text of the error, which may quote the file.
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"{path} is not a file of receivers",
            'It must be a JSON object like {"urls": ["ntfys://…"], "heartbeat": "https://…"}.',
        ) from None
