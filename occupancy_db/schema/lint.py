"""The lint rules for migrations: squawk on their SQL, and rules of this project.

Squawk (https://squawkhq.com/docs/rules) finds dangerous locks. The rules here find what squawk does not.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.schema import revisions
from occupancy_db.schema.revisions import Phase, Revision, UndeclaredError
from occupancy_db.server import POSTGRES_MAJOR

MAX_REVISION_LENGTH = 32
"""alembic_version.version_num is varchar(32)."""

_MIGRATION_OPS = "occupancy_db.schema.migration_ops"

# Rules of squawk that do not apply, and the reasons.
_EXCLUDED = {
    "require-lock-timeout": "the runner sets it for the session",
    "require-statement-timeout": "a concurrent index may take its time",
    "prefer-robust-stmts": "a revision is a transaction",
    "prefer-text-field": "a length is a rule of the schema, as a CHECK would be",
    "prefer-bigint-over-int": "keys are bigint; minutes are not",
}

# Allowed in a contract only: the running release still uses the dropped objects.
_CONTRACT = {f"ban-drop-{kind}" for kind in ("column", "constraint", "function", "table", "view")}

# Strings, quoted names, function bodies, comments, and the ends of statements.
_TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"[^\"]*\"|(?P<quote>\$\w*\$).*?(?P=quote)|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)",
    re.DOTALL,
)
_NOW = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\("
    r"|\b(current_(date|time|timestamp)|localtime|localtimestamp)\b",
    re.IGNORECASE,
)
_WRITES = re.compile(r"\bUPDATE\s+(ONLY\s+)?\S+\s+((AS\s+)?\w+\s+)?SET\b|\bDELETE\s+FROM\b", re.IGNORECASE)
_ADDS_VALUE = re.compile(
    r"ALTER\s+TYPE\s+\S+\s+ADD\s+VALUE\s+(?:IF\s+NOT\s+EXISTS\s+)?('(?:[^']|'')+')", re.IGNORECASE
)


# Statements that can be repeated, and transaction control.
_REPEATABLE = re.compile(
    r"(BEGIN|COMMIT|SET|RESET|SELECT|DO|COMMENT|CREATE\s+OR\s+REPLACE)\b|.*\bIF\s+(NOT\s+)?EXISTS\b"
    r"|.*\bVALIDATE\s+CONSTRAINT\b",
    re.DOTALL,
)


@dataclass(frozen=True)
class Finding:
    """A violation of a rule.

    Attributes:
        revision: Id of the revision.
        rule: Name of the rule, as in a revision's ``allowed``.
        what: Description for the developer.
    """

    revision: str
    rule: str
    what: str


def lint(config: Config) -> list[Finding]:
    """Check all revisions.

    Args:
        config: Alembic's configuration.

    Returns:
        The violations that are not allowed with a reason, in the order of the revisions.

    Raises:
        DatabaseError: squawk is not installed.
    """
    scripts = ScriptDirectory.from_config(config)
    heads = scripts.get_heads()
    if len(heads) > 1:
        what = f"{', '.join(sorted(heads))} all claim to be the newest: let one revise the other"
        return [Finding(max(heads), "several-heads", what)]
    findings: list[Finding] = []
    sqls: dict[str, str] = {}
    known: dict[str, Revision] = {}
    for script in revisions.up_to(scripts, *heads):
        if len(script.revision) > MAX_REVISION_LENGTH:
            what = f"its id has {len(script.revision)} characters, and Alembic's table takes 32"
            findings.append(Finding(script.revision, "long-id", what))
        findings += [Finding(script.revision, "orm-import", what) for what in _imports(script)]
        try:
            revision = known[script.revision] = revisions.declaration(script)
        except UndeclaredError as error:
            findings += [Finding(script.revision, "undeclared", what) for what in error.problems]
            continue
        if early := _too_early(revision, known):
            findings.append(Finding(revision.id, "contract-with-expand", early))
        # Without Alembic's own statements, and with a semicolon instead of psql's \gexec (migration_ops).
        text = revisions.upgrade_sql(config, script).replace("\\gexec", ";")
        statements = [one for one in split(text) if "alembic_version" not in code(one)]
        sqls[revision.id] = ";\n".join(statements) + ";\n"
        findings += [Finding(revision.id, rule, what) for rule, what in _check(statements)]
    findings += _squawk(sqls, known)
    used = {(finding.revision, finding.rule) for finding in findings}
    kept = [
        finding
        for finding in findings
        if finding.revision not in known or not known[finding.revision].allowed.get(finding.rule, "").strip()
    ]
    kept += [
        Finding(revision.id, "unused-allowance", f"it allows {rule}, but does not violate that rule")
        for revision in known.values()
        for rule in revision.allowed
        if (revision.id, rule) not in used
    ]
    return sorted(kept, key=lambda finding: finding.revision)


def split(text: str) -> list[str]:
    """Return the statements of a script, without the semicolons."""
    found, start = [], 0
    for token in _TOKEN.finditer(text):
        if token["end"]:
            found.append(text[start : token.start()])
            start = token.end()
    return [one.strip() for one in [*found, text[start:]] if code(one).strip()]


def code(statement: str, *, strings: bool = True) -> str:
    """Return a statement without comments.

    Args:
        statement: The statement.
        strings: Whether to keep the content of strings and function bodies.
    """
    return _TOKEN.sub(
        lambda token: " " if token["comment"] else token[0] if strings else "''", statement
    ).strip()


def _check(statements: list[str]) -> Iterator[tuple[str, str]]:
    texts = [code(statement) for statement in statements]
    commits = texts.count("COMMIT") > 1
    for text in texts:
        bare, start = code(text, strings=False).upper(), " ".join(text.split())[:60]
        function = re.match(r"CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE)\b", bare)
        if function and re.search(r"\bIMMUTABLE\b", bare) and _NOW.search(text):
            yield (
                "immutable-now",
                f"{start}…: a function of the current time is not immutable: an index on it becomes wrong",
            )
        if re.search(r"CREATE\s+TABLE\s[^;]*\sPARTITION\s+OF\b", text, re.IGNORECASE):
            yield (
                "partition-of",
                f"{start}…: locks all clients out; create a table and attach it, as in history/partitions.py",
            )
        if commits and not _REPEATABLE.match(bare):
            yield (
                "commits-midway",
                f"{start}…: stays without the version stamp if the rest fails: use a separate revision",
            )
        # The body of DO runs at once, that of a function does not; a body that commits works in batches.
        runs = text if bare.startswith("DO") and not re.search(r"\bCOMMIT\b", text, re.IGNORECASE) else bare
        if not function and _WRITES.search(runs):
            yield (
                "unbatched-write",
                f"{start}…: locks its rows until the revision ends; use migration_ops.backfill",
            )
        for value in _ADDS_VALUE.findall(text):
            if re.match(r"ALTER\s+TYPE\s+(PUBLIC\.)?ROOM_TYPE\b(?!.*\bIF\s+NOT\s+EXISTS\b)", bare, re.DOTALL):
                yield (
                    "room-may-exist",
                    f"{start}…: a database may have {value} already, since rooms are data: add IF NOT EXISTS",
                )
            if any(value in other for other in texts if other is not text):
                yield (
                    "enum-value-in-use",
                    f"{start}…: {value} cannot be used before it is committed: use a separate revision",
                )


def _imports(script: Script) -> Iterator[str]:
    """Revisions do not change, so they must not import what may change, as models do."""
    for node in ast.walk(ast.parse(Path(script.path).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            ours = name.startswith("occupancy_db")
            if (ours and not name.startswith(_MIGRATION_OPS)) or name.startswith("sqlalchemy.orm"):
                yield f"it imports {name}, which another release may change: write it out"


def _too_early(revision: Revision, known: dict[str, Revision]) -> str | None:
    if revision.contracts is None:
        return None
    expansion = known.get(revision.contracts)
    if expansion is None or expansion.phase is Phase.CONTRACT:
        return f"it contracts {revision.contracts}, which is not an earlier expansion"
    if expansion.release >= revision.release:
        return (
            f"{expansion.id} is not of an earlier release: the running release still needs what "
            "this revision removes"
        )
    return None


def _squawk(sqls: dict[str, str], known: dict[str, Revision]) -> Iterator[Finding]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("squawk", path=path)
    if program is None:
        raise DatabaseError(
            ExitCode.UNSUITABLE,
            "squawk is not installed here",
            "It belongs to the development environment: run 'make lint' in a checkout.",
        )
    if not sqls:
        return
    with tempfile.TemporaryDirectory() as directory:
        for name, text in sqls.items():
            Path(directory, name).with_suffix(".sql").write_text(text, encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - the program found above, on the revisions of this release
            [
                *(
                    program,
                    "--reporter=json",
                    f"--pg-version={POSTGRES_MAJOR}.0",
                    f"--exclude={','.join(_EXCLUDED)}",
                ),
                *sorted(map(str, Path(directory).iterdir())),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        reported = json.loads(done.stdout)
    except ValueError:
        raise DatabaseError(
            ExitCode.PROGRAM, f"squawk failed: {done.stderr.strip()}", "Run 'make lint' in a checkout."
        ) from None
    for one in reported:
        name, rule = Path(one["file"]).stem, one["rule_name"]
        line = sqls[name].splitlines()[one["line"]].strip()
        if known[name].phase is Phase.CONTRACT and rule in _CONTRACT:
            continue
        # PostgreSQL has no other way for the table itself; the partitions' indexes come first.
        if rule == "require-concurrent-index-creation" and re.search(r"\sON\s+ONLY\s", line, re.IGNORECASE):
            continue
        yield Finding(name, rule, f"{line}: {one['message']}")
