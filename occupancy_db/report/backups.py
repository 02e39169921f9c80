"""Backup sets: when they were made and verified."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from occupancy_db.backup.sets import BackupSet, SetState, Store
from occupancy_db.report import charts
from occupancy_db.report.home import Home
from occupancy_db.report.parts import (
    Cell,
    Chart,
    Column,
    Part,
    Row,
    Section,
    Table,
    Text,
    ago,
    duration,
    size,
    skipped,
)

SHOWN = 60
"""So many of the newest sets are shown."""

_STYLES = {SetState.VERIFIED: "good", SetState.UNVERIFIED: "warning", SetState.DAMAGED: "bad"}


def find(directory: Path, database: str) -> list[BackupSet] | str:
    """The sets of a database, the oldest first, or why they cannot be seen.

    Args:
        directory: The directory with the sets.
        database: Name of the database.
    """
    try:
        return Store(directory).sets(database)
    except OSError as error:
        return f"The backup sets cannot be read here: {error.strerror}: {directory}."


def newest_verified(sets: list[BackupSet] | str) -> BackupSet | None:
    """The newest set that was restored and compared."""
    if isinstance(sets, str):
        return None
    return next((one for one in reversed(sets) if one.state is SetState.VERIFIED and not one.ahead), None)


def section(home: Home, sets: list[BackupSet] | str) -> Section:
    """The section on backups.

    Args:
        home: The home.
        sets: The sets, the oldest first, or why there are none.
    """
    if not sets:
        sets = "There is no backup set."
    if isinstance(sets, str):
        return Section("backups", "Backups", [skipped(sets)])
    shown = sets[-SHOWN:]
    newest = newest_verified(sets)
    told = "None of them was restored and compared."
    if newest:
        age = ago(newest.made_at, home.now)
        told = f"The newest that was restored and compared was made {age}, at {home.local(newest.made_at)}."
    parts: list[Part] = [Text(f"{len(sets)} {'sets' if len(sets) > 1 else 'set'}. {told}")]
    if len(shown) > 1:
        parts.append(_chart(home, shown))
    parts.append(_table(home, shown))
    return Section("backups", "Backups", parts)


def _size(backup: BackupSet) -> int:
    return sum(facts.bytes for facts in backup.manifest.files.values()) if backup.manifest else 0


def _chart(home: Home, shown: Sequence[BackupSet]) -> Chart:
    def day(value: float) -> str:
        return home.local(datetime.fromtimestamp(value, home.zone), "%m-%d")

    return charts.lines(
        f"Size of the backup sets over time; the newest has {size(_size(shown[-1]))}.",
        "Size of the backup sets by the time at which they were made",
        {"Sets": [(one.made_at.timestamp(), _size(one)) for one in shown]},
        size,
        day,
        x_labels_major_count=6,
    )


def _table(home: Home, shown: Sequence[BackupSet]) -> Table:
    rows: list[Row] = []
    for one in reversed(shown):
        verified = one.verified
        notes = [note for note in (one.problem, one.pinned and f"pinned: {one.pinned}", one.ahead) if note]
        rows.append(
            [
                home.local(one.made_at),
                Cell(one.state.value, _STYLES[one.state]),
                home.local(verified.verified_at) if verified else "–",
                duration(verified.seconds) if verified else "–",
                size(_size(one)) if one.manifest else "–",
                f"{verified.rows:,}" if verified else "–",
                "; ".join(notes),
            ]
        )
    columns = [
        Column("Made", "time"),
        Column("State"),
        Column("Verified", "time"),
        *(Column(title, "number") for title in ("Took", "Size", "Rows compared")),
        Column("Note"),
    ]
    return Table(f"The newest {len(rows)} sets" if len(rows) > 1 else "The set", columns, rows)
