"""Waiting for a condition: its result is returned, and a failure says what was seen last."""

import pytest

from tests.waiting import wait_for, wait_for_async


def test_the_first_true_result_is_returned() -> None:
    results = iter([0, "", 3, 4])
    assert wait_for(lambda: next(results), "a number", interval=0) == 3


async def test_a_failure_names_the_condition_its_last_result_and_the_explanation() -> None:
    expected = r"waited 0 s for the server; the last result was \[\]\nthe end of its log"
    with pytest.raises(AssertionError, match=expected):
        wait_for(list, "the server", limit=0, explain=lambda: "the end of its log")
    with pytest.raises(AssertionError, match=expected):
        await wait_for_async(list, "the server", limit=0, explain=lambda: "the end of its log")
