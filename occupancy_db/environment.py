"""The kinds of system. A module of its own, so that the playbooks need not import pydantic for it."""

from enum import StrEnum


class Environment(StrEnum):
    """Where the code runs; it selects the connection profile and the database."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"
