"""The two vocabularies of the schema, as Python sees them and as PostgreSQL stores them."""

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
    """What a prediction is about; PostgreSQL type ``prediction_type``."""

    OCCUPANCY = "occupancy"
    VACANCY = "vacancy"


def pg_enum(members: type[StrEnum], name: str) -> Enum:
    """The column type of an enum that is stored by its values, under PostgreSQL's name for it."""
    return Enum(members, name=name, values_callable=lambda enum: [member.value for member in enum])


ROOM_TYPE = pg_enum(RoomType, "room_type")
PREDICTION_TYPE = pg_enum(PredictionType, "prediction_type")
