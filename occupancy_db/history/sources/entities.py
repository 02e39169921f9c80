"""Places of entities that are told by a file instead of the table ``sensors``."""

import csv
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from occupancy_db.history.judge import DEFAULT_ROOMS
from occupancy_db.history.sources.base import unusable
from occupancy_db.history.sources.text import File, check_is_text
from occupancy_db.rooms import Rooms
from occupancy_db.schema.room_names import name_problem
from occupancy_db.sensors import Place, Sensors
from occupancy_db.validation import ENTITY_LENGTH, ZONE_LENGTH, room_problem, text_problem

_HINT = "It must be a CSV of entity_id,room,zone."


def read_entities(path: Path, rooms: Rooms = DEFAULT_ROOMS) -> Sensors:
    """Which room and zone each entity stands for, at all times.

    Args:
        path: A CSV file with the columns entity_id, room, zone.
        rooms: The rooms of the database.

    Raises:
        DatabaseError: it cannot be used.
    """
    entities: dict[str, Place] = {}
    file = File(path)
    try:
        check_is_text(file, "a CSV of entity_id,room,zone")
        rows = csv.DictReader(file.text, strict=True)
        if not {"entity_id", "room", "zone"} <= set(rows.fieldnames or ()):
            raise unusable(path, "its header is another", _HINT)
        for row in rows:
            entity, room, zone = row["entity_id"], row["room"], row["zone"]
            problem = text_problem("entity_id", entity, ENTITY_LENGTH)
            if problem is None and (problem := room_problem(room, rooms)) and name_problem(room) is None:
                raise unusable(path, f"line {rows.line_num}: {problem}", add_rooms_hint([room]))
            problem = (
                problem
                or text_problem("zone", zone, ZONE_LENGTH)
                or (f"{entity} is there twice" if entity in entities else None)
            )
            if problem:
                raise unusable(path, f"line {rows.line_num}: {problem}", _HINT)
            entities[entity] = (room, zone)
    except csv.Error as error:
        raise unusable(path, str(error), _HINT) from error
    finally:
        file.close()
    always = datetime.min.replace(tzinfo=UTC)
    return Sensors({entity: ((always, place),) for entity, place in entities.items()})


def add_rooms_hint(rooms: Iterable[str]) -> str:
    """How to add rooms to the database.

    Args:
        rooms: Their names.
    """
    return f"Add rooms with 'occupancy-db rooms add {shlex.join(rooms)}'."
