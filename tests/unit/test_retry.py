"""The loop that waits for locks: what it repeats, when it gives up, and when the deadline starts again."""

from collections.abc import Awaitable, Callable

import pytest

from occupancy_db.retry import Deadline, Failure, RetryTimeoutError, retry


class ExpectedError(Exception):
    pass


def failing(times: int, error: Exception | None = None) -> Callable[[], Awaitable[int]]:
    """A function that fails so many times and then returns the number of its calls."""
    calls = 0

    async def attempt() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error or ExpectedError(calls)
        return calls

    return attempt


async def test_an_expected_error_is_followed_by_another_attempt() -> None:
    assert await retry(failing(3), catch=ExpectedError, deadline=60, pause=0) == 4


async def test_another_error_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        await retry(failing(1, KeyError()), catch=ExpectedError, deadline=60, pause=0)


async def test_an_error_with_an_expected_cause_counts_as_expected() -> None:
    error = RuntimeError()
    error.__cause__ = ExpectedError()
    assert await retry(failing(1, error), catch=(OSError, ExpectedError), deadline=60, pause=(0, 0)) == 2


async def test_one_attempt_is_made_after_the_deadline() -> None:
    assert await retry(failing(0), catch=ExpectedError, deadline=0, pause=0) == 1
    with pytest.raises(RetryTimeoutError) as raised:
        await retry(failing(9), catch=ExpectedError, deadline=0, pause=0)
    assert raised.value.failure.attempt == 1
    assert isinstance(raised.value.failure.error, ExpectedError)
    assert raised.value.__cause__ is raised.value.failure.error


async def test_a_deadline_that_has_not_started_begins_with_the_first_failure() -> None:
    deadline = Deadline(60, started=False)
    assert not deadline.started
    assert await retry(failing(0), catch=ExpectedError, deadline=deadline, pause=0) == 1
    assert not deadline.started
    assert await retry(failing(1), catch=ExpectedError, deadline=deadline, pause=0) == 2
    assert deadline.started


async def test_a_deadline_is_shared_between_calls_until_it_is_restarted() -> None:
    deadline = Deadline(0)
    assert deadline.expired
    for _ in range(2):
        with pytest.raises(RetryTimeoutError):
            await retry(failing(9), catch=ExpectedError, deadline=deadline, pause=0)
    deadline.seconds = 60
    deadline.restart()
    assert await retry(failing(2), catch=ExpectedError, deadline=deadline, pause=0) == 3


async def test_the_caller_decides_which_failures_restart_the_deadline() -> None:
    deadline = Deadline(0)
    seen: list[Failure] = []

    def restart(failure: Failure) -> bool:
        seen.append(failure)
        deadline.seconds = 60 if failure.attempt < 3 else 0
        return True

    with pytest.raises(RetryTimeoutError):
        await retry(failing(9), catch=ExpectedError, deadline=deadline, pause=0, restart=restart)
    assert [failure.attempt for failure in seen] == [1, 2, 3]
    assert all(failure.seconds >= 0 for failure in seen)
