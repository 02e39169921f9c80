"""The kinds of system, in a separate module so that the playbooks need not import pydantic."""

from enum import StrEnum


class Environment(StrEnum):
    """The environment of the program. It selects the connection profile and the database."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"
