"""Readings of the presence sensors."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, PrimaryKeyConstraint, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base
from occupancy_db.models.enums import ROOM_TYPE, RoomType


class SensorReading(Base):
    """The state of one zone of an FP2 sensor; partitioned by month of ``timestamp`` (UTC)."""

    __tablename__ = "sensor_readings"

    id: Mapped[int] = mapped_column(Identity(cache=32))
    timestamp: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confidence: Mapped[float] = mapped_column(server_default=text("1.0"))
    """Confidence of the detection, 0 to 1."""
    room: Mapped[RoomType] = mapped_column(ROOM_TYPE)
    state: Mapped[bool]
    """Whether the zone is occupied."""
    zone: Mapped[str] = mapped_column(String(50))
    source_entity: Mapped[str] = mapped_column(String(100))
    """Home Assistant entity id."""

    __table_args__ = (
        # Query: a range of time, as the last hour or a day, of one room or all.
        PrimaryKeyConstraint("timestamp", "id"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        # Query: the history of a zone, in months that an import stored in the order of zones. A B-tree would
        # cost a third of the ingest rate; in months stored by time it finds each row on another page.
        Index(
            "ix_sensor_readings_zone",
            "zone",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 32},
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )
