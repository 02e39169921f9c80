"""How many tests there are."""

import pytest

from tests.hosts import check_collection

TESTS = 9
"""A file that is not collected any more is a failure, not a saving."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail when tests of a whole run went missing."""
    check_collection(session, TESTS)
