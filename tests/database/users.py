"""The product's users, as defined in roles/occupancy and created by the access role."""

import re
from pathlib import Path
from typing import Any, Protocol

import yaml

from occupancy_db.backup.copying import TEMPLATE
from provisioning import convergence

ROOT = Path(__file__).parents[2]
OWNER = "occupancy"
PASSWORD = "correct horse battery staple"
ODD = "colon:back\\slash"
"""Characters that must be escaped in a pgpass file; every other password contains them."""

VARIABLES: dict[str, Any] = yaml.safe_load((ROOT / "roles/occupancy/vars/main.yml").read_text())
USERS: list[dict[str, Any]] = VARIABLES["occupancy_roles"]
FUNCTIONS = (ROOT / "roles/access/files/functions.sql").read_text()
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/occupancy/defaults/main.yml").read_text())
NAMES = [user["name"] for user in USERS]
MARK = "a user of the inventory"


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


def logins(operators: list[dict[str, str]] | None = None) -> list[dict[str, Any]]:
    """All users as the access role creates them.

    Args:
        operators: Users of the inventory (`occupancy_users`).
    """
    more = operators or []
    limits = {user["name"]: user["connections"] for user in USERS}
    limits |= {user["name"]: VARIABLES["occupancy_user_connections"] for user in more}
    found = convergence.logins(USERS, more, limits, MARK)
    for user in found:
        user["settings"] = {name: setting(value) for name, value in user["settings"].items()}
    return found


def make_users(cluster: Administered, operators: list[dict[str, str]] | None = None) -> None:
    """Create the users, and the template of the databases that restores create.

    Args:
        cluster: The server.
        operators: Users of the inventory (`occupancy_users`).
    """
    for user in logins(operators):
        members = ", ".join(user.get("member_of", []))
        cluster.execute(
            f"CREATE ROLE {user['name']} {user['flags'].replace(',', ' ')} CONNECTION LIMIT {user['limit']} "
            f"PASSWORD '{password(user['name'])}' {f'IN ROLE {members}' if members else ''}",
            *(
                f"ALTER ROLE {user['name']} SET {name} = '{value}'"
                for name, value in user["settings"].items()
            ),
        )
    cluster.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    cluster.execute(FUNCTIONS, database=TEMPLATE)


def grant(cluster: Administered, database: str) -> None:
    """Converge the privileges in a database."""
    cluster.execute(FUNCTIONS, database=database)
    cluster.execute((ROOT / "occupancy_db/schema/privileges.sql").read_text(), database=database)
