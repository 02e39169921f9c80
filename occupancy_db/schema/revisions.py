"""The declarations of revisions in their docstrings, and the SQL that they run."""

import io
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing Alembic takes longer than a command needs to query a server
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory

FIELDS = ("Intent", "Locks", "Reversible", "Phase", "Release")
"""Fields of a revision's docstring, in the order of the template."""

LOCKS = (
    "none",
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE ROW EXCLUSIVE",
    "SHARE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
"""Table-level locks, the weakest first (PostgreSQL's manual, 13.3.1 Table-Level Locks)."""

_FIELD = re.compile(rf"^({'|'.join(FIELDS)}):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
# The text is stored in databases, and must not change.
_UNVERIFIED = "; unproved"
_PHASE = re.compile(r"(expand|data)\b|contract of (\w+)")


class Phase(StrEnum):
    """The phase of a revision in the change of a schema that is in use.

    ``expand`` adds objects that the running release does not use, ``data`` changes rows, ``contract`` removes
    objects that the running release may still use.
    """

    EXPAND = "expand"
    DATA = "data"
    CONTRACT = "contract"


class UndeclaredError(ValueError):
    """The declaration of a revision is incomplete.

    Attributes:
        problems: Fields that are missing or invalid, a line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Revision:
    """The declaration of a revision.

    Attributes:
        id: Id of the revision.
        phase: Phase of the revision.
        contracts: Id of the revision that added what this one removes; None unless the phase is contract.
        reversible: Whether ``downgrade`` restores the previous state, with all data.
        loses: What ``downgrade`` loses, in words: the field Reversible.
        lost: By the name of data that ``downgrade`` loses: the query that counts them.
        locks: The strongest of LOCKS that it takes on a table in use.
        release: First version of the product that contains it, as numbers.
        allowed: The lint rules that it breaks on purpose, with the reason of each.
    """

    id: str
    phase: Phase
    contracts: str | None
    reversible: bool
    loses: str
    lost: dict[str, str]
    locks: str
    release: tuple[int, ...]
    allowed: dict[str, str]


def declaration(script: "Script") -> Revision:
    """Read the declaration of a revision.

    Raises:
        UndeclaredError: a field is missing or invalid.
    """
    found = {name: " ".join(value.split()) for name, value in _FIELD.findall(script.longdoc)}
    problems = [
        f"{name}: is {'not filled in' if name in found else 'missing'}"
        for name in FIELDS
        if not found.get(name) or found[name].startswith("<")
    ]
    if problems:
        raise UndeclaredError(problems)
    phase = _PHASE.match(found["Phase"])
    if not phase:
        problems.append("Phase: begins with expand, data, or contract of <revision>")
    reversible = re.match(r"(yes|no|only)\b", found["Reversible"])
    if not reversible:
        problems.append("Reversible: begins with yes, only (without what) or no")
    locks = max((lock for lock in LOCKS if found["Locks"].startswith(lock)), key=len, default=None)
    if not locks:
        problems.append("Locks: begins with none or the strongest lock, as in ACCESS EXCLUSIVE")
    release = re.match(r"\d+(\.\d+)*", found["Release"])
    if not release:
        problems.append("Release: begins with a version, as in 0.2.0")
    if not (phase and reversible and locks and release):
        raise UndeclaredError(problems)
    return Revision(
        id=script.revision,
        phase=Phase(phase[1] or "contract"),
        contracts=phase[2],
        reversible=reversible[0] == "yes",
        loses=found["Reversible"].rstrip("."),
        lost=getattr(script.module, "lost", {}),
        locks=locks,
        release=tuple([*map(int, release[0].split(".")), 0, 0][:3]),
        allowed=getattr(script.module, "allowed", {}),
    )


def up_to(scripts: "ScriptDirectory", *heads: str) -> "list[Script]":
    """Return the revisions that lead to the given ones, which are included, the oldest first."""
    return list(scripts.iterate_revisions(heads, "base"))[::-1] if heads else []


def upgrade_sql(config: "Config", script: "Script") -> str:
    """Return the SQL that Alembic would run to apply a revision, with transactions and the version stamp."""
    from alembic import command

    revises = script.down_revision
    buffer = io.StringIO()
    config.output_buffer = buffer
    command.upgrade(config, f"{revises}:{script.revision}" if revises else script.revision, sql=True)
    return buffer.getvalue()


def history_comment(heads: "list[Script]", *, unverified: bool = False) -> str:
    """Return the statement that records the applied revisions and their phases as a comment.

    An older release does not know the newest revisions. Their phases tell it whether it can work beside them.

    Args:
        heads: The revisions up to the one that is stamped, the oldest first.
        unverified: Whether the schema still has to be verified.
    """
    if not heads:
        return "COMMENT ON TABLE alembic_version IS NULL"
    phases = []
    for script in heads:
        try:
            phases.append(f"{script.revision} ({declaration(script).phase})")
        except UndeclaredError:
            phases.append(f"{script.revision} (undeclared)")
    return f"COMMENT ON TABLE alembic_version IS '{', '.join(phases)}{_UNVERIFIED if unverified else ''}'"


def is_unverified(comment: str | None) -> bool:
    """Return whether an interrupted deployment has left a schema that was not verified.

    Args:
        comment: The comment that history_comment() has set; None if there is none.
    """
    return (comment or "").endswith(_UNVERIFIED)


def applied_after(comment: str | None, head: str | None) -> list[tuple[str, str]] | None:
    """Return the ids and phases of the revisions that were applied after a revision, the oldest first.

    Args:
        comment: The comment that history_comment() has set; None if there is none.
        head: The newest revision of this release.

    Returns:
        None if that revision was not applied.
    """
    applied = re.findall(r"(\w+) \((\w+)\)", comment or "")
    ids = [revision for revision, _ in applied]
    return applied[ids.index(head) + 1 :] if head in ids else None


def additions(comment: str | None, head: str | None) -> list[str]:
    """Return the revisions of a newer release if they only add to the schema: this release works beside them.

    Args:
        comment: The comment that history_comment() has set; None if there is none.
        head: The newest revision of this release.

    Returns:
        Their ids, oldest first; empty if one of them contracts, or if the head is not among those applied.
    """
    applied = applied_after(comment, head) or []
    if any(phase not in {Phase.EXPAND, Phase.DATA} for _, phase in applied):
        return []
    return [revision for revision, _ in applied]
