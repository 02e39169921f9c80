"""Home Assistant's recorder: schemas since the beginning of 2023."""

# ruff: noqa: S608  # names of columns and numbers of entities, as the recorder has them

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from occupancy_db.history.rejects import Origin
from occupancy_db.history.sources.base import Fault, Options, Row, Source, arrange, unusable
from occupancy_db.history.times import TimeFormat

_PLACES: Final = {"source_entity": 0, "state": 1, "timestamp": 2, "room": 3, "zone": 4, "confidence": 5}
# The first that a row has: a state without a time of change has changed when it was updated, and rows that
# Home Assistant has not converted yet have the older columns alone.
_SECONDS: Final = ("last_changed_ts", "last_updated_ts")
_MOMENTS: Final = ("last_changed", "last_updated")


class Database(Protocol):
    """What a recorder is kept in.

    Attributes:
        name: For messages.
        kind: The name of the product.
        size: Any measure of it, for the progress.
        epoch: Makes an expression with a moment in UTC into seconds since 1970; has ``{}`` for it.
    """

    name: str
    kind: str
    size: int
    epoch: str

    def columns(self, table: str) -> set[str]:
        """The columns of a table, none if it does not exist."""

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, a few at a time; all queries see the same state of the database.

        Raises:
            DatabaseError: it cannot be read on.
        """

    def close(self) -> None:
        """End the connection."""


def check_is_recorder(database: Database) -> None:
    """Refuse another program's database.

    Raises:
        DatabaseError: it has no table of states, or cannot be read.
    """
    if not {"state", "entity_id"} <= database.columns("states") or not database.columns("schema_changes"):
        raise unusable(
            database.name,
            "it is no recorder of Home Assistant",
            "It has no table of states as since 2023.",
        )


class RecorderSource(Source):
    """The states of a recorder. A state is a reading of the time when it became that.

    Only those of entities that have a place are read; the others are counted.

    Raises:
        DatabaseError: it is no recorder.
    """

    def __init__(self, database: Database, options: Options) -> None:
        super().__init__(database.name)
        check_is_recorder(database)
        self._database = database
        self._sensors = options.sensors
        self._extras = tuple(options.constants.get(column) for column in ("room", "zone", "confidence"))
        self._read = self._rows = 0
        self._columns = database.columns("states")
        self.size = database.size
        self.times = TimeFormat.SECONDS
        arrange(self, _PLACES)
        versions = list(database.rows("SELECT max(schema_version) FROM schema_changes"))
        self.said = f"Home Assistant's recorder, {database.kind}, schema {versions[0][0]}"

    def close(self) -> None:
        """End the connection."""
        self._database.close()

    def position(self) -> int:
        """See ``Source``."""
        return self.size * self._read // self._rows if self._rows else 0

    def rows(self) -> Iterator[Row | Fault]:
        """See ``Source``."""
        for query in self._queries():
            for row in self._database.rows(query):
                self._read += 1
                yield row + self._extras

    def _time(self) -> str:
        """The expression of a state's time, in seconds."""
        times = [f"s.{name}" for name in _SECONDS if name in self._columns]
        moments = [f"s.{name}" for name in _MOMENTS if name in self._columns]
        times += [self._database.epoch.replace("{}", moment) for moment in moments]
        return f"coalesce({', '.join(times)})"

    def _queries(self) -> Iterator[str]:
        state = f"s.state, {self._time()} FROM states AS s"
        named = "s.entity_id IS NOT NULL"
        if "metadata_id" in self._columns:
            # Rows of before the table states_meta, which Home Assistant converts in the background
            named += " AND s.metadata_id IS NULL"
            if wanted := self._wanted():
                numbers = ", ".join(map(str, wanted))
                yield (
                    f"SELECT m.entity_id, {state} JOIN states_meta AS m ON m.metadata_id = s.metadata_id "
                    f"WHERE s.metadata_id IN ({numbers})"
                )
        yield f"SELECT s.entity_id, {state} WHERE {named}"

    def _wanted(self) -> list[int]:
        """The numbers of the entities that have a place; the rows of the others are counted."""
        names = dict(self._database.rows("SELECT metadata_id, entity_id FROM states_meta"))
        # A room for all of them: its rows are judged as those of a file.
        everywhere = any(self._extras[:2])
        wanted = []
        counts = "SELECT metadata_id, count(*) FROM states WHERE metadata_id IS NOT NULL GROUP BY metadata_id"
        for number, rows in self._database.rows(counts):
            name = names.get(number)
            if name is not None and (everywhere or name in self._sensors.places):
                wanted.append(number)
                self._rows += rows
            else:
                self.unplaced[name or f"metadata_id {number}"] += rows
        return sorted(wanted)

    def entities(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """See ``Source``: with the newest attributes of each."""
        entities = "(SELECT DISTINCT entity_id FROM states WHERE entity_id IS NOT NULL)"
        queries = [(entities, "s.entity_id = e.entity_id ORDER BY s.state_id")]
        if "metadata_id" in self._columns:
            queries.append(("states_meta", "s.metadata_id = e.metadata_id ORDER BY s.last_updated_ts"))
        for entities, same in queries:
            newest = (
                "SELECT a.shared_attrs FROM states AS s "
                f"JOIN state_attributes AS a ON a.attributes_id = s.attributes_id WHERE {same} DESC LIMIT 1"
            )
            for name, attributes in self._database.rows(
                f"SELECT e.entity_id, ({newest}) FROM {entities} AS e"
            ):
                yield name, json.loads(attributes) if attributes else {}

    def origin(self, row: Row | Fault) -> Origin:
        """See ``Source``; the number is that of the row, as it was read."""
        assert not isinstance(row, Fault)
        entity, state, when = row[:3]
        found = {"entity_id": entity, "state": state, "last_changed": when}
        return Origin(self.name, self._read, "", json.dumps(found, ensure_ascii=False))
