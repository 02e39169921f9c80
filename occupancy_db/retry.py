"""Retries: the loop of all waits for locks."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from occupancy_db.errors import caused_by

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """An attempt that failed in the expected way.

    Attributes:
        error: What the attempt raised.
        attempt: Number of the attempt; the first is 1.
        seconds: How long the attempt took.
    """

    error: Exception
    attempt: int
    seconds: float


class RetryTimeoutError(Exception):
    """The time to wait is over, and the last attempt failed, too.

    Attributes:
        failure: The last attempt.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class Deadline:
    """The end of the time to wait; attempts that share one share that time."""

    def __init__(self, seconds: float, *, started: bool = True) -> None:
        """Begin to wait.

        Args:
            seconds: The time to wait.
            started: Whether the time runs from now on, or from the first failure on.
        """
        self.seconds = seconds
        self._end = time.monotonic() + seconds if started else None

    @property
    def started(self) -> bool:
        """Whether the time runs."""
        return self._end is not None

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end

    def restart(self) -> None:
        """Let the whole time run again from now on."""
        self._end = time.monotonic() + self.seconds


async def retry(
    attempt: Callable[[], Awaitable[T]],
    *,
    catch: type[Exception] | tuple[type[Exception], ...],
    deadline: float | Deadline,
    pause: float | tuple[float, float],
    restart: Callable[[Failure], bool] | None = None,
) -> T:
    """Call a function until it does not fail in the expected way, or the deadline has passed.

    At least one attempt is made, and one that has begun is never cut short. After a failure the
    deadline is checked before the pause.

    Args:
        attempt: The function; it must be possible to call it again after a failure.
        catch: The expected errors. An error counts as well if one of these is its cause.
        deadline: Seconds to wait from now on, or a deadline that the caller shares between calls.
        pause: Seconds between two attempts; with a range each pause is random, so that attempts do not
            coincide with periodic locks of other sessions.
        restart: Called with each failure; if it returns true, the deadline starts again.

    Returns:
        What the attempt returned.

    Raises:
        RetryTimeoutError: the deadline has passed; the last error is its cause.
    """
    until = deadline if isinstance(deadline, Deadline) else Deadline(deadline)
    shortest, longest = pause if isinstance(pause, tuple) else (pause, pause)
    kinds = catch if isinstance(catch, tuple) else (catch,)
    number = 0
    while True:
        number += 1
        began = time.monotonic()
        try:
            return await attempt()
        except Exception as error:
            if not caused_by(error, *kinds):
                raise
            failure = Failure(error, number, time.monotonic() - began)
            if not until.started or (restart is not None and restart(failure)):
                until.restart()
            if until.expired:
                raise RetryTimeoutError(failure) from error
        await asyncio.sleep(random.uniform(shortest, longest))  # noqa: S311 - not a secret
