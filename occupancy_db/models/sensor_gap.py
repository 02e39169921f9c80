"""When sensors said that they know nothing."""

from datetime import datetime

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class SensorGap(Base):
    """The end of a state, because Home Assistant reported the sensor as unavailable or unknown."""

    __tablename__ = "sensor_gaps"

    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    room: Mapped[str] = mapped_column(Text, primary_key=True)
    zone: Mapped[str] = mapped_column(String(50), primary_key=True)
    source_entity: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Home Assistant entity id."""

    __table_args__ = (
        CheckConstraint("room::room_type IS NOT NULL", name="room"),
        CheckConstraint("isfinite(timestamp)", name="timestamp"),
    )
