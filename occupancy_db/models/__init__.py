"""The tables as SQLAlchemy models."""

from occupancy_db.models.base import Base
from occupancy_db.models.enums import PredictionType, RoomType
from occupancy_db.models.prediction import Prediction
from occupancy_db.models.room import Room
from occupancy_db.models.room_transition import RoomTransition
from occupancy_db.models.sensor import Sensor
from occupancy_db.models.sensor_gap import SensorGap
from occupancy_db.models.sensor_reading import SensorReading

__all__ = [
    "Base",
    "Prediction",
    "PredictionType",
    "Room",
    "RoomTransition",
    "RoomType",
    "Sensor",
    "SensorGap",
    "SensorReading",
]
