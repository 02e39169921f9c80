"""The values of the enumerated types of the schema.

The columns are text that the enumerated types check: a client may read and write any room of its database.
"""

from enum import StrEnum

from sqlalchemy import Enum

from occupancy_db.models.base import Base


class RoomType(StrEnum):
    """The rooms that every database has; ``room_type`` lists these and the rooms that were added."""

    BEDROOM = "bedroom"
    BATHROOM = "bathroom"
    SMALL_BATHROOM = "small_bathroom"
    OFFICE = "office"
    LIVING_KITCHEN = "living_kitchen"
    GUEST_BEDROOM = "guest_bedroom"


class PredictionType(StrEnum):
    """The kinds of predictions; PostgreSQL type ``prediction_type``."""

    OCCUPANCY = "occupancy"
    VACANCY = "vacancy"


# create_all() creates these types before the tables whose constraints use them.
for _members, _name in ((RoomType, "room_type"), (PredictionType, "prediction_type")):
    Enum(*(member.value for member in _members), name=_name, metadata=Base.metadata)
