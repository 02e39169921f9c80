"""Places of Home Assistant's entities are proposed from the names of areas, devices and entities."""

import json
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.errors import DatabaseError
from occupancy_db.history.sources.base import Options
from occupancy_db.history.sources.discovery import propose, read_registries, unknown_rooms
from occupancy_db.history.sources.recognise import open_source
from occupancy_db.rooms import Rooms
from tests.recorder import VERSIONS, from_dump
from tests.unit.test_json_documents import REST, WEBSOCKET
from tests.unit.test_recorder import BED, DESK

ROOMS = Rooms(dict.fromkeys(["office", "bedroom", "guest_bedroom", "living_kitchen"]))


def rows(path: Path, registries: Path) -> list[tuple[str, str, str, str]]:
    with open_source(path, Options(rooms=ROOMS)) as source:
        found = propose(source, read_registries(registries), ROOMS)
    return [(row.entity_id, row.room, row.zone, row.label) for row in found]


def states(*entities: tuple[str, str | None, str]) -> Any:
    """An answer of /api/states."""
    return [
        {
            "entity_id": entity,
            "state": "on",
            "attributes": {"friendly_name": name, **({"device_class": kind} if kind else {})},
            "last_changed": "2026-03-29T00:31:00+00:00",
        }
        for entity, kind, name in entities
    ]


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def registry(directory: Path, **kinds: list[dict[str, Any]]) -> Path:
    for kind, content in kinds.items():
        name = {"entities": "entity", "devices": "device", "areas": "area"}[kind]
        write(directory / f"core.{name}_registry", {"version": 1, "data": {kind: content}})
    return directory


@pytest.mark.parametrize("schema", VERSIONS)
def test_names_of_a_recorder(tmp_path: Path, schema: int) -> None:
    """A door and a light tell no occupancy."""
    assert rows(from_dump(schema, tmp_path / "a.db"), tmp_path) == [
        (BED, "bedroom", "fp2 bed", "FP2 Bedroom Bed"),
        (DESK, "office", "fp2 desk", "FP2 Office Desk"),
    ]


def test_names_of_exports(tmp_path: Path) -> None:
    """Where only ids are known, all binary sensors are listed."""
    without = [
        (BED, "bedroom", "fp2 bed", ""),
        (DESK, "office", "fp2 desk", ""),
        ("binary_sensor.front_door", "", "front door", ""),
    ]
    file = tmp_path / "history.csv"
    file.write_text(
        "entity_id,state,last_changed\n" + "".join(f"{row[0]},on,1774744200\n" for row in without)
    )
    assert rows(file, tmp_path) == without
    named = (DESK, "office", "fp2 desk", "FP2 Office Desk")
    for content in (REST, WEBSOCKET):
        assert rows(write(tmp_path / "a.json", content), tmp_path) == [without[0], named, without[2]]


def test_areas_devices_and_classes_of_the_registries(tmp_path: Path) -> None:
    registry(
        tmp_path,
        areas=[{"id": "a1", "name": "Guest-Bedroom"}, {"id": "a2", "name": "Wohnzimmer Süd"}],
        devices=[
            {"id": "d1", "area_id": "a1", "name": "FP2", "name_by_user": "Bed sensor"},
            {"id": "d2", "area_id": "a2", "name": "Hue motion", "name_by_user": None},
            {"id": "d3", "area_id": None, "name": "Living Kitchen FP2", "name_by_user": None},
        ],
        entities=[
            {"entity_id": "binary_sensor.x1", "device_id": "d1", "area_id": None, "name": None,
             "original_name": "Presence left", "original_device_class": "occupancy"},
            {"entity_id": "binary_sensor.x2", "device_id": "d2", "area_id": None, "name": "Sofa (Süd)",
             "original_name": "Motion", "original_device_class": "motion"},
            {"entity_id": "binary_sensor.x3", "device_id": "d2", "area_id": "a1", "name": None,
             "original_name": "Low battery", "original_device_class": "battery"},
            {"entity_id": "binary_sensor.x4", "device_id": "d3", "area_id": None, "name": None,
             "original_name": "Zone 3"},
        ],
    )  # fmt: skip
    file = tmp_path / "a.csv"
    file.write_text(
        "entity_id,state,last_changed\n" + "".join(f"binary_sensor.x{n},on,1\n" for n in range(1, 5))
    )
    assert rows(file, tmp_path) == [
        ("binary_sensor.x1", "guest_bedroom", "bed left", "Bed sensor Presence left"),
        ("binary_sensor.x4", "living_kitchen", "fp2 zone 3", "Living Kitchen FP2 Zone 3"),
        ("binary_sensor.x2", "wohnzimmer_süd", "sofa", "Sofa (Süd)"),
    ]
    with open_source(file, Options()) as source:
        assert unknown_rooms(propose(source, read_registries(tmp_path), ROOMS), ROOMS) == ["wohnzimmer_süd"]


def test_zones_and_labels_fit_and_are_never_empty(tmp_path: Path) -> None:
    content = states(
        ("binary_sensor.office_motion", "motion", "Office Motion"),
        ("binary_sensor.long", "occupancy", "Office " + "very " * 40),
        ("binary_sensor.retired", "presence", ""),
    )
    found = rows(write(tmp_path / "a.json", content), tmp_path)
    assert [row[2][:11] for row in found] == ["very very v", "office moti", "retired"]
    assert all(len(row[2]) <= 50 and len(row[3]) <= 100 for row in found)


def test_registries_that_cannot_be_read(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"data": {"areas": [{"name": 1}]}}'):
        (tmp_path / "core.area_registry").write_text(content)
        with pytest.raises(DatabaseError, match=r"cannot read .*core.area_registry: it is no registry"):
            read_registries(tmp_path)
