"""Databases besides the product's own (occupancy_extra_databases): their owners, and checks of preflight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from provisioning.request import IDENTIFIER, Problems, Request

CONNECTIONS = 10
"""How many connections an owner has unless the inventory says otherwise."""

RESTORE = 3
"""Connections of a restore, which logs in as the owner beside the clients: pg_restore with two jobs."""

SYSTEM = {"postgres", "template0", "template1", "occupancy_template"}
"""Databases of the server and of the product."""

WORDS = {"all", "sameuser", "samerole", "replication", "public", "none"}
"""Names with a meaning of their own in pg_hba.conf and in GRANT."""

MARK = "Owns a database of occupancy_extra_databases"
"""The comment of the owners, by which a later run knows those that are no longer in the inventory."""


def complete(entries: Iterable[Mapping[str, Any]], networks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the databases with all of their attributes.

    Args:
        entries: The value of occupancy_extra_databases. What is no mapping with a name is left out: preflight
            will refuse it.
        networks: The value of occupancy_allowed_cidrs, from which clients may connect unless an entry has its
            own.
    """
    defaults = {"connections": CONNECTIONS, "allowed_cidrs": list(networks)}
    return [
        {
            **defaults,
            "owner": entry["name"],
            **{key: value for key, value in entry.items() if value is not None},
        }
        for entry in entries
        if isinstance(entry, Mapping) and "name" in entry
    ]


def owners(databases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the owners in the format of the product's users.

    The timeout ends a transaction that would keep backups waiting, and the limit of temporary files keeps a
    session from filling the disk. Statements may last: recorders purge and convert tables for hours.

    Args:
        databases: As `complete` returns them.
    """
    return [
        {
            "name": one["owner"],
            "comment": MARK,
            "connections": int(one["connections"]) + RESTORE,
            "settings": {"idle_in_transaction_session_timeout": "1h", "temp_file_limit": "1GB"},
        }
        for one in databases
    ]


def left(
    databases: Iterable[Mapping[str, Any]], roles: Mapping[str, Any], present: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the databases that are no longer in the inventory, by their owner: a run removes neither.

    Args:
        databases: As `complete` returns them.
        roles: The server's roles by name.
        present: The server's databases by name.
    """
    wanted = {one["owner"] for one in databases}
    return {
        owner: sorted(name for name, facts in present.items() if facts["owner"] == owner)
        for owner, facts in roles.items()
        if facts["comment"] == MARK and owner not in wanted
    }


def find_problems(request: Request) -> list[str]:
    """Return what is wrong with occupancy_extra_databases.

    Args:
        request: The variables and the host.
    """
    problem = Problems()
    databases = complete(request["occupancy_extra_databases"], [])
    taken = {request["occupancy_test_database"], *SYSTEM, *WORDS, *_names(request["occupancy_database"])}
    _check_names(databases, taken, problem)
    users = {*request.product, *(user["name"] for user in request["occupancy_users"]), "postgres", *WORDS}
    named = [one["owner"] for one in databases]
    wrong = {
        name
        for name in named
        if not IDENTIFIER.fullmatch(name) or name.startswith("pg_") or name in users or named.count(name) > 1
    }
    problem(
        wrong,
        "Each database in occupancy_extra_databases has an owner of its own: lower-case letters, digits and "
        "_, no user of the product, of the server or of occupancy_users. Not so: "
        f"{', '.join(sorted(wrong))}.",
    )
    wrong = {one["name"] for one in databases if not 1 <= one["connections"] <= 1000}
    problem(wrong, f"connections in occupancy_extra_databases must be 1 to 1000. Not so: {', '.join(wrong)}.")
    present = (request.host["server"] or {}).get("databases", {})
    problem.found += [
        f"The database {one['name']} on this host belongs to {owner}, and occupancy_extra_databases names "
        f"{one['owner']}: name the same owner."
        for one in databases
        if (owner := present.get(one["name"], {}).get("owner", one["owner"])) != one["owner"]
    ]
    return problem.found


def _names(database: str) -> list[str]:
    """The names that restores of a database need."""
    return [database, f"{database}_restoring", f"{database}_replaced"]


def _check_names(databases: Iterable[Mapping[str, Any]], taken: set[str], problem: Problems) -> None:
    wrong = set()
    for one in databases:
        needed = _names(one["name"])
        if not IDENTIFIER.fullmatch(needed[1]) or taken & set(needed):
            wrong.add(one["name"])
        taken = taken | set(needed)
    problem(
        wrong,
        "The names in occupancy_extra_databases must be lower-case letters, digits and _, 53 characters at "
        "most, each once, and none that the server, the product or a restore (NAME_restoring, NAME_replaced) "
        f"needs. Not so: {', '.join(sorted(wrong))}.",
    )
