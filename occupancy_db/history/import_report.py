"""The account of an import."""

from dataclasses import dataclass, field

from occupancy_db.history.rows import Reader


@dataclass
class Report:
    """What an import did.

    Attributes:
        read: Rows of the files, of which each is counted in one of the next six.
        imported: New readings.
        duplicates: Readings that were there, or came twice.
        in_history: Readings of hours that retention has summed up and removed.
        no_state: Rows that say nothing.
        unplaced: Rows that name an entity alone which is in no room at that time.
        rejected: Rows that cannot be taken.
        gaps: New gaps, which are among the rows without a state.
        replaced: By month, how many hours of a zone that had been summed up and removed have the readings of
            the files instead now, and how many readings these hours had.
        stateless: The rows that say nothing, by what they say instead.
        entities: The rows without a room, by entity.
        months: New readings by month.
        warnings: What did not work, and does no harm.
    """

    read: int = 0
    imported: int = 0
    duplicates: int = 0
    in_history: int = 0
    no_state: int = 0
    unplaced: int = 0
    rejected: int = 0
    gaps: int = 0
    stateless: dict[str, int] = field(default_factory=dict)
    entities: dict[str, int] = field(default_factory=dict)
    months: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def account(self, reader: Reader) -> None:
        """Note what was read, and not imported."""
        self.read, self.rejected = reader.read, reader.rejects.count
        self.no_state, self.stateless = reader.stateless.total(), dict(reader.stateless.most_common())
        self.unplaced, self.entities = reader.unplaced.total(), dict(reader.unplaced.most_common())
