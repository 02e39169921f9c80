"""The rules for rooms and sensors of the inventory, and what a host's database lacks."""

from typing import Any

import pytest

from occupancy_db.schema.room_names import label_problem, name_problem
from provisioning import rooms, sensors

PRESENT = {"office": None, "bedroom": "Schlafzimmer", "kitchen": None}


@pytest.mark.parametrize(
    "name", ["a", "x" * 50, "ü" * 31, "living kitchen", "l'atelier", "客厅", "-o", "{{ x }}"]
)
def test_names_that_can_be_added(name: str) -> None:
    assert name_problem(name) is None
    assert label_problem(name * 2) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "is not text"),
        (7, "is not text"),
        ("", "is empty"),
        ("x" * 51, "longer than 50 characters"),
        ("客" * 22, "longer than 63 bytes"),
        ("attic ", "begins or ends with a space"),
        ("\nattic", "begins or ends with a space"),
        ("at\0tic", "U+0000"),
        ("at\u202etic", "U+202E"),
        ("at\udcfftic", "U+DCFF"),
    ],
)
def test_names_that_cannot(name: Any, reason: str) -> None:
    problem = name_problem(name)
    assert problem
    assert reason in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("inventory", "reason"),
    [
        ([1], "the name 1 is not text"),
        ([["attic"]], "the name ['attic'] is not text"),
        ([None], "the name None is not text"),
        (["attic", " attic"], "the name ' attic' begins or ends with a space"),
        ([{"label": "Attic"}], "must have the key name"),
        ([{"name": "attic", "lable": "Attic"}], "must have the key name"),
        ([{"name": "attic", "label": 7}], "the label 7 is not text"),
        ([{"name": "attic", "label": ""}], "the label '' is empty"),
        (["attic", {"name": "attic", "label": "Attic"}], "more than once: attic"),
    ],
)
def test_an_inventory_is_refused_with_the_reason(inventory: list[Any], reason: str) -> None:
    (problem,) = rooms.find_problems(inventory)
    assert problem.startswith("occupancy_rooms")
    assert reason in problem


def test_only_what_is_missing_is_added() -> None:
    inventory = [
        "office",
        "attic",
        {"name": "bedroom", "label": "Chambre"},  # has another label, which stays
        {"name": "kitchen", "label": "Küche"},
        {"name": "hall"},
    ]
    assert rooms.find_problems(inventory) == []
    missing = rooms.missing(inventory, PRESENT)
    assert missing == {"attic": None, "kitchen": "Küche", "hall": None}
    assert rooms.arguments(missing) == [
        "rooms", "add", "--label=", "--label=Küche", "--label=", "--", "attic", "kitchen", "hall",
    ]  # fmt: skip
    assert rooms.arguments({"-o": None}) == ["rooms", "add", "--", "-o"]


def test_nothing_is_missing_after_everything_was_added() -> None:
    inventory = ["attic", {"name": "kitchen", "label": "Küche"}]
    assert rooms.missing(inventory, PRESENT | rooms.wanted(inventory)) == {}
    assert rooms.missing([], {}) == {}
    assert rooms.missing(inventory, {}) == rooms.wanted(inventory)


SENSOR = {"entity": "binary_sensor.desk", "room": "office", "zone": "desk"}


@pytest.mark.parametrize(
    ("inventory", "reason"),
    [
        (["binary_sensor.desk"], "must have the keys entity, room, zone"),
        ([{"entity": "binary_sensor.desk", "room": "office"}], "must have the keys"),
        ([SENSOR | {"lable": "Desk"}], "may have label and hold, and no other"),
        ([SENSOR | {"zone": ""}], "zone of binary_sensor.desk must be text of 1 to 50 characters"),
        ([SENSOR | {"zone": 7}], "zone of binary_sensor.desk"),
        ([SENSOR | {"entity": "x" * 101}], "must be text of 1 to 100 characters"),
        ([SENSOR | {"label": "two\nlines"}], "in one line"),
        ([SENSOR, SENSOR | {"room": "bedroom"}], "more than once: binary_sensor.desk"),
    ],
)
def test_sensors_are_refused_with_the_reason(inventory: list[Any], reason: str) -> None:
    (problem,) = sensors.find_problems(inventory)
    assert problem.startswith("occupancy_sensors")
    assert reason in problem


def test_only_missing_sensors_are_added() -> None:
    sofa = {
        "entity": "binary_sensor.sofa",
        "room": "living_kitchen",
        "zone": 'sofa, "left"',
        "hold": "1 hour",
    }
    assert sensors.find_problems([SENSOR, sofa]) == []
    assert sensors.missing([SENSOR, sofa], ["binary_sensor.desk"]) == [sofa]
    assert sensors.missing([SENSOR, sofa], ["binary_sensor.desk", "binary_sensor.sofa"]) == []
    assert sensors.file([SENSOR, sofa]) == (
        "entity_id,room,zone,label,hold\n"
        "binary_sensor.desk,office,desk,,\n"
        'binary_sensor.sofa,living_kitchen,"sofa, ""left""",,1 hour\n'
    )
