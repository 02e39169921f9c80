"""The number of tests."""

import pytest

from tests.hosts import check_collection

TESTS = 14
"""If a file is not collected any more, the scenario fails."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a run of all tests has another number of them."""
    check_collection(session, TESTS)
