"""The fixtures of tests/hosts.py, and the number of tests."""

import pytest

from tests.hosts import check_collection, play, server, superuser

__all__ = ["play", "server", "superuser"]

TESTS = {"": 145, "not any_release": 127}
"""By the option -m, which is that of the scenario debian12. If a file is not collected any more, the scenario fails."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a run of all tests has another number of them."""
    check_collection(session, TESTS[session.config.getoption("markexpr")])
