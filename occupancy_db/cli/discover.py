"""The body of ``occupancy-db sensors discover``: other commands for sensors do without these imports."""

import csv
import io
import sys
from dataclasses import asdict, fields
from pathlib import Path

from occupancy_db.cli.import_readings import known, password
from occupancy_db.cli.output import out, with_program
from occupancy_db.history.sources.base import Options
from occupancy_db.history.sources.discovery import (
    Proposal,
    Registries,
    propose,
    read_registries,
    unknown_rooms,
)
from occupancy_db.history.sources.entities import add_rooms_hint
from occupancy_db.history.sources.recognise import open_source
from occupancy_db.history.sources.servers import is_address


def discover(source: str, registries: Path | None, password_file: Path | None) -> None:
    """Print the file of proposed sensors, and on standard error what to know about it.

    Args:
        source: A file or the address of a database.
        registries: The directory of Home Assistant's registries; None for the one beside a file.
        password_file: The password of a database.

    Raises:
        DatabaseError: something cannot be read.
    """
    rooms, sensors, notes = known(None)
    names = Registries({}, {}, {})
    if registries or not is_address(source):
        names = read_registries(registries or Path(source).parent / ".storage")
    where = source if is_address(source) else Path(source)
    with open_source(where, Options(password=password(password_file))) as opened:
        found = propose(opened, names, rooms)
    rows = [asdict(row) for row in found if row.entity_id not in sensors.places]
    if len(rows) < len(found):
        notes.append(f"{len(found) - len(rows)} entities are sensors of the database already")
    missing = unknown_rooms(found, rooms)
    if missing:
        notes.append(with_program(add_rooms_hint(missing)))
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Proposal)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    out.result({"sensors": rows, "unknown_rooms": missing, "notes": notes}, *text.getvalue().splitlines())
    if not out.json:
        # Standard output is the file.
        print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
