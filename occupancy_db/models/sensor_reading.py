"""Readings of the presence sensors."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, PrimaryKeyConstraint, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class SensorReading(Base):
    """The state of one zone of an FP2 sensor; partitioned by month of ``timestamp`` (UTC)."""

    __tablename__ = "sensor_readings"

    id: Mapped[int] = mapped_column(Identity(cache=32))
    timestamp: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confidence: Mapped[float] = mapped_column(server_default=text("1.0"))
    """Confidence of the detection, 0 to 1."""
    room: Mapped[str] = mapped_column(Text)
    state: Mapped[bool]
    """Whether the zone is occupied."""
    zone: Mapped[str] = mapped_column(String(50))
    source_entity: Mapped[str] = mapped_column(String(100))
    """Home Assistant entity id."""

    __table_args__ = (
        # Query: a range of time, as the last hour or a day, of one room or all.
        PrimaryKeyConstraint("timestamp", "id"),
        CheckConstraint("room::room_type IS NOT NULL", name="room"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        # Query: the newest readings of a room, or its readings of a range of time.
        Index("ix_sensor_readings_room_timestamp", "room", "timestamp"),
        # Query: the same of a zone.
        Index("ix_sensor_readings_zone_timestamp", "zone", "timestamp", postgresql_include=["state"]),
        # Query: one row by id. The ids of a month ascend in the order of its pages.
        Index(
            "ix_sensor_readings_id",
            "id",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 16, "autosummarize": "on"},
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )
