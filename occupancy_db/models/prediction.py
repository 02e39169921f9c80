"""What the models expect of the rooms."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Identity, Index, Integer, String, desc, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from occupancy_db.models.base import Base
from occupancy_db.models.enums import PREDICTION_TYPE, ROOM_TYPE, PredictionType, RoomType


class Prediction(Base):
    """A prediction of either kind; ``prediction_type`` tells which of the columns must be there."""

    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    prediction_made_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confidence: Mapped[float]
    probability: Mapped[float | None]
    """That the room is occupied at the horizon, 0 to 1."""
    expected_vacancy_minutes: Mapped[float | None]
    horizon_minutes: Mapped[int | None] = mapped_column(Integer)
    """15 steers cooling, 120 heating."""
    room: Mapped[RoomType] = mapped_column(ROOM_TYPE)
    prediction_type: Mapped[PredictionType] = mapped_column(PREDICTION_TYPE)
    model_version: Mapped[str | None] = mapped_column(String(50))
    probability_distribution: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

    __table_args__ = (
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),
        CheckConstraint("horizon_minutes IN (15, 120)", name="horizon_minutes"),
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
        # The newest prediction of a kind for a room.
        Index(
            "ix_predictions_room_prediction_type_prediction_made_at",
            "room",
            "prediction_type",
            desc("prediction_made_at"),
        ),
        # The predictions of a day, whatever the room; also what retention removes.
        Index("ix_predictions_prediction_made_at", desc("prediction_made_at")),
        # Which distributions contain a value (@>, @?, @@); jsonb_path_ops is smaller and faster for these.
        # Predictions without a distribution are left out.
        Index(
            "ix_predictions_probability_distribution",
            "probability_distribution",
            postgresql_using="gin",
            postgresql_ops={"probability_distribution": "jsonb_path_ops"},
            postgresql_where=text("probability_distribution IS NOT NULL"),
        ),
    )
