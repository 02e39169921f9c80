"""Makes a recorder with Home Assistant's own models.

Run by the Python of an environment that has Home Assistant; see ``__init__.py``. Arguments: the file to make, and a
number of states. Without that, the content is the one of the dumps in this directory. With postgresql or mysql instead of
a file, its tables are printed as they are made there.
"""

# ruff: noqa
# mypy: ignore-errors

import json
import sys
from datetime import datetime, timedelta, timezone

import homeassistant.config_entries  # before its components: version 2023.1 imports them in a circle
from homeassistant.components.recorder import db_schema as schema
from homeassistant.core import Event, State
from sqlalchemy import create_engine, event, insert
from sqlalchemy.orm import Session

START = datetime(2026, 3, 29, 0, 30, 0, 123456, tzinfo=timezone.utc)
ENTITIES = {
    "binary_sensor.fp2_office_desk": ("FP2 Office Desk", "occupancy"),
    "binary_sensor.fp2_bedroom_bed": ("FP2 Bedroom Bed", "occupancy"),
    "binary_sensor.front_door": ("Front door", "door"),
    "sensor.office_temperature": ("Office temperature", None),
    "light.kitchen": ("Kitchen", None),
}
SCRIPT = [
    # entity, state, minutes after the start, minutes before that when the state changed
    (0, "unavailable", 0, 0),
    (0, "on", 1, 0),
    (0, "on", 3, 2),  # attributes alone have changed
    (1, "off", 4, 0),
    (2, "on", 5, 0),
    (3, "21.5", 6, 0),
    (4, "on", 7, 0),
    (0, "off", 8, 0),
    (1, "on", 61, 0),
    (1, "unknown", 62, 0),
    (1, "off", 63, 0),
    (1, None, 64, 0),  # the entity was removed
]


def script(number):
    for n in range(number):
        yield n % len(ENTITIES), ("on", "off")[n // len(ENTITIES) % 2], n / 4, 0


def state_of(name, state, when, changed):
    label, kind = ENTITIES[name]
    attributes = {"friendly_name": label, **({"device_class": kind} if kind else {})}
    return State(name, state, attributes, last_changed=changed, last_updated=when)


def main(path, number):
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def pragmas(connection, _):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")

    schema.Base.metadata.create_all(engine)
    names = list(ENTITIES)
    with Session(engine) as session:
        session.add(schema.SchemaChanges(schema_version=schema.SCHEMA_VERSION, changed=START))
        kept = {}
        if hasattr(schema, "StatesMeta"):
            for name in names:
                kept[name] = schema.StatesMeta(entity_id=name)
                session.add(kept[name])
        texts = {}
        for name in names:
            attributes = dict(state_of(name, "on", START, START).attributes)
            texts[name] = schema.StateAttributes(hash=0, shared_attrs=json.dumps(attributes))
            session.add(texts[name])
        session.flush()
        batch = []
        for place, state, minutes, before in script(number) if number else SCRIPT:
            name, when = names[place], START + timedelta(minutes=minutes)
            new = None if state is None else state_of(name, state, when, when - timedelta(minutes=before))
            data = {"entity_id": name, "new_state": new}
            try:
                found = Event("state_changed", data, time_fired_timestamp=when.timestamp())
            except TypeError:
                found = Event("state_changed", data, time_fired=when)
            try:
                row = schema.States.from_event(found)
            except AttributeError:  # newer versions cache what they compute
                row = schema.States.from_event(found)
            row.attributes_id = texts[name].attributes_id
            if kept:
                row.metadata_id, row.entity_id = kept[name].metadata_id, None
            # What is different each time is left out, so that the dumps can be compared.
            other = ("_", "context_", "last_reported_ts")
            batch.append({key: value for key, value in vars(row).items() if not key.startswith(other)})
            if len(batch) == 10_000:
                session.execute(insert(schema.States), batch)
                batch = []
        if batch:
            keys = set().union(*batch)
            session.execute(insert(schema.States), [{key: row.get(key) for key in keys} for row in batch])
        session.commit()


def declarations(server):
    from importlib import import_module

    from sqlalchemy.schema import CreateTable

    dialect = import_module("sqlalchemy.dialects." + server).dialect()
    for table in schema.Base.metadata.sorted_tables:
        if table.name in ("schema_changes", "state_attributes", "states_meta", "states"):
            text = str(CreateTable(table, include_foreign_key_constraints=[]).compile(dialect=dialect))
            print("\n".join(line.rstrip() for line in text.strip().splitlines()) + ";")


if __name__ == "__main__" and sys.argv[1] in ("postgresql", "mysql"):
    declarations(sys.argv[1])
elif __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
