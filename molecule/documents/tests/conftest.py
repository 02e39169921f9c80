"""The number of tests."""

import pytest

from tests.documents import blocks_to_run
from tests.hosts import check_collection


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a run of all tests has another number of them."""
    check_collection(session, sum(len(blocks_to_run(place)) for place in ("controller", "host", "last")))
