"""The input of preflight's checks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""A name of a database or user that needs no quotes."""


@dataclass(frozen=True)
class Request:
    """The input of all checks.

    Attributes:
        hostname: The host's name in the inventory.
        host: The facts of roles/occupancy/files/probe.py.
        variables: The roles' variables, converted to their types, by name; none of roles outside the play.
        tags: The tags of the run.
        hosts: All hosts of the play.
        product: The names of the product's own users.
        version: The version of this checkout.
        refused_tuning: Why the formula of role tuning refuses the variables, or the empty string.
    """

    hostname: str
    host: Mapping[str, Any]
    variables: Mapping[str, Any]
    tags: Sequence[str] = ()
    hosts: Sequence[str] = ()
    product: Sequence[str] = ()
    version: str = ""
    refused_tuning: str = ""

    def __getitem__(self, name: str) -> Any:
        """The variable of that name."""
        return self.variables[name]


@dataclass
class Problems:
    """Collects the texts of the checks that fail."""

    found: list[str] = field(default_factory=list)

    def __call__(self, bad: object, text: str) -> None:
        """Keep the text if the check is bad."""
        if bad:
            self.found.append(text)
