"""The revision of a database beside the newest revision of this release, without importing Alembic."""

import re
from ast import literal_eval
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from occupancy_db.schema import revisions

_ASSIGNMENT = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*(.+)$", re.MULTILINE)

_TABLE = """
    SELECT to_regclass('public.alembic_version') IS NOT NULL AS present,
           obj_description(to_regclass('public.alembic_version'), 'pg_class') AS comment
"""


class UnclearError(Exception):
    """The revisions on disk are not one chain; Alembic can say what is wrong with them."""


@dataclass(frozen=True)
class Position:
    """Where a database is among the revisions.

    Attributes:
        revision: The revision of the database; None if no migration has been applied.
        head: The newest revision of this release.
        ahead: The revisions of a newer release that only add to the schema; empty if there are none.
        unverified: Whether the last run of migrations ended before it had verified the schema.
        known: Whether this release works with the revision.
    """

    revision: str | None
    head: str
    ahead: list[str] = field(default_factory=list)
    unverified: bool = False
    known: bool = True


def migrations_directory() -> Path:
    """The directory of the migrations: inside an installed package, at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def chain(directory: Path | None = None) -> list[str]:
    """The ids of this release's revisions, the newest last.

    Args:
        directory: The files of the revisions; default: those of this release.

    Raises:
        UnclearError: the files do not make one chain.
    """
    found: dict[str | None, str] = {}
    files = list((directory or migrations_directory() / "versions").glob("*.py"))
    for path in files:
        try:
            values = dict(_ASSIGNMENT.findall(path.read_text(encoding="utf-8")))
            found[literal_eval(values["down_revision"])] = literal_eval(values["revision"])
        except (KeyError, SyntaxError, TypeError, ValueError):
            raise UnclearError(path.name) from None
    ids: list[str] = []
    at: str | None = None
    while at in found and len(ids) < len(files):
        at = found[at]
        ids.append(at)
    if not ids or len(ids) != len(files):
        raise UnclearError("the revisions are not one chain")
    return ids


async def applied(connection: Any) -> tuple[list[str], str | None]:
    """The revisions in Alembic's table, and the comment of ``revisions.history_comment`` on it.

    Args:
        connection: An ``asyncpg.Connection`` to the database.

    Returns:
        One id, none if no migration has been applied, or several if the revisions have branches.

    Raises:
        asyncpg.PostgresError: the user may not read the table.
    """
    table = await connection.fetchrow(_TABLE)
    if not table["present"]:
        return [], None
    rows = await connection.fetch("SELECT version_num FROM public.alembic_version ORDER BY version_num")
    return [row["version_num"] for row in rows], table["comment"]


async def find(connection: Any) -> Position:
    """The position of a database.

    Args:
        connection: An ``asyncpg.Connection`` to it.

    Raises:
        UnclearError: the files of the revisions, or the applied revisions, are not one chain.
        asyncpg.PostgresError: the user may not read Alembic's table.
    """
    ids = chain()
    found, comment = await applied(connection)
    if len(found) > 1:
        raise UnclearError(", ".join(found))
    revision = found[0] if found else None
    known = revision is None or revision in ids
    ahead = [] if known else revisions.additions(comment, ids[-1])
    return Position(revision, ids[-1], ahead, revisions.is_unverified(comment), known or bool(ahead))
