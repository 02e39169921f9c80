"""Which room and zone the entities of Home Assistant may stand for: a proposal, made from their names."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.sources.base import Source
from occupancy_db.rooms import Rooms
from occupancy_db.schema.room_names import LABEL_CHARACTERS, fold
from occupancy_db.validation import ZONE_LENGTH

_DOMAIN: Final = "binary_sensor."
_CLASSES: Final = frozenset({"motion", "occupancy", "presence"})
"""The device classes that say whether somebody is there."""

_NO_PLACES: Final = _CLASSES | {"binary", "sensor", "detected", "detection", "state"}
"""Words of names that tell no zone."""

REGISTRIES: Final = ("entity", "device", "area")


@dataclass(frozen=True)
class Proposal:
    """A row of a file of sensors.

    Attributes:
        entity_id: Home Assistant entity id.
        room: A room of the database, the name of its area if that is none, or empty.
        zone: What is left of the name.
        label: The name.
    """

    entity_id: str
    room: str
    zone: str
    label: str


@dataclass(frozen=True)
class Registries:
    """What Home Assistant keeps in ``.storage``, by the ids there.

    Attributes:
        entities: By entity id.
        devices: By device.
        areas: Names by area.
    """

    entities: Mapping[str, Mapping[str, Any]]
    devices: Mapping[str, Mapping[str, Any]]
    areas: Mapping[str, str]


def read_registries(directory: Path) -> Registries:
    """Read the registries of a directory; one that is missing is empty.

    Raises:
        DatabaseError: one cannot be read, or is none.
    """
    found = {}
    for kind in REGISTRIES:
        path = directory / f"core.{kind}_registry"
        content: dict[str, Any] = {"data": {}}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = content["data"].get({"entity": "entities", "device": "devices", "area": "areas"}[kind], [])
            found[kind] = {row["entity_id" if kind == "entity" else "id"]: row for row in rows}
        except FileNotFoundError:
            found[kind] = {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = getattr(error, "strerror", None) or "it is no registry of Home Assistant"
            hint = (
                "Copy core.entity_registry, core.device_registry and core.area_registry to another directory."
            )
            raise DatabaseError(ExitCode.FAILED, f"cannot read {path}: {what}", hint) from error
    return Registries(
        found["entity"],
        found["device"],
        {area: str(row.get("name", "")) for area, row in found["area"].items()},
    )


def propose(source: Source, registries: Registries, rooms: Rooms) -> list[Proposal]:
    """Propose the places of the entities of a source that may tell occupancy, ordered by room and entity.

    Args:
        source: An export or recorder of Home Assistant; it is read to its end.
        registries: Names of entities, devices and areas.
        rooms: The rooms of the database.

    Raises:
        DatabaseError: and OSError, EOFError, zlib.error: the source cannot be read on.
    """
    found = []
    for entity, attributes in source.entities():
        known = registries.entities.get(entity, {})
        kinds = {
            known.get("device_class"), known.get("original_device_class"), attributes.get("device_class")
        } - {None}  # fmt: skip
        # One without a class may be a template, or the source does not tell.
        if entity.startswith(_DOMAIN) and (not kinds or kinds & _CLASSES):
            found.append(_proposal(entity, attributes, registries, rooms))
    return sorted(found, key=lambda row: (not row.room, row.room, row.entity_id))


def _proposal(entity: str, attributes: Mapping[str, Any], registries: Registries, rooms: Rooms) -> Proposal:
    known = registries.entities.get(entity, {})
    device = registries.devices.get(known.get("device_id") or "", {})
    area = registries.areas.get(known.get("area_id") or device.get("area_id") or "", "")
    device_name = device.get("name_by_user") or device.get("name") or ""
    composed = " ".join(dict.fromkeys(filter(None, (device_name, known.get("original_name")))))
    label = str(known.get("name") or attributes.get("friendly_name") or composed or "")
    words = _words(label or entity.removeprefix(_DOMAIN))
    room = _room(area, words, _words(device_name), rooms)
    taken = {*_words(room), *_words(area), *_NO_PLACES}
    zone = " ".join(word for word in words if word not in taken) or " ".join(words)
    return Proposal(entity, room, zone[:ZONE_LENGTH].strip(), label[:LABEL_CHARACTERS].strip())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _room(area: str, words: list[str], device: list[str], rooms: Rooms) -> str:
    """The room of an area, else one whose name is in that of the entity or device, the longest first."""
    names = {" ".join(_words(name)): name for name, retired in rooms.retired_at.items() if retired is None}
    if area:
        return names.get(" ".join(_words(area))) or fold("_".join(_words(area)))
    for text in (" ".join(words), " ".join(device)):
        for shown in sorted(names, key=len, reverse=True):
            if f" {shown} " in f" {text} ":
                return names[shown]
    return ""


def unknown_rooms(rows: Iterable[Proposal], rooms: Rooms) -> list[str]:
    """The rooms of proposals that the database does not have."""
    return sorted({row.room for row in rows if row.room} - rooms.retired_at.keys())
