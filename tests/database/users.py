"""The product's users, as defined in roles/occupancy and created by the access role."""

import re
from pathlib import Path
from typing import Any, Protocol

import yaml

ROOT = Path(__file__).parents[2]
OWNER = "occupancy"
PASSWORD = "correct horse battery staple"
ODD = "colon:back\\slash"
"""Characters that must be escaped in a pgpass file; every other password contains them."""

USERS: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/occupancy/vars/main.yml").read_text())[
    "occupancy_roles"
]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/occupancy/defaults/main.yml").read_text())
NAMES = [user["name"] for user in USERS]


class Administered(Protocol):
    """A server on which statements run as the superuser."""

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""


def password(user: str) -> str:
    return PASSWORD if user == OWNER else f"{ODD} of {user}"


def setting(value: str) -> str:
    """The value of a user's setting, which may be the default of a variable."""
    variable = re.fullmatch(r"\{\{ (\w+) \}\}", value)
    return str(DEFAULTS[variable[1]]) if variable else value


def make_users(cluster: Administered) -> None:
    for user in USERS:
        members = ", ".join(user.get("member_of", []))
        cluster.execute(
            f"CREATE ROLE {user['name']} LOGIN {user.get('flags', '')} PASSWORD '{password(user['name'])}' "
            f"CONNECTION LIMIT {user['connections']} {f'IN ROLE {members}' if members else ''}",
            *(
                f"ALTER ROLE {user['name']} SET {name} = '{setting(value)}'"
                for name, value in user["settings"].items()
            ),
        )


def grant(cluster: Administered, database: str) -> None:
    cluster.execute((ROOT / "occupancy_db/schema/privileges.sql").read_text(), database=database)
