"""The schema that the operator's manual describes, and the manual's way of writing to it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, String
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = """
CREATE TABLE sensor_readings (
    id serial PRIMARY KEY,
    timestamp timestamptz NOT NULL,
    room varchar(50) NOT NULL,
    zone varchar(50) NOT NULL,
    state boolean NOT NULL,
    confidence double precision NOT NULL DEFAULT 1.0 CHECK (confidence >= 0 AND confidence <= 1),
    source_entity varchar(100) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON sensor_readings (timestamp);
CREATE INDEX ON sensor_readings (room);
CREATE INDEX ON sensor_readings (room, timestamp);
CREATE INDEX ON sensor_readings (zone, timestamp);
CREATE INDEX ON sensor_readings (room, state, timestamp);
CREATE INDEX ON sensor_readings (source_entity, timestamp);

CREATE TABLE predictions (
    id serial PRIMARY KEY,
    prediction_made_at timestamptz NOT NULL,
    room varchar(50) NOT NULL,
    prediction_type varchar(20) NOT NULL,
    confidence double precision NOT NULL,
    probability double precision,
    horizon_minutes integer,
    probability_distribution jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON predictions USING gin (probability_distribution);

CREATE VIEW sensor_reading_stats AS
SELECT room,
       date_trunc('hour', timestamp) AS hour,
       count(*) AS reading_count,
       count(DISTINCT zone) AS active_zones,
       avg(confidence) AS avg_confidence,
       min(timestamp) AS first_reading,
       max(timestamp) AS last_reading
FROM sensor_readings
GROUP BY room, date_trunc('hour', timestamp);

CREATE VIEW room_occupancy_status AS
WITH latest AS (
    SELECT DISTINCT ON (room, zone) room, zone, state, timestamp, confidence
    FROM sensor_readings
    ORDER BY room, zone, timestamp DESC
)
SELECT room,
       count(*) FILTER (WHERE state) AS active_zones,
       count(*) AS total_zones,
       max(timestamp) AS last_update,
       avg(confidence) AS avg_confidence,
       CASE WHEN bool_or(state) THEN 'occupied' ELSE 'vacant' END AS occupancy_status
FROM latest
GROUP BY room;
"""

CLEANUP = "DELETE FROM sensor_readings WHERE timestamp < now() - interval '6 months'"


class Base(DeclarativeBase):
    """Of the model."""


class SensorReading(Base):
    """The row as an object."""

    __tablename__ = "sensor_readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    room: Mapped[str] = mapped_column(String(50))
    zone: Mapped[str] = mapped_column(String(50))
    state: Mapped[bool]
    source_entity: Mapped[str] = mapped_column(String(100))
    confidence: Mapped[float]


async def add_all(engine: AsyncEngine, columns: tuple[str, ...], batch: Iterable[tuple[Any, ...]]) -> None:
    """Write a batch with the session, and commit."""
    async with async_sessionmaker(engine)() as session:
        session.add_all(SensorReading(**dict(zip(columns, row, strict=True))) for row in batch)
        await session.commit()
