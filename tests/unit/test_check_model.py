"""The document with the results of all checks."""

from datetime import UTC, datetime

import pytest

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.model import Level, Result, Status

WHEN = datetime(2026, 11, 27, 12, tzinfo=UTC)


def status(*levels: Level) -> Status:
    return Status(WHEN, "home", "1.0", tuple(Result(f"c{n}", level, "x") for n, level in enumerate(levels)))


def test_a_document_is_read_as_it_was_written() -> None:
    written = Status(
        WHEN,
        "home",
        "1.0",
        (Result("a", Level.WARNING, "late", ("kitchen",), 1.5, WHEN), Result("b", Level.GOOD, "")),
    )
    assert Status.from_json(written.to_json()) == written


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": 1}', "null"])
def test_another_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Status.from_json(text)


def test_the_worst_level_counts() -> None:
    assert status(Level.GOOD, Level.BAD, Level.WARNING).level == Level.BAD
    assert status(Level.SKIPPED, Level.GOOD).level == Level.GOOD
    assert status().level == Level.GOOD


def test_names_are_unique() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
