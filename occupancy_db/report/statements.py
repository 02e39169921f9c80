"""Slow statements, without the values in them."""

import re
from typing import Any

import asyncpg

from occupancy_db.backup.configuration import BackupSettings, as_user, in_database
from occupancy_db.driver import connect_driver
from occupancy_db.errors import DatabaseError
from occupancy_db.report.parts import Cell, Column, Section, Table, Text, duration, skipped
from occupancy_db.settings import Settings

_MONITOR, _BACKUP_USER = "occupancy_monitor", "occupancy_backup"

SHOWN = 15
LONGEST = 400
"""Characters of a statement that are shown."""

# The product has the extension in this database.
_DATABASE = "postgres"
_PRESENT = "SELECT to_regclass('pg_stat_statements') IS NOT NULL"
# The extension replaces the values in these statements by $1, $2, …, and those of no others.
_STATEMENTS = """
    SELECT query, rolname AS user, calls, mean_exec_time / 1000 AS mean, total_exec_time / 1000 AS total, rows
    FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = $1 AND NOT rolsuper AND rolname <> $2
      AND query ~* '^\\s*(select|insert|update|delete|merge|values|with)\\y'
    ORDER BY total_exec_time DESC LIMIT $3
"""
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)


async def find(settings: Settings, backup: BackupSettings) -> list[Any] | str:
    """The statements that took most time, or why they are not known.

    Args:
        settings: The database.
        backup: Where the password of the user is who may read them.
    """
    try:
        user = as_user(settings, _MONITOR, backup)
    except DatabaseError:
        user = settings
    for one in (user, in_database(user, _DATABASE)):
        try:
            async with connect_driver(one, "occupancy-db report", {"timezone": "UTC"}) as connection:
                if await connection.fetchval(_PRESENT):
                    found: list[Any] = await connection.fetch(
                        _STATEMENTS, settings.database, _BACKUP_USER, SHOWN
                    )
                    return found
        except (DatabaseError, asyncpg.PostgresError) as error:
            return f"The slow statements cannot be read here: {str(error).splitlines()[0]}"
    return "The server has no extension pg_stat_statements."


def section(rows: list[Any] | str) -> Section:
    """The section on statements.

    Args:
        rows: The statements, or why there are none.
    """
    if not rows:
        rows = "No statement was recorded."
    if isinstance(rows, str):
        return Section("statements", "Slow statements", [skipped(rows)])
    table = Table(
        "The statements that took most time",
        [
            Column("Statement", "wide"),
            Column("User"),
            *(Column(title, "number") for title in ("Calls", "Mean", "Total", "Rows")),
        ],
        [
            [
                Cell(_short(row["query"]), "wide command"),
                row["user"],
                Cell(f"{row['calls']:,}", "number"),
                Cell(f"{1000 * row['mean']:,.1f} ms", "number"),
                Cell(duration(row["total"]), "number"),
                Cell(f"{row['rows']:,}", "number"),
            ]
            for row in rows
        ],
    )
    note = Text("Since the server's statistics were reset; values are replaced by $1, $2 and so on.")
    return Section("statements", "Slow statements", [note, table])


def _short(query: str) -> str:
    # Programs put values into comments.
    text = " ".join(_COMMENT.sub(" ", query).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
