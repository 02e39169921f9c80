"""Predictions of the occupancy of rooms."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Identity, Index, Integer, String, Text, desc, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base


class Prediction(Base):
    """A prediction; ``prediction_type`` decides which of the other columns are required."""

    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    prediction_made_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confidence: Mapped[float]
    probability: Mapped[float | None]
    """Probability that the room is occupied at the horizon, 0 to 1."""
    expected_vacancy_minutes: Mapped[float | None]
    horizon_minutes: Mapped[int | None] = mapped_column(Integer)
    """How far ahead the prediction is, in minutes; 15 for cooling and 120 for heating."""
    room: Mapped[str] = mapped_column(Text)
    prediction_type: Mapped[str] = mapped_column(Text)
    """A value of ``PredictionType``."""
    model_version: Mapped[str | None] = mapped_column(String(50))
    probability_distribution: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    """A list of objects: ``[{"minutes": 15, "probability": 0.2}, ...]``."""

    __table_args__ = (
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
        CheckConstraint("horizon_minutes > 0", name="horizon_minutes"),
        CheckConstraint("room::room_type IS NOT NULL", name="room"),
        CheckConstraint("prediction_type::prediction_type IS NOT NULL", name="prediction_type"),
        CheckConstraint(
            "expected_vacancy_minutes >= 0 AND expected_vacancy_minutes < 'Infinity'",
            name="expected_vacancy_minutes",
        ),
        CheckConstraint(
            "prediction_type <> 'occupancy' OR (horizon_minutes IS NOT NULL AND probability IS NOT NULL)",
            name="occupancy_complete",
        ),
        CheckConstraint(
            "prediction_type <> 'vacancy' OR expected_vacancy_minutes IS NOT NULL",
            name="vacancy_complete",
        ),
        # Query: the newest prediction of a type for a room.
        Index(
            "ix_predictions_room_prediction_type_prediction_made_at",
            "room",
            "prediction_type",
            desc("prediction_made_at"),
        ),
        # Query: the predictions of a day in all rooms; also the deletion of old predictions.
        Index("ix_predictions_prediction_made_at", desc("prediction_made_at")),
        # Query: distributions that contain a value (@>, @?, @@). jsonb_path_ops is smaller and faster.
        # Predictions without a distribution are not indexed.
        Index(
            "ix_predictions_probability_distribution",
            "probability_distribution",
            postgresql_using="gin",
            postgresql_ops={"probability_distribution": "jsonb_path_ops"},
            postgresql_where=text("probability_distribution IS NOT NULL"),
        ),
    )
