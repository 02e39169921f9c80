"""Where each sensor is."""

from datetime import datetime, timedelta

from sqlalchemy import CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class Sensor(Base):
    """A place of a sensor, from a time on until its next one; without room and zone, it is retired."""

    __tablename__ = "sensors"

    entity: Mapped[str] = mapped_column(Text, primary_key=True)
    """Home Assistant entity id, the ``source_entity`` of readings."""
    since: Mapped[datetime] = mapped_column(primary_key=True)
    """Readings of this time and later are of this place."""
    room: Mapped[str | None] = mapped_column(Text)
    zone: Mapped[str | None] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(Text)
    """The name that people read."""
    hold: Mapped[timedelta | None]
    """The longest time for which a state holds without another reading; None for 24 hours."""
    max_silence: Mapped[timedelta | None]
    """The longest time without a reading that is nothing unusual; None: it is learnt from the readings."""

    __table_args__ = (
        CheckConstraint("char_length(entity) BETWEEN 1 AND 100", name="entity"),
        CheckConstraint("(room IS NULL) = (zone IS NULL)", name="place"),
        CheckConstraint("room IS NULL OR room::room_type IS NOT NULL", name="room"),
        CheckConstraint("char_length(zone) BETWEEN 1 AND 50", name="zone"),
        CheckConstraint("label <> ''", name="label"),
        CheckConstraint("hold > interval '0'", name="hold"),
        CheckConstraint("max_silence > interval '0'", name="max_silence"),
    )
