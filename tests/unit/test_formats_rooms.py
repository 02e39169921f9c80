"""Files of readings are compared with the rooms of the database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from occupancy_db.errors import DatabaseError
from occupancy_db.history.sources.entities import add_rooms_hint, read_entities
from occupancy_db.rooms import Rooms
from tests.unit.test_formats import GOOD, HEADER, read

RETIRED = datetime(2026, 10, 15, 12, tzinfo=UTC)
ROOMS = Rooms({"office": None, "kitchen": None, "attic": RETIRED})


@pytest.mark.parametrize("last", [False, True], ids=["time first", "time last"])
def test_a_room_of_the_database_is_taken_and_a_retired_one_up_to_its_retirement(
    tmp_path: Path, last: bool
) -> None:
    def line(moment: datetime, room: str) -> str:
        fields = [moment.isoformat(), room, "z", "on", "e"]
        return ",".join([*fields[1:], fields[0]] if last else fields)

    moments = [RETIRED + timedelta(days=days) for days in range(-40, 10)]
    moments += [RETIRED - timedelta(microseconds=1), RETIRED, RETIRED - timedelta(hours=1), RETIRED]
    header = "room,zone,state,source_entity,timestamp" if last else "timestamp,room,zone,state,source_entity"
    lines = [header, *(line(moment, room) for moment in moments for room in ("kitchen", "attic"))]
    result = read(tmp_path, "\n".join(lines) + "\n", rooms=ROOMS)
    taken = {room: sorted(row[-1] for row in result.rows if row[0] == room) for room in ("kitchen", "attic")}
    assert taken["kitchen"] == sorted(moments)
    assert taken["attic"] == sorted(moment for moment in moments if moment < RETIRED)
    assert {reason for _, reason, _ in result.rejected} == {
        "room 'attic' was retired on 2026-10-15 12:00:00+00"
    }
    assert result.reader.unknown_rooms == set()


def test_unknown_rooms_are_collected_for_the_command_that_adds_them(tmp_path: Path) -> None:
    lines = [GOOD.replace("office", room) for room in ("hall", "bedroom", "hall", "x" * 51, "living room")]
    result = read(tmp_path, HEADER + "".join(lines), rooms=ROOMS)
    assert len(result.rejected) == len(lines)
    assert result.reader.unknown_rooms == {"hall", "bedroom", "living room"}
    assert (
        add_rooms_hint(["hall", "living room"])
        == "Add rooms with 'occupancy-db rooms add hall 'living room''."
    )


def test_a_table_of_entities_names_the_command_for_a_room_that_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "entities.csv"
    path.write_text("entity_id,room,zone\nb.x,kitchen,a\nb.y,hall,a\n")
    with pytest.raises(DatabaseError, match=r"line 3: unknown room 'hall'.*rooms add hall"):
        read_entities(path, ROOMS)
    path.write_text("entity_id,room,zone\nb.x,kitchen,a\n")
    assert read_entities(path, ROOMS).place("b.x", RETIRED) == ("kitchen", "a")
