"""JSON of Home Assistant's REST and WebSocket interfaces, and lists of readings, become readings."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.errors import DatabaseError
from occupancy_db.history.sources.base import Format, Options
from tests.unit.test_formats import Result
from tests.unit.test_recorder import BED, DESK, OTHERS, PLACES, READINGS, at

ATTRIBUTES = {"friendly_name": "FP2 Office Desk", "options": [{"a.b": [1]}], "x": 1.5}
REST: list[list[dict[str, Any]]] = [
    [
        {"entity_id": DESK, "state": "unavailable", "attributes": ATTRIBUTES,
         "last_changed": "2026-03-29T00:30:00.123456+00:00"},
        {"entity_id": DESK, "state": "on", "attributes": ATTRIBUTES,
         "last_changed": "2026-03-29T00:31:00.123456+00:00",
         "last_updated": "2026-03-29T00:33:00.123456+00:00"},
        {"entity_id": DESK, "state": "off", "attributes": ATTRIBUTES,
         "last_changed": "2026-03-29T00:38:00.123456+00:00"},
    ],
    [
        {"entity_id": BED, "state": "off", "attributes": {},
         "last_changed": "2026-03-29T00:34:00.123456+00:00"},
        {"state": "on", "last_changed": "2026-03-29T01:31:00.123456+00:00"},
        {"state": "unknown", "last_changed": "2026-03-29T01:32:00.123456+00:00"},
        {"entity_id": BED, "state": "off", "attributes": {},
         "last_changed": "2026-03-29T01:33:00.123456+00:00"},
    ],
    *([{"entity_id": entity, "state": "on", "last_changed": "2026-03-29T00:35:00Z"}] for entity in OTHERS),
]  # fmt: skip

WEBSOCKET = {
    DESK: [
        {"s": "unavailable", "a": ATTRIBUTES, "lu": at(0, 30).timestamp()},
        {"s": "on", "a": ATTRIBUTES, "lc": at(0, 31).timestamp(), "lu": at(0, 33).timestamp()},
        {"s": "off", "lu": at(0, 38).timestamp()},
    ],
    BED: [
        {"s": "off", "a": {}, "lu": at(0, 34).timestamp()},
        {"s": "on", "lu": at(1, 31).timestamp()},
        {"s": "unknown", "lu": at(1, 32).timestamp()},
        {"s": "off", "lu": at(1, 33).timestamp()},
    ],
    "sensor.never": [],
    **{entity: [{"s": "on", "lu": 1774744500}] for entity in OTHERS},
}
RESULT = {"id": 5, "type": "result", "success": True, "result": WEBSOCKET}
EVENT = {"id": 5, "type": "event", "event": {"start_time": 1.5, "states": WEBSOCKET, "end_time": 2}}


def read(directory: Path, content: Any, **options: Any) -> Result:
    file = directory / "history.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Result([file], Options(**{"sensors": PLACES, **options}), directory / "bad.csv")


@pytest.mark.parametrize(
    ("content", "interface"),
    [(REST, "REST"), (WEBSOCKET, "WebSocket"), (RESULT, "WebSocket"), (EVENT, "WebSocket")],
    ids=["REST", "WebSocket", "its message", "its stream"],
)
def test_states_of_home_assistants_interfaces(tmp_path: Path, content: Any, interface: str) -> None:
    plain = json.dumps(content).encode()
    indented = b"\xef\xbb\xbf\n" + json.dumps(content, indent=2).encode()
    for form in (plain, indented, gzip.compress(plain)):
        result = read(tmp_path, form)
        assert sorted(result.rows) == sorted({*READINGS})
        assert result.reader.stateless == {"unavailable": 1, "unknown": 1}
        assert result.reader.unplaced == OTHERS
        said = f"Home Assistant's history, JSON of the {interface} interface"
        assert list(result.reader.said.values()) == [said]


def test_lists_of_readings(tmp_path: Path) -> None:
    rows = [
        {"timestamp": row[5].isoformat(), "room": row[0], "zone": row[1], "state": row[2],
         "source_entity": row[3]} for row in READINGS
    ]  # fmt: skip
    result = read(tmp_path, rows)
    assert sorted(result.rows) == sorted(READINGS)
    assert list(result.reader.said.values()) == ["JSON"]
    # Lists of states, as those of /api/states
    assert sorted(read(tmp_path, [state for states in REST[:1] for state in states]).rows) == sorted(
        row for row in {*READINGS} if row[3] == DESK
    )
    assert read(tmp_path, []).rows == []
    assert read(tmp_path, {}, format=Format.JSON).rows == []


def test_objects_of_lines_are_no_document(tmp_path: Path) -> None:
    line = {"tags": [{"a.b": 1}], "timestamp": at(0, 31).isoformat(), "state": True, "source_entity": DESK}
    result = read(tmp_path, f"{json.dumps(line)}\n{json.dumps(line)}\n".encode())
    assert result.rows == [READINGS[0]] * 2
    assert list(result.reader.said.values()) == ["NDJSON"]


def test_what_is_no_state_is_rejected_and_comes_back_in(tmp_path: Path) -> None:
    content = {
        DESK: [1, {"s": "open", "lu": at(0, 31).timestamp()}, {"s": "off", "lu": at(0, 38).timestamp()}]
    }
    result = read(tmp_path, content)
    assert [(line, reason) for line, reason, _ in result.rejected] == [
        (1, "not a JSON object"), (2, "state is neither true nor false: 'open'")
    ]  # fmt: skip
    rejects = (tmp_path / "bad.csv").read_text().replace("open", "on").encode()
    (tmp_path / "bad.csv").unlink()
    assert read(tmp_path, rejects).rows == [READINGS[0]]


@pytest.mark.parametrize("content", [REST, RESULT])
def test_a_document_that_was_cut_short_is_refused(tmp_path: Path, content: Any) -> None:
    text = json.dumps(content).encode()
    for length in (len(text) - 1, len(text) // 2):
        with pytest.raises(DatabaseError, match=r"cannot read on in .*history.json: not JSON"):
            read(tmp_path, text[:length])
    with pytest.raises(DatabaseError, match="not JSON"):
        read(tmp_path, text + b"]")


def test_a_document_is_never_in_memory(tmp_path: Path) -> None:
    """All 20,000 states of one entity take more than 10 MB; nothing of entities without a place is kept."""
    states = [{"s": "on", "a": ATTRIBUTES, "lu": 1774744200 + n} for n in range(20_000)]
    rest = [[{"entity_id": DESK, "state": "on", "last_changed": 1774744200 + n} for n in range(20_000)]]
    for content in ({"result": {DESK: states}}, rest):
        text = json.dumps(content).encode()
        read(tmp_path, text[:0] + b"[]")  # imports
        tracemalloc.start()
        read(tmp_path, text, sensors=Options().sensors)
        assert tracemalloc.get_traced_memory()[1] < 4e6
        tracemalloc.stop()
