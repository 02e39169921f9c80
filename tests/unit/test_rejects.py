"""Rejected rows come back in, and readings go where their sensor was."""

from datetime import UTC, datetime
from pathlib import Path

from occupancy_db.history.sources.base import Options
from occupancy_db.history.sources.entities import read_entities
from occupancy_db.months import EARLIEST
from occupancy_db.sensors import Sensors
from tests.unit.test_formats import GOOD, HEADER, NOW, Result, read


def test_a_fault_costs_its_own_row_and_comes_back_in(tmp_path: Path) -> None:
    """One quotation mark too many, and later another: what is between them is not lost."""
    lines = [GOOD.replace("59.5", f"{n % 60:02}.{n}") for n in range(2000)]
    for number in (100, 1500):
        lines[number] = lines[number].replace("office", '"office')
    lines[200] = lines[200].replace("desk,", '"desk')
    result = read(tmp_path, HEADER + "".join(lines))
    assert [line for line, _, _ in result.rejected] == [102, 202, 1502]
    assert [row + "\n" for _, _, row in result.rejected] == [lines[100], lines[200], lines[1500]]
    assert len(result.rows) == 1997
    corrected = tmp_path / "corrected.csv"
    corrected.write_text((tmp_path / "bad.csv").read_text().replace('""office', "office"))
    again = Result([corrected], Options(), tmp_path / "again.csv")
    assert len(again.rows) == 2
    assert [line for line, _, _ in again.rejected] == [202]
    assert set(again.reader.said.values()) == {"rejects of an import"}
    assert len(Result([tmp_path / "again.csv"], Options(), tmp_path / "third.csv").rejected) == 1


def test_rejects_of_files_of_different_forms_come_back_in(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("entity_id;state;last_changed\nb.x;on;1793491199\nb.x;maybe;1793491200\n")
    (tmp_path / "b.ndjson").write_text('{"entity_id":"b.y","state":"huh","last_changed":1793491201}\n{"x"\n')
    (tmp_path / "c.csv").write_text(HEADER + GOOD.replace(",desk,", ',"de\nsk",').replace("office", "attic"))
    mapping = tmp_path / "entities.csv"
    mapping.write_text("entity_id,room,zone\nb.x,office,x\nb.y,office,y\n")
    options = Options(sensors=read_entities(mapping))
    files = [tmp_path / name for name in ("a.csv", "b.ndjson", "c.csv")]
    first = Result(files, options, tmp_path / "bad.csv")
    assert (len(first.rows), len(first.rejected)) == (1, 4)
    text = (tmp_path / "bad.csv").read_text()
    (tmp_path / "bad.csv").write_text(
        text.replace("maybe", "off").replace("huh", "on").replace("attic", "office")
    )
    again = Result([tmp_path / "bad.csv"], options, tmp_path / "again.csv")
    assert sorted((row[0], row[1], row[2]) for row in again.rows) == [
        ("office", "de\nsk", True), ("office", "x", False), ("office", "y", True),
    ]  # fmt: skip
    assert [row for _, _, row in again.rejected] == ['{"x"']


def test_readings_go_where_their_sensor_was(tmp_path: Path) -> None:
    moved = datetime(2026, 11, 1, tzinfo=UTC)
    places = {"e": ((EARLIEST, ("office", "desk")), (moved, ("bedroom", "bed")), (NOW, None))}
    clocks = ["2026-10-31T23:59:59Z", "2026-11-01T00:00:00Z", "2026-11-22T12:00:00Z", "2026-10-01T00:00:00Z"]
    content = "timestamp,state,source_entity,room,zone\n"
    content += "".join(f"{clock},on,e,,\n" for clock in clocks) + "2026-11-01T00:00:00Z,on,e,bathroom,sink\n"
    result = read(tmp_path, content, sensors=Sensors(places))
    assert [(f"{row[-1]:%m-%d}", row[0], row[1]) for row in sorted(result.rows, key=lambda row: row[-1])] == [
        ("10-01", "office", "desk"),
        ("10-31", "office", "desk"),
        ("11-01", "bedroom", "bed"),
        ("11-01", "bathroom", "sink"),
    ]
    assert (result.rejected, result.reader.unplaced) == ([], {"e": 1})
