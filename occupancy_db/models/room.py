"""What is known of rooms besides their names."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class Room(Base):
    """A room that has a label or was retired; the type ``room_type`` lists all rooms."""

    __tablename__ = "rooms"

    room: Mapped[str] = mapped_column(Text, primary_key=True)
    label: Mapped[str | None] = mapped_column(Text)
    """The name that people read."""
    retired_at: Mapped[datetime | None]
    """From this time on the room takes no readings; None for a room in use."""

    __table_args__ = (
        CheckConstraint("room::room_type IS NOT NULL", name="room"),
        CheckConstraint("label <> ''", name="label"),
    )
