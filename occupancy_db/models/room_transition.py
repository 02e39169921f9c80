"""Movements between rooms, calculated from the readings."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, Text, desc, func, text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class RoomTransition(Base):
    """A person left a room and was detected in another."""

    __tablename__ = "room_transitions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    timestamp: Mapped[datetime]
    """The time of the detection in the new room."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    transition_duration_seconds: Mapped[float | None]
    confidence: Mapped[float] = mapped_column(server_default=text("1.0"))
    from_room: Mapped[str | None] = mapped_column(Text)
    """None for the first detection of a person."""
    to_room: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("from_room IS NULL OR from_room::room_type IS NOT NULL", name="from_room"),
        CheckConstraint("to_room::room_type IS NOT NULL", name="to_room"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        CheckConstraint(
            "transition_duration_seconds >= 0 AND transition_duration_seconds < 'Infinity'",
            name="transition_duration",
        ),
        # Query: the movements of a day, in order.
        Index("ix_room_transitions_timestamp", desc("timestamp")),
        # Query: number and duration of the movements from one room to another.
        Index("ix_room_transitions_from_room_to_room_timestamp", "from_room", "to_room", desc("timestamp")),
    )
