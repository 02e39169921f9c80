"""Each string that names a place in tests/faults names an existing attribute."""

import re
from pathlib import Path

import pytest

from tests.faults.program import find

FAULTS = Path(__file__).parents[1] / "faults"
PLACES = sorted(
    {
        place
        for path in FAULTS.glob("*.py")
        for place in re.findall(
            r'"((?:[a-z_]\w*\.)*[a-z_]\w*:[A-Za-z_][\w.]*)"', path.read_text(encoding="utf-8")
        )
    }
)


def test_places_are_found() -> None:
    assert len(PLACES) > 15


@pytest.mark.parametrize("place", PLACES)
def test_a_place_exists(place: str) -> None:
    owner, name = find(place)
    assert hasattr(owner, name)


def test_a_place_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError):
        find("occupancy_db.backup.create:no_such_name")
