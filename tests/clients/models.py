"""The tables as clients map them: rooms as strings, or as an enumeration by value or by name."""

from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, MetaData, String, func
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine


class Room(Enum):
    """The rooms of a client."""

    BEDROOM = "bedroom"
    OFFICE = "office"
    LIVING_KITCHEN = "living_kitchen"


class Kind(Enum):
    """The kinds of predictions."""

    OCCUPANCY = "occupancy"
    VACANCY = "vacancy"


def _values(members: Any) -> list[str]:
    return [member.value for member in members]


class Tables:
    """The classes of one client; each client has a registry and a MetaData of its own."""

    def __init__(self, room_type: TypeEngine[Any], kind: TypeEngine[Any], document: TypeEngine[Any]) -> None:
        """Map the tables.

        Args:
            room_type: The type of the columns with rooms.
            kind: The type of predictions.prediction_type.
            document: The type of predictions.probability_distribution.
        """

        class Base(DeclarativeBase):
            metadata = MetaData()

        class SensorReading(Base):
            __tablename__ = "sensor_readings"

            id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
            timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
            room: Mapped[Any] = mapped_column(room_type)
            zone: Mapped[str] = mapped_column(String(50))
            state: Mapped[bool] = mapped_column(Boolean)
            confidence: Mapped[float] = mapped_column(Float, default=1.0)
            source_entity: Mapped[str] = mapped_column(String(100))
            created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=func.now())

        class RoomTransition(Base):
            __tablename__ = "room_transitions"

            id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
            timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
            from_room: Mapped[Any] = mapped_column(room_type, nullable=True)
            to_room: Mapped[Any] = mapped_column(room_type)
            transition_duration_seconds: Mapped[float | None] = mapped_column(Float)
            confidence: Mapped[float] = mapped_column(Float, default=1.0)

        class Prediction(Base):
            __tablename__ = "predictions"

            id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
            room: Mapped[Any] = mapped_column(room_type)
            prediction_made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
            prediction_type: Mapped[Any] = mapped_column(kind)
            confidence: Mapped[float] = mapped_column(Float)
            horizon_minutes: Mapped[int | None] = mapped_column(Integer)
            probability: Mapped[float | None] = mapped_column(Float)
            expected_vacancy_minutes: Mapped[float | None] = mapped_column(Float)
            probability_distribution: Mapped[list[dict[str, Any]] | None] = mapped_column(document)
            model_version: Mapped[str | None] = mapped_column(String(50))

        self.SensorReading: Any = SensorReading
        self.RoomTransition: Any = RoomTransition
        self.Prediction: Any = Prediction


STRINGS = Tables(String(50), String(20), JSON())
VALUES = Tables(
    EnumType(Room, name="room_type", values_callable=_values),
    EnumType(Kind, name="prediction_type", values_callable=_values),
    JSONB(),
)
NAMES = Tables(EnumType(Room, name="room_type"), EnumType(Kind, name="prediction_type"), JSONB())
# An enumeration that SQLAlchemy stores as VARCHAR.
VARCHAR = Tables(
    EnumType(Room, native_enum=False, values_callable=_values, create_constraint=False),
    EnumType(Kind, native_enum=False, values_callable=_values, create_constraint=False),
    JSON(),
)
