"""The kinds of system and where settings are, without pydantic, which the playbooks need not import."""

import os
from enum import StrEnum
from typing import Final

ENV_FILE: Final = None if os.environ.get("OCCUPANCY_COMMAND") else ".env"
"""The file of settings. The image of the tools has all of them in its environment, and runs in directories
of the host, where such a file is of another program or another database."""


class Environment(StrEnum):
    """The environment of the program. It selects the connection profile and the database."""

    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"
