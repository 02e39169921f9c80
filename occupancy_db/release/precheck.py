"""The checks of a database before its schema is changed."""

import re
import shutil
from dataclasses import dataclass, field

from alembic.script import Script
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from occupancy_db.backup.configuration import BackupSettings, as_user
from occupancy_db.connection import connect
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema import revisions, runner
from occupancy_db.schema.privileges import MONITOR
from occupancy_db.schema.revisions import Phase, UndeclaredError
from occupancy_db.server import POSTGRES_MAJOR
from occupancy_db.settings import Environment, Settings

LONG_TRANSACTION = 10
"""Seconds after which an open transaction prevents a migration."""

_HEADROOM = 200 * 1024**2
"""Bytes that must stay free."""

_FACTS = text("""
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int / 10000 AS major,
           obj_description(to_regclass('public.alembic_version'), 'pg_class') AS comment
""")
INVALID_INDEXES = text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
# The indexes that a revision's SQL creates. The name of a partition's index has the suffix of the partition.
_BUILT = re.compile(
    r"\bINDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?\"?(\w+)\"?\s+ON\b", re.IGNORECASE
)
# The name of an index that an interrupted REINDEX CONCURRENTLY leaves; PostgreSQL's manual, REINDEX.
_REINDEX_LEFTOVER = re.compile(r"_cc(new|old)\d*$")
_DETACHING = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending ORDER BY 1")
_LARGEST = text("""
    SELECT coalesce(max(bytes), 0)::bigint FROM (
        SELECT sum(pg_total_relation_size(c.oid)) AS bytes
        FROM pg_class AS c LEFT JOIN pg_inherits ON inhrelid = c.oid
        WHERE c.relkind = 'r' AND c.oid >= 16384
        GROUP BY coalesce(inhparent, c.oid)
    ) AS tables
""")
# The product's own tools wait for each other with the maintenance lock. Only the monitoring user sees how old
# other users' transactions are.
_LONG = text("""
    SELECT pid, usename, application_name, state, extract(epoch FROM now() - xact_start)::int AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND application_name NOT LIKE 'occupancy-db %' AND now() - xact_start > make_interval(secs => :seconds)
    ORDER BY xact_start
""")


