"""The enumerated types of the schema."""

from enum import StrEnum

from sqlalchemy import Enum


class RoomType(StrEnum):
    """The rooms of a home; PostgreSQL type ``room_type``."""

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


def pg_enum(members: type[StrEnum], name: str) -> Enum:
    """The column type of an enumerated type that stores the values of the members.

    Args:
        members: The Python class.
        name: The name of the PostgreSQL type.
    """
    return Enum(members, name=name, values_callable=lambda enum: [member.value for member in enum])


ROOM_TYPE = pg_enum(RoomType, "room_type")
PREDICTION_TYPE = pg_enum(PredictionType, "prediction_type")
