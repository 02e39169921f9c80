"""The retention policy of a host, from the environment."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from occupancy_db.environment import ENV_FILE
from occupancy_db.months import MONTHS_AHEAD, MONTHS_BACK

_Months = Annotated[int, Field(ge=1, le=1200)]


class RetentionSettings(BaseSettings):
    """The retention policy of a host; every field is an environment variable.

    ``occupancy-db`` on a host has them from the inventory. Elsewhere none is set, unless an operator does.

    Raises:
        pydantic.ValidationError: a value is invalid.
    """

    model_config = SettingsConfigDict(env_file=ENV_FILE, extra="ignore", env_ignore_empty=True)

    retention_months: _Months | None = Field(None, description="Months of sensor readings to keep")
    retention_transitions_months: _Months | None = Field(
        None, description="Months of room transitions to keep"
    )
    retention_predictions_months: _Months | None = Field(None, description="Months of predictions to keep")
    retention_months_ahead: int = Field(
        MONTHS_AHEAD, ge=1, le=24, description="Months after the present one that should exist"
    )
    retention_months_back: int = Field(
        MONTHS_BACK, ge=0, le=120, description="Months before the present one that should exist"
    )
