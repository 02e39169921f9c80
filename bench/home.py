"""Generated readings of a home: ten million a year, up to now; the same rows for the same end time."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from occupancy_db.readings import Reading

PLACES = {
    "bedroom": ("full", "bed", "desk_anca"),
    "bathroom": ("full", "shower", "sink"),
    "small_bathroom": ("full", "toilet"),
    "office": ("full", "desk", "couch"),
    "living_kitchen": ("full", "couch", "table", "kitchen"),
    "guest_bedroom": ("full", "bed"),
}

SILENT_ROOM = "guest_bedroom"
SILENT_ZONE = "sink"
SILENT_PIECES = 55
"""Pieces of the last 20 days, in which the silent room and the silent zone have no reading."""

RARE_ZONE = "shower"
_RARE_PART = 6
"""The rare zone has one reading for so many of another zone's: one in a hundred of all."""

STEP = 3153.6
"""Milliseconds from one reading to the next: 365 days in ten million steps."""
_JITTER = 3000

PIECE = 10_000
"""Rows of a piece. Pieces are counted from the newest, so the newest rows are equal in all sizes."""
_PIECES_AT_ONCE = 10

HEADER = b"timestamp,room,zone,state,source_entity,confidence\n"
COLUMNS = ("timestamp", "room", "zone", "state", "source_entity", "confidence")
"""Columns of the files and of records()."""

PREDICTIONS = 100_000


@cache
def _tails(silent: bool) -> list[tuple[str, str, bool, str, float]]:
    return [
        (room, zone, state, f"binary_sensor.fp2_{room}_{zone}", confidence / 1000)
        for room, zones in PLACES.items()
        for zone in zones
        if not (silent and (room == SILENT_ROOM or zone == SILENT_ZONE))
        for state in (False, True)
        for confidence in range(850, 1001, _RARE_PART if zone == RARE_ZONE else 1)
    ]


@cache
def _csv_tails(silent: bool) -> list[str]:
    return [
        f",{room},{zone},{str(state).lower()},{entity},{confidence:.3f}\n"
        for room, zone, state, entity, confidence in _tails(silent)
    ]


def _moments(piece: int, random: Random, end: datetime) -> list[datetime]:
    """The timestamps of rows piece * PIECE to (piece + 1) * PIECE from the newest, oldest first."""
    last = int(end.timestamp() * 1000)
    numbers = range((piece + 1) * PIECE, piece * PIECE, -1)
    jitters = random.choices(range(_JITTER), k=PIECE)
    return [
        datetime.fromtimestamp((last - int(number * STEP) + jitter) / 1000, UTC)
        for number, jitter in zip(numbers, jitters, strict=True)
    ]


def _csv(end: datetime, pieces: list[int]) -> bytes:
    lines = []
    for piece in pieces:
        random = Random(piece)
        moments = _moments(piece, random, end)
        for moment, tail in zip(
            moments, random.choices(_csv_tails(piece < SILENT_PIECES), k=PIECE), strict=True
        ):
            lines += [moment.isoformat(timespec="milliseconds"), tail]
    return "".join(lines).encode()


def write(path: Path, since: int, until: int, end: datetime) -> None:
    """Write a CSV file.

    Args:
        path: The file.
        since: Its first row, counted back from the newest of all; a multiple of PIECE.
        until: The row before which it ends, counted in the same way.
        end: When the newest row was measured.
    """
    pieces = list(range(since // PIECE - 1, until // PIECE - 1, -1))
    at_once = [pieces[n : n + _PIECES_AT_ONCE] for n in range(0, len(pieces), _PIECES_AT_ONCE)]
    with path.open("wb") as file, ProcessPoolExecutor() as processes:
        file.write(HEADER)
        for text in processes.map(partial(_csv, end), at_once):
            file.write(text)


def records(since: int, end: datetime) -> Iterator[tuple[Any, ...]]:
    """Return the newest rows as tuples, equal to those of the files; arguments as for write()."""
    for piece in range(since // PIECE - 1, -1, -1):
        random = Random(piece)
        moments = _moments(piece, random, end)
        for moment, tail in zip(moments, random.choices(_tails(piece < SILENT_PIECES), k=PIECE), strict=True):
            yield (moment, *tail)


def readings(since: int, end: datetime) -> Iterator[Reading]:
    """Return the same rows as Reading objects."""
    return (Reading(*record) for record in records(since, end))


def predictions(end: datetime) -> Iterator[tuple[Any, ...]]:
    """Return predictions: time, room, type, confidence, probability, horizon, distribution as JSON."""
    random = Random(PREDICTIONS)
    rooms = list(PLACES)
    for number in range(PREDICTIONS, 0, -1):
        probability = random.randrange(1001) / 1000
        distribution = {"occupied": probability, "vacant": round(1 - probability, 3)}
        moment = datetime.fromtimestamp(end.timestamp() - number * 60, UTC)
        room = random.choice(rooms)
        yield moment, room, "occupancy", 0.8, probability, 15, json.dumps(distribution)
