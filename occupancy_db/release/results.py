"""Results of the release commands, as ``--json`` prints them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from occupancy_db.errors import ExitCode
from occupancy_db.schema import revisions
from occupancy_db.schema.revisions import Phase, UndeclaredError

if TYPE_CHECKING:  # importing Alembic takes longer than a command needs to query a server
    from alembic.script import Script


@dataclass(frozen=True)
class RevisionSummary:
    """A revision's declaration.

    Attributes:
        revision: The revision's id.
        phase: Its phase; None if the revision declares nothing.
        locks: The strongest lock that it takes on a table in use; None if the revision declares nothing.
        reversible: Whether its downgrade keeps all data; false if the revision declares nothing.
    """

    revision: str
    phase: Phase | None
    locks: str | None
    reversible: bool

    @classmethod
    def of(cls, script: "Script") -> "RevisionSummary":
        """Read the declaration of a revision; without a declaration, the worst is assumed."""
        try:
            one = revisions.declaration(script)
        except UndeclaredError:
            return cls(script.revision, None, None, False)
        return cls(one.id, one.phase, one.locks, one.reversible)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "revision": self.revision,
            "phase": self.phase,
            "locks": self.locks,
            "reversible": self.reversible,
        }


@dataclass(frozen=True)
class PlannedRevision:
    """A pending revision.

    Attributes:
        summary: Its declaration.
        sql: The SQL that it would run.
    """

    summary: RevisionSummary
    sql: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**self.summary.as_dict(), "sql": self.sql}


@dataclass(frozen=True)
class AppliedRevision:
    """A revision that was applied.

    Attributes:
        summary: Its declaration.
        seconds: How long it took, waiting for locks included.
        attempts: How often it was tried; more than once if other sessions held locks.
    """

    summary: RevisionSummary
    seconds: float
    attempts: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**self.summary.as_dict(), "seconds": self.seconds, "attempts": self.attempts}


@dataclass(frozen=True)
class ReleasePlan:
    """What a deployment would do.

    Attributes:
        database: The database's name.
        before: Its revision; None if it has none.
        after: The revision that it would have.
        pending: The revisions that would be applied, in order.
        ahead: Revisions of a newer release, beside which this release works.
        problems: Why a deployment would be refused, an error each.
        warnings: What the operator should know.
        exit_code: The exit code of the first problem; OK if there is none.
    """

    database: str
    before: str | None
    after: str | None
    pending: list[PlannedRevision] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.OK

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "database": self.database,
            "from": self.before,
            "to": self.after,
            "pending": [one.as_dict() for one in self.pending],
            "ahead": self.ahead,
            "problems": self.problems,
            "warnings": self.warnings,
        }


@dataclass
class Deployment:
    """What a deployment has done; filled in while it runs.

    Attributes:
        database: The database's name.
        before: Its revision before; None if it had none.
        after: Its revision now.
        reverted: Ids of the revisions that were reverted after a failure, in order.
        ahead: Revisions of a newer release, beside which this release works.
        revisions: The revisions that were applied, in order; those that were reverted later included.
        slowest_lock_ms: The longest time in ms that a session was seen waiting behind a revision.
        backup: Id of the backup set that was made first; None if none was made.
        warnings: What the operator should know.
        phases: Seconds by phase.
    """

    database: str
    before: str | None
    after: str | None
    ahead: list[str]
    warnings: list[str]
    phases: dict[str, float]
    reverted: list[str] = field(default_factory=list)
    revisions: list[AppliedRevision] = field(default_factory=list)
    slowest_lock_ms: float = 0.0
    backup: str | None = None

    @property
    def applied(self) -> list[str]:
        """Ids of the revisions that were applied, in order."""
        return [one.summary.revision for one in self.revisions]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {
            "database": self.database,
            "from": self.before,
            "to": self.after,
            "applied": self.applied,
            "reverted": self.reverted,
            "ahead": self.ahead,
            "revisions": [one.as_dict() for one in self.revisions],
            "slowest_lock_ms": self.slowest_lock_ms,
            "backup": self.backup,
            "warnings": self.warnings,
            "phases": self.phases,
        }
