"""What each revision says of itself, and the SQL that it runs."""

import io
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing Alembic takes longer than a command needs to query a server
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory

FIELDS = ("Intent", "Locks", "Reversible", "Phase", "Release")
"""Of a revision's docstring, in the template's order."""

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
"""What a revision may take on tables that are in use (PostgreSQL manual, "Table-Level Locks")."""

_FIELD = re.compile(rf"^({'|'.join(FIELDS)}):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_UNVERIFIED = "; unproved"
_PHASE = re.compile(r"(expand|data)\b|contract of (\w+)")


class Phase(StrEnum):
    """What a revision means for the release that is still running.

    ``expand`` adds what it does not know, ``data`` moves rows, ``contract`` removes what it may still use.
    """

    EXPAND = "expand"
    DATA = "data"
    CONTRACT = "contract"


class UndeclaredError(ValueError):
    """A revision does not say what it must.

    Attributes:
        problems: What is missing or cannot be read, a line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Revision:
    """A revision's docstring, as a program reads it.

    Attributes:
        id: Alembic's.
        phase: Its part in a change.
        contracts: The revision whose expansion it ends; None unless it contracts.
        reversible: Whether ``downgrade`` brings everything back, the data included.
        locks: The strongest of LOCKS that it takes on a table in use.
        release: The first version of the product that has it, as numbers.
        allowed: The rules of lint that it breaks knowingly, with the reason.
    """

    id: str
    phase: Phase
    contracts: str | None
    reversible: bool
    locks: str
    release: tuple[int, ...]
    allowed: dict[str, str]


def declaration(script: "Script") -> Revision:
    """What a revision says of itself.

    Raises:
        UndeclaredError: it does not say all of it.
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
        locks=locks,
        release=tuple([*map(int, release[0].split(".")), 0, 0][:3]),
        allowed=getattr(script.module, "allowed", {}),
    )


def up_to(scripts: "ScriptDirectory", *heads: str) -> "list[Script]":
    """The revisions that lead to these, the first first."""
    return list(scripts.iterate_revisions(heads, "base"))[::-1] if heads else []


def upgrade_sql(config: "Config", script: "Script") -> str:
    """What Alembic would run to apply a revision, transactions and version stamp included."""
    from alembic import command

    revises = script.down_revision
    buffer = io.StringIO()
    config.output_buffer = buffer
    command.upgrade(config, f"{revises}:{script.revision}" if revises else script.revision, sql=True)
    return buffer.getvalue()


def history_comment(heads: "list[Script]", *, unverified: bool = False) -> str:
    """The statement that leaves in the database how it came to its revision.

    The release before this one does not know the newest revisions. With their phases beside the stamp it can
    tell whether it works on.

    Args:
        heads: The chain up to the revision that is stamped.
        unverified: Whether it is still to be seen that the schema is what it should be.
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


def is_unverified(remembered: str | None) -> bool:
    """Whether a run that ended early left a schema that nobody has looked at since.

    Args:
        remembered: What history_comment() left.
    """
    return (remembered or "").endswith(_UNVERIFIED)


def applied_after(remembered: str | None, head: str | None) -> list[tuple[str, str]] | None:
    """What a database has had applied after a revision: ids and phases, oldest first.

    Args:
        remembered: What history_comment() left.
        head: The newest revision of this release.

    Returns:
        None if that revision is not in it.
    """
    applied = re.findall(r"(\w+) \((\w+)\)", remembered or "")
    ids = [revision for revision, _ in applied]
    return applied[ids.index(head) + 1 :] if head in ids else None


def additions(remembered: str | None, head: str | None) -> list[str]:
    """The revisions of a newer release that only add to the schema, so that this release works beside them.

    Args:
        remembered: What history_comment() left.
        head: The newest revision of this release.

    Returns:
        Their ids, oldest first; empty if one of them contracts, or if the head is not among those applied.
    """
    applied = applied_after(remembered, head) or []
    if any(phase not in {Phase.EXPAND, Phase.DATA} for _, phase in applied):
        return []
    return [revision for revision, _ in applied]
