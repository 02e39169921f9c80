"""The kinds of system. A module of its own, so that the playbooks need not import pydantic for it."""

from enum import StrEnum


class Environment(StrEnum):
    """The environment of the program. It selects the connection profile and the database."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"
