"""What was sent and what waits: the file ``state.json`` of the notifications."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from occupancy_db.backup import files

HEARTBEAT = "heartbeat"
"""The name of the heartbeat among the failures."""

QUEUE = 20
"""How many messages wait at most. The oldest ones are dropped, and the next message says so."""

RESERVE = 128 * 1024
"""Bytes of a file that is removed when the disk is full: the state, which is smaller, takes its place."""


@dataclass(frozen=True)
class Problem:
    """A check that a message has called bad.

    Attributes:
        told: When the last message named it.
        better: Time of the first document in which it was not bad any more; None while it is bad.
    """

    told: datetime
    better: datetime | None = None


@dataclass(frozen=True)
class Message:
    """A message, and who has not got it yet.

    Attributes:
        time: When it was written, in UTC.
        kind: "failure", "success" or "info", Apprise's types of messages.
        title: First line.
        body: The text.
        receivers: Keys of the receivers that it was not delivered to.
    """

    time: datetime
    kind: str
    title: str
    body: str
    receivers: tuple[str, ...] = ()

    @property
    def content(self) -> tuple[datetime, str, str]:
        """What makes it this message, whoever has got it."""
        return self.time, self.title, self.body


@dataclass(frozen=True)
class Failure:
    """A receiver that cannot be reached.

    Attributes:
        name: What it is called in messages: its number and scheme.
        text: Why, without any part of its URL.
        since: Time of the first attempt that failed.
    """

    name: str
    text: str
    since: datetime


@dataclass(frozen=True)
class State:
    """All that a run leaves for the next one.

    Attributes:
        host: Name of the host in the last document.
        problems: The checks that messages have called bad, by name.
        queue: The messages that wait, oldest first.
        dropped: How many were dropped since the last message.
        failures: The receivers that cannot be reached, by key; the heartbeat too.
        note: What was wrong with the file itself.
    """

    host: str = ""
    problems: dict[str, Problem] = field(default_factory=dict)
    queue: tuple[Message, ...] = ()
    dropped: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    note: str = ""

    def add(self, message: Message) -> "State":
        """Return the state with one more message in the queue, which stays bounded."""
        if not message.receivers:
            return self
        queue = (*self.queue, message)
        return replace(self, queue=queue[-QUEUE:], dropped=self.dropped + max(0, len(queue) - QUEUE))

    def known(self, keys: set[str]) -> "State":
        """Return the state without receivers that are no longer configured."""
        queue = tuple(
            replace(one, receivers=tuple(key for key in one.receivers if key in keys)) for one in self.queue
        )
        kept = {key: one for key, one in self.failures.items() if key in keys | {HEARTBEAT}}
        return replace(self, queue=tuple(one for one in queue if one.receivers), failures=kept)

    def delivered(self, message: Message, key: str) -> "State":
        """Return the state after one receiver has got a message."""
        queue = tuple(
            replace(one, receivers=tuple(name for name in one.receivers if name != key))
            if one.content == message.content
            else one
            for one in self.queue
        )
        return replace(self.works(key), queue=tuple(one for one in queue if one.receivers))

    def failed(self, key: str, name: str, text: str, now: datetime) -> "State":
        """Return the state after a receiver could not be reached."""
        since = self.failures[key].since if key in self.failures else now
        return replace(self, failures=self.failures | {key: Failure(name, text, since)})

    def works(self, key: str) -> "State":
        """Return the state after a receiver was reached."""
        return replace(self, failures={name: one for name, one in self.failures.items() if name != key})

    def to_json(self) -> str:
        """Return the document. Its first lines are those that the status shows."""
        waiting = [one.time for one in self.queue]
        waiting += [one.since for key, one in self.failures.items() if key == HEARTBEAT]
        errors = [f"{one.name}: {one.text}" for one in self.failures.values()]
        document = {
            "pending": len(waiting),
            "oldest_pending": min(waiting, default=None),
            "last_error": "; ".join(errors) or self.note,
            **asdict(self),
        }
        return json.dumps(document, indent=1, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a document that `to_json` wrote.

        Raises:
            ValueError: It is no such document.
        """
        try:
            found = json.loads(text)
            return cls(
                host=str(found["host"]),
                problems={
                    str(name): Problem(_time(one["told"]), one["better"] and _time(one["better"]))
                    for name, one in found["problems"].items()
                },
                queue=tuple(_message(one) for one in found["queue"]),
                dropped=int(found["dropped"]),
                failures={
                    str(key): Failure(str(one["name"]), str(one["text"]), _time(one["since"]))
                    for key, one in found["failures"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a state of notifications: {error!r}") from error


def _message(found: dict[str, Any]) -> Message:
    text = {name: str(found[name]) for name in ("kind", "title", "body")}
    return Message(_time(found["time"]), **text, receivers=tuple(str(one) for one in found["receivers"]))


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Store:
    """The directory of the state. One run at a time uses it.

    Args:
        directory: It belongs to the user of the process.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.json"
        self.reserve = directory / "reserve"
        self._lock = directory / "lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock, or give False if another run has it.

        Raises:
            OSError: The directory cannot be used.
        """
        # For reading: a file that exists can be opened on a full disk.
        descriptor = os.open(self._lock, os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def load(self) -> State:
        """Read the state. A damaged file counts as none: what is bad is reported again."""
        try:
            return State.from_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except (ValueError, OSError):
            return State(note="the record of what was sent was damaged, and is begun again")

    def save(self, state: State) -> bool:
        """Write the state, on a full disk into the space that is kept for it.

        Returns:
            Whether it is written.
        """
        content = state.to_json().encode()
        try:
            files.replace(self.path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return False
            try:
                self.reserve.unlink(missing_ok=True)
                files.replace(self.path, content)
            except OSError:
                return False
            return True
        with contextlib.suppress(OSError):  # the state is written: the reserve is for a later full disk
            self._keep_reserve()
        return True

    def _keep_reserve(self) -> None:
        if self.reserve.exists():
            return
        try:
            files.replace(self.reserve, os.urandom(RESERVE))  # zeros could be compressed away
        except OSError:
            self.reserve.with_name(f".{self.reserve.name}.new").unlink(missing_ok=True)
