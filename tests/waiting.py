"""Wait for a condition by polling it, with a limit that a slow machine does not reach."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 180.0
"""Seconds after which a wait fails. A test that passes waits only until its condition is true."""
INTERVAL = 0.02


def wait_for(
    condition: Callable[[], T],
    what: str,
    *,
    limit: float = LIMIT,
    interval: float = INTERVAL,
    explain: Callable[[], object] | None = None,
) -> T:
    """Call `condition` until its result is true, and return that result.

    Args:
        condition: The function to call.
        what: The condition in words, for the message of a failure.
        limit: Seconds until the wait fails.
        interval: Seconds between two calls.
        explain: Called when the wait fails; its result (a log, for instance) is added to the message.

    Raises:
        AssertionError: The condition did not become true; the message has its last result.
    """
    deadline = time.monotonic() + limit
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(failure(what, limit, seen, explain))
        time.sleep(interval)
    return seen


async def wait_for_async(
    condition: Callable[[], T],
    what: str,
    *,
    limit: float = LIMIT,
    interval: float = INTERVAL,
    explain: Callable[[], object] | None = None,
) -> T:
    """Like `wait_for`, while the other tasks of the event loop run."""
    deadline = time.monotonic() + limit
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(failure(what, limit, seen, explain))
        await asyncio.sleep(interval)
    return seen


def failure(what: str, limit: float, seen: object, explain: Callable[[], object] | None) -> str:
    """The message of a wait that failed."""
    message = f"waited {limit:.0f} s for {what}; the last result was {seen!r}"
    return f"{message}\n{explain()}" if explain else message
