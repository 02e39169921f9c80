"""The fixtures of tests/hosts.py, and the number of tests."""

import pytest

from tests.hosts import check_collection, play, server, superuser

__all__ = ["play", "server", "superuser"]

TESTS = 30
"""If a file is not collected any more, the scenario fails."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a run of all tests has another number of them."""
    check_collection(session, TESTS)