@dataclass
class DatabaseState:
    """The result of the pre-check.

    Attributes:
        revision: Revision of the database; None if no migration was applied.
        head: Newest revision of this release.
        pending: The revisions that are to be applied, in order.
        ahead: Revisions of a newer release, beside which this release works.
        unverified: Whether an earlier deployment ended before it had verified the schema.
        invalid: Names of INVALID indexes.
        problems: Why the migrations must not be applied.
        warnings: What the operator should know.
    """

    revision: str | None
    head: str | None
    pending: list[Script] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    unverified: bool = False
    invalid: list[str] = field(default_factory=list)
    problems: list[DatabaseError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether this release works with the revision of the database."""
        return all(problem.code is not ExitCode.UNSUITABLE for problem in self.problems)

    def raise_problems(self) -> None:
        """Raise all problems as one error, with the exit code and hint of the first.

        Raises:
            DatabaseError: there is a problem.
        """
        if self.problems:
            first = self.problems[0]
            what = "; ".join(problem.what for problem in self.problems)
            at = {"from": self.revision, "to": self.revision}
            raise DatabaseError(first.code, what, f"{first.hint} Nothing was changed.", at)


async def check_database(
    connection: AsyncConnection, settings: Settings, backup: BackupSettings
) -> DatabaseState:
    """Check whether the migrations of this release can be applied; without any, little is checked.

    Args:
        connection: A connection to the database.
        settings: The same database. The monitoring user checks sessions if its password is here.
        backup: Where passwords and backup sets are.

    Raises:
        DatabaseError: the monitoring user cannot connect.
    """
    scripts = runner.script_directory()
    heads = scripts.get_heads()
    state = DatabaseState(await runner.current_revision(connection), heads[0] if heads else None)
    if len(heads) > 1:
        state.problems.append(
            _unsuitable(f"this release has several newest revisions: {', '.join(heads)}", "See 'lint'.")
        )
        return state
    facts = (await connection.execute(_FACTS)).one()
    known = revisions.up_to(scripts, *heads)
    ids = [script.revision for script in known]
    if state.revision is not None and state.revision not in ids:
        _check_newer_revisions(state, facts.comment)
        return state
    state.pending = known[ids.index(state.revision) + 1 :] if state.revision else known
    state.unverified = revisions.is_unverified(facts.comment)
    if not state.pending:
        return state
    if facts.major != POSTGRES_MAJOR:
        state.problems.append(
            _unsuitable(f"the server is PostgreSQL {facts.version}", f"This release is for {POSTGRES_MAJOR}.")
        )
    _check_declarations(state, settings)
    await _check_schema(state, connection)
    await _check_sessions(state, connection, settings, backup)
    if backup.dir.is_dir():
        need, free = await connection.scalar(_LARGEST) + _HEADROOM, shutil.disk_usage(backup.dir).free
        if free < need:
            what = f"{free / 1e6:,.0f} MB are free, and rewriting a table may take {need / 1e6:,.0f} MB"
            state.problems.append(DatabaseError(ExitCode.NO_SPACE, what, "Free some, then try again."))
    return state


def _check_newer_revisions(state: DatabaseState, comment: str | None) -> None:
    state.ahead = revisions.additions(comment, state.head)
    if state.ahead:
        state.warnings.append(f"a newer release has added {', '.join(state.ahead)}; this one works beside it")
        return
    beyond = revisions.applied_after(comment, state.head) or ()
    contracts = [revision for revision, phase in beyond if phase == Phase.CONTRACT]
    what = f"the database is at {state.revision}, which this release does not know"
    if contracts:
        what = f"the database has had {contracts[0]}, which removes what this release uses"
    state.problems.append(_unsuitable(what, "Use the newer release."))


def _check_declarations(state: DatabaseState, settings: Settings) -> None:
    production = settings.environment is Environment.PRODUCTION
    pending = {script.revision for script in state.pending}
    for script in state.pending:
        try:
            contracts = revisions.declaration(script).contracts
        except UndeclaredError as error:
            what = f"{script.revision} has no complete declaration: {error}"
            if production:
                state.problems.append(_unsuitable(what, "Run 'occupancy-db lint' in the checkout."))
            else:
                state.warnings.append(what)
            continue
        if contracts in pending and state.revision is not None:
            what = f"{script.revision} removes what the release that is running uses until {contracts}"
            if production:
                state.problems.append(_unsuitable(what, f"Deploy the release of {contracts} first."))
            else:
                state.warnings.append(what)


async def _check_schema(state: DatabaseState, connection: AsyncConnection) -> None:
    config = runner.alembic_config()
    state.invalid = list((await connection.scalars(INVALID_INDEXES)).all())
    if state.invalid:
        pending_sql = "\n".join(revisions.upgrade_sql(config, script) for script in state.pending)
        built = set(_BUILT.findall(pending_sql))
        for index in state.invalid:
            # An interrupted attempt has left the index, and the same revision completes it.
            rebuilt = "REINDEX" in pending_sql and _REINDEX_LEFTOVER.search(index)
            if rebuilt or any(index == name or index.startswith(f"{name}_") for name in built):
                state.warnings.append(f"the INVALID index {index} was left by an interrupted migration")
                continue
            state.problems.append(
                DatabaseError(
                    ExitCode.FAILED,
                    f"the index {index} is INVALID",
                    f"Rebuild it (REINDEX INDEX CONCURRENTLY {index}) or drop it.",
                )
            )
    state.problems += [
        DatabaseError(
            ExitCode.FAILED,
            f"{partition} is half detached",
            "Run 'occupancy-db partitions maintain', which finishes it.",
        )
        for partition in (await connection.scalars(_DETACHING)).all()
    ]


async def _check_sessions(
    state: DatabaseState, connection: AsyncConnection, settings: Settings, backup: BackupSettings
) -> None:
    if settings.postgres_user != MONITOR and (backup.secrets_dir / MONITOR).exists():
        async with connect(as_user(settings, MONITOR, backup), "occupancy-db migrate") as monitor:
            rows = (await monitor.execute(_LONG, {"seconds": LONG_TRANSACTION})).all()
    else:
        rows = (await connection.execute(_LONG, {"seconds": LONG_TRANSACTION})).all()
    state.problems += [
        DatabaseError(
            ExitCode.LOCKED,
            f'pid {row.pid}, "{row.application_name}", user {row.usename}, '
            f"has a transaction open for {row.seconds} s ({row.state})",
            f"Let it end, or end it with pg_terminate_backend({row.pid}).",
        )
        for row in rows
    ]


def _unsuitable(what: str, hint: str) -> DatabaseError:
    return DatabaseError(ExitCode.UNSUITABLE, what, hint)
