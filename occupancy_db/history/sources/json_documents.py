"""JSON documents, in pieces: history of Home Assistant's REST and WebSocket interfaces, lists of objects."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import CANONICAL, Fault, Options, Row, Source, arrange
from occupancy_db.history.sources.json_lines import Objects
from occupancy_db.history.sources.text import File

_BOM: Final = b"\xef\xbb\xbf"
_CHANGED: Final = ("last_changed", "lc", "last_updated", "lu")
"""The times of a state; the first counts. Without a time of change, it has changed when it was updated."""


class Shape(Enum):
    """What a document is, as ``said``."""

    LIST = "JSON"
    LISTS = "Home Assistant's history, JSON of the REST interface"
    BY_ENTITY = "Home Assistant's history, JSON of the WebSocket interface"


def shape_of(head: bytes) -> tuple[Shape, str] | None:
    """What a document is, and under which keys its lists are; None for text that is none, such as NDJSON.

    Args:
        head: Its first bytes.
    """
    import ijson

    keys: list[str] = []
    with suppress(ijson.JSONError, UnicodeDecodeError):
        events = ijson.basic_parse(io.BytesIO(head.removeprefix(_BOM)))
        for event, value in events:
            if event == "map_key":
                keys[-1] = value
            elif event == "start_map":
                keys.append("")
            elif event == "start_array" and not keys:
                return (Shape.LISTS if next(events, ("",))[0] == "start_array" else Shape.LIST), ""
            elif event == "start_array" and "." in keys[-1]:  # an entity
                return Shape.BY_ENTITY, ".".join(keys[:-1])
            elif event == "end_map":
                keys.pop()
                if not keys:
                    break
    return None


class JsonSource(Source):
    """A list of objects, lists of them, or lists by entity."""

    def __init__(self, file: File, options: Options) -> None:
        super().__init__(str(file.path))
        self._file = file
        self.position = file.position  # type: ignore[method-assign]
        self.size = file.size
        self._objects = Objects(options)
        self._object: Any = None
        self._number = 0
        arrange(self, CANONICAL)
        # One list has times as text and as numbers.
        self.times = options.times
        self._shape, self._prefix = shape_of(file.head) or (Shape.LIST, "")
        self.said = self._shape.value

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        import ijson

        try:
            for found in self._states(ijson):
                self._number += 1
                self._object = found
                yield self._objects.of(found)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise DatabaseError(
                ExitCode.FAILED, f"cannot read on in {self.name}: not JSON: {error}", "Nothing was imported."
            ) from error

    def entities(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """See ``Source``."""
        found: dict[str, Mapping[str, Any]] = {}
        for _ in self.rows():
            if isinstance(self._object, dict) and isinstance(entity := self._object.get("entity_id"), str):
                attributes = self._object.get("attributes")
                found.setdefault(entity, {})
                if isinstance(attributes, dict) and attributes:
                    found[entity] = attributes
        return iter(found.items())

    def _states(self, ijson: Any) -> Iterator[Any]:
        source = self._file.binary
        if self._file.head.startswith(_BOM):
            source.read(len(_BOM))
        if self._shape is Shape.BY_ENTITY:
            for entity, state in self._by_entity(ijson.parse(source, use_float=True), ijson.ObjectBuilder):
                yield _whole(state, entity)
        elif self._shape is Shape.LISTS:
            entity = None
            for state in ijson.items(source, "item.item", use_float=True):
                # With minimal_response only the first state of a list and the last one name their entity.
                if isinstance(state, dict):
                    entity = state.get("entity_id", entity)
                yield _whole(state, entity)
        else:
            yield from ijson.items(source, "item", use_float=True)

    def _by_entity(self, events: Iterable[Any], builder: Any) -> Iterator[tuple[str, Any]]:
        """Each state with its entity: ``ijson.kvitems`` would have all states of an entity in memory."""
        entity = ""
        here: str | None = None
        state: Any = None
        for prefix, event, value in events:
            if event == "map_key" and prefix == self._prefix:
                entity, here = value, f"{prefix}.{value}.item".lstrip(".")
            elif prefix == here and event == "end_map":
                state.event(event, value)
                yield entity, state.value
                state = None
            elif state is not None:
                state.event(event, value)
            elif prefix == here:
                state = builder()
                state.event(event, value)
                if event != "start_map":  # something else than a state
                    yield entity, state.value
                    state = None

    def origin(self, row: Row | Fault) -> Origin:  # noqa: ARG002
        """See ``Source``; the number is that of the state."""
        return Origin(self.name, self._number, "", json.dumps(self._object, ensure_ascii=False))


def _whole(state: Any, entity: Any) -> Any:
    """A state with its entity, and all names in full."""
    if not isinstance(state, dict):
        return state
    moments = (state.get(name) for name in _CHANGED)
    return {
        "entity_id": state.get("entity_id", entity),
        "state": state.get("state", state.get("s")),
        "last_changed": next((moment for moment in moments if moment is not None), None),
        "attributes": state.get("attributes", state.get("a")),
    }
