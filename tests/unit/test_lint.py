"""Each lint rule reports the statement that it is for, and accepts the recommended alternative."""

from importlib.util import cache_from_source
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from typer.testing import CliRunner

from occupancy_db.cli.app import app
from occupancy_db.errors import ExitCode
from occupancy_db.schema import revisions
from occupancy_db.schema.lint import Finding, code, lint, split
from occupancy_db.schema.runner import alembic_config, script_directory

MIGRATION_OPS = "from occupancy_db.schema import migration_ops"

REVISION = '''"""{id}

Intent: to be looked at.
Locks: {locks}.
Reversible: {reversible}.
Phase: {phase}.
Release: {release}

Revision ID: {id}
"""

from alembic import op
{imports}
revision = "{id}"
down_revision = {revises!r}
branch_labels = None
depends_on = None
{more}

def upgrade() -> None:
    {upgrade}



def downgrade() -> None:
    pass
'''
FIELDS = {
    "locks": "none", "reversible": "yes", "phase": "expand", "release": "0.1.0",
    "imports": "", "revises": None, "more": "", "upgrade": "pass",
}  # fmt: skip


class History:
    """Revisions of a test, in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = alembic_config()
        self.config.set_main_option("version_locations", str(directory))

    def add(self, id: str = "001_one", *sql: str, **fields: object) -> None:  # noqa: A002
        upgrade = "; ".join(f"op.execute({statement!r})" for statement in sql) or "pass"
        text = REVISION.format(**{**FIELDS, "id": id, "upgrade": upgrade, **fields})
        path = self.directory / f"{id}.py"
        path.write_text(text)
        # Python reuses its bytecode for a file of the same size and second.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)

    def rules(self) -> set[str]:
        return {finding.rule for finding in lint(self.config)}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


# By rule: a statement that it reports, and an alternative that it accepts.
RULES: dict[str, tuple[list[str], list[str]]] = {
    "immutable-now": (
        ["CREATE FUNCTION today() RETURNS date LANGUAGE sql IMMUTABLE AS $$ SELECT now()::date $$"],
        ["CREATE FUNCTION today() RETURNS date LANGUAGE sql STABLE AS $$ SELECT now()::date $$"],
    ),
    "partition-of": (
        ["CREATE TABLE m1 PARTITION OF m DEFAULT"],
        ["CREATE TABLE m1 (LIKE m)", "ALTER TABLE m ATTACH PARTITION m1 DEFAULT"],
    ),
    "unbatched-write": (
        ["UPDATE predictions SET model_version = 'v1' WHERE model_version IS NULL"],
        ["INSERT INTO one VALUES (1) ON CONFLICT (k) DO UPDATE SET v = excluded.v"],
    ),
    "enum-value-in-use": (
        [
            "ALTER TYPE prediction_type ADD VALUE 'arrival' AFTER 'vacancy'",
            "ALTER TABLE predictions ALTER COLUMN prediction_type SET DEFAULT 'arrival'",
        ],
        ["ALTER TYPE prediction_type ADD VALUE 'arrival' AFTER 'vacancy'"],
    ),
    "room-may-exist": (
        ["ALTER TYPE public.room_type ADD VALUE 'garage' AFTER 'office'"],
        ["ALTER TYPE public.room_type ADD VALUE IF NOT EXISTS 'garage' AFTER 'office'"],
    ),
    # Squawk's
    "adding-field-with-default": (
        ["ALTER TABLE predictions ADD COLUMN at timestamptz DEFAULT clock_timestamp()"],
        ["ALTER TABLE predictions ADD COLUMN at timestamptz DEFAULT '2026-01-01'"],
    ),
    "adding-foreign-key-constraint": (
        ["ALTER TABLE predictions ADD CONSTRAINT f FOREIGN KEY (room) REFERENCES rooms (room)"],
        ["ALTER TABLE predictions ADD CONSTRAINT f FOREIGN KEY (room) REFERENCES rooms (room) NOT VALID"],
    ),
    "adding-not-nullable-field": (
        ["ALTER TABLE predictions ALTER COLUMN model_version SET NOT NULL"],
        ["ALTER TABLE predictions ADD CONSTRAINT c CHECK (model_version IS NOT NULL) NOT VALID"],
    ),
    "adding-serial-primary-key-field": (
        ["ALTER TABLE predictions ADD COLUMN n bigserial PRIMARY KEY"],
        ["CREATE TABLE t (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"],
    ),
    "disallowed-unique-constraint": (
        ["ALTER TABLE predictions ADD CONSTRAINT u UNIQUE (room)"],
        ["ALTER TABLE predictions ADD CONSTRAINT u UNIQUE USING INDEX i"],
    ),
    "require-enum-value-ordering": (
        ["ALTER TYPE prediction_type ADD VALUE 'arrival'"],
        ["ALTER TYPE prediction_type ADD VALUE 'arrival' AFTER 'vacancy'"],
    ),
    "require-concurrent-partition-detach": (
        ["ALTER TABLE sensor_readings DETACH PARTITION m"],
        ["ALTER TABLE sensor_readings DETACH PARTITION m CONCURRENTLY"],
    ),
    "require-concurrent-reindex": (["REINDEX INDEX i"], ["REINDEX INDEX CONCURRENTLY i"]),
    "ban-concurrent-index-creation-in-transaction": (
        ["CREATE INDEX CONCURRENTLY i ON predictions (room)"],
        ["CREATE TABLE t (k bigint)", "CREATE INDEX i ON t (k)"],
    ),
    "transaction-nesting": (["BEGIN", "COMMIT"], ["CREATE TABLE t (k bigint)"]),
    "identifier-too-long": ([f"CREATE TABLE {'t' * 64} (k bigint)"], [f"CREATE TABLE {'t' * 63} (k bigint)"]),
    "prefer-bigint-over-smallint": (["CREATE TABLE t (k smallint)"], ["CREATE TABLE t (k bigint)"]),
    "prefer-identity": (
        ["CREATE TABLE t (k bigserial)"],
        ["CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY)"],
    ),
    "prefer-timestamp-tz": (["CREATE TABLE t (at timestamp)"], ["CREATE TABLE t (at timestamptz)"]),
    "ban-char-field": (["CREATE TABLE t (k char(5))"], ["CREATE TABLE t (k varchar(5))"]),
    "ban-create-domain-with-constraint": (
        ["CREATE DOMAIN d AS text CHECK (VALUE <> '')"],
        ["CREATE DOMAIN d AS text"],
    ),
    "ban-alter-domain-with-add-constraint": (
        ["ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE <> '')"],
        ["CREATE DOMAIN d AS text"],
    ),
    "ban-truncate-cascade": (["TRUNCATE predictions CASCADE"], ["TRUNCATE predictions"]),
    "ban-drop-database": (["DROP DATABASE occupancy"], ["CREATE SCHEMA s"]),
    "ban-drop-schema": (["DROP SCHEMA s"], ["CREATE SCHEMA s"]),
    "ban-drop-extension": (["DROP EXTENSION e"], ["CREATE EXTENSION e"]),
    "ban-drop-sequence": (["DROP SEQUENCE s"], ["CREATE SEQUENCE s"]),
    "ban-drop-type": (["DROP TYPE t"], ["CREATE TYPE t AS ENUM ('a')"]),
    "ban-drop-domain": (["DROP DOMAIN d"], ["CREATE DOMAIN d AS text"]),
    "ban-drop-not-null": (
        ["ALTER TABLE predictions ALTER COLUMN room DROP NOT NULL"],
        ["ALTER TABLE predictions ADD COLUMN place varchar(20)"],
    ),
    "ban-drop-generated-expression": (
        ["ALTER TABLE predictions ALTER COLUMN room DROP EXPRESSION"],
        ["ALTER TABLE predictions ADD COLUMN place varchar(20)"],
    ),
    "ban-alter-identity": (
        ["ALTER TABLE predictions ALTER COLUMN id SET GENERATED ALWAYS"],
        ["CREATE TABLE t (k bigint GENERATED ALWAYS AS IDENTITY)"],
    ),
    "ban-set-schema": (["ALTER TABLE predictions SET SCHEMA s"], ["CREATE SCHEMA s"]),
    "renaming-table": (["ALTER TABLE predictions RENAME TO t"], ["CREATE TABLE t (k bigint)"]),
    "renaming-object": (["ALTER VIEW v RENAME TO w"], ["CREATE VIEW w AS SELECT 1 AS one"]),
    "require-concurrent-index-creation": (
        ["CREATE INDEX i ON predictions (room)"],
        ["CREATE TABLE t (k bigint)", "CREATE INDEX i ON t (k)"],
    ),
    "changing-column-type": (
        ["ALTER TABLE predictions ALTER COLUMN room TYPE varchar(20)"],
        ["ALTER TABLE predictions ADD COLUMN place varchar(20)"],
    ),
    "adding-required-field": (
        ["ALTER TABLE predictions ADD COLUMN place varchar(20) NOT NULL"],
        ["ALTER TABLE predictions ADD COLUMN place varchar(20) NOT NULL DEFAULT 'here'"],
    ),
    "constraint-missing-not-valid": (
        ["ALTER TABLE predictions ADD CONSTRAINT c CHECK (confidence > 0)"],
        ["ALTER TABLE predictions ADD CONSTRAINT c CHECK (confidence > 0) NOT VALID"],
    ),
    "renaming-column": (
        ["ALTER TABLE predictions RENAME COLUMN room TO place"],
        ["ALTER TABLE predictions ADD COLUMN place varchar(20)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reports_the_statement_and_accepts_the_alternative(history: History, rule: str) -> None:
    wrong, right = RULES[rule]
    history.add("001_one", *wrong)
    assert rule in history.rules()
    history.add("001_one", *right)
    assert history.rules() == set()


def test_a_write_in_the_body_of_do_is_a_write_unless_it_commits(history: History) -> None:
    history.add("001_one", "DO $$ BEGIN UPDATE predictions SET confidence = 1; END $$")
    assert history.rules() == {"unbatched-write"}
    history.add(
        "001_one",
        upgrade="migration_ops.backfill('predictions', 'confidence = 1', 'confidence > 1')",
        imports=MIGRATION_OPS,
    )
    assert history.rules() == set()


def test_dropping_an_index_concurrently_is_accepted(history: History) -> None:
    history.add("001_one", "DROP INDEX i")
    assert history.rules() == {"require-concurrent-index-deletion"}
    history.add(
        "001_one",
        upgrade="migration_ops.drop_index('i')",
        imports=MIGRATION_OPS,
    )
    assert history.rules() == set()


def test_a_concurrent_index_is_accepted_alone_but_not_with_statements_that_cannot_be_repeated(
    history: History,
) -> None:
    index = "migration_ops.create_index('i', 'sensor_readings', '(room)')"
    more = "op.execute('CREATE TABLE t ()')"
    history.add("001_one", imports=MIGRATION_OPS, upgrade=index)
    assert history.rules() == set()
    history.add("001_one", imports=MIGRATION_OPS, upgrade=f"{more}; {index}")
    assert history.rules() == {"commits-midway"}
    again = more.replace("TABLE", "TABLE IF NOT EXISTS")
    history.add("001_one", imports=MIGRATION_OPS, upgrade=f"{again}; {index}")
    assert history.rules() == set()


@pytest.mark.parametrize(
    "module", ["occupancy_db.models", "sqlalchemy.orm", "occupancy_db.history.partitions"]
)
def test_modules_that_change_between_releases_must_not_be_imported(history: History, module: str) -> None:
    history.add(imports=f"import {module}")
    assert history.rules() == {"orm-import"}
    history.add(imports="import sqlalchemy as sa\nfrom occupancy_db.schema.migration_ops import create_index")
    assert history.rules() == set()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("locks", "some", "Locks: begins with none or the strongest lock"),
        ("locks", "", "Locks: begins with none"),
        ("phase", "contract", "Phase: begins with expand, data, or contract of <revision>"),
        ("reversible", "perhaps", "Reversible: begins with yes"),
        ("release", "next", "Release: begins with a version"),
        ("release", "", "Release: is not filled in"),
        ("phase", "<expand | data>", "Phase: is not filled in"),
    ],
)
def test_the_declaration_of_a_revision_is_parsed(history: History, field: str, value: str, said: str) -> None:
    history.add(**{field: value})
    (finding,) = lint(history.config)
    assert finding.rule == "undeclared"
    assert said in finding.what


def test_a_field_that_is_missing_is_named(history: History) -> None:
    history.add()
    path = history.directory / "001_one.py"
    path.write_text(path.read_text().replace("Locks: none.\n", ""))
    assert lint(history.config) == [Finding("001_one", "undeclared", "Locks: is missing")]


def test_an_id_must_fit_into_alembics_table(history: History) -> None:
    history.add("x" * 33)
    assert history.rules() == {"long-id"}
    (history.directory / f"{'x' * 33}.py").unlink()
    history.add("x" * 32)
    assert history.rules() == set()


def test_there_must_be_one_newest_revision(history: History) -> None:
    history.add("001_one")
    history.add("002_two", revises="001_one")
    assert history.rules() == set()
    history.add("002_too", revises="001_one")
    assert history.rules() == {"several-heads"}


def test_a_contract_must_be_of_a_later_release_than_its_expansion(history: History) -> None:
    contract = {"revises": "001_one", "phase": "contract of 001_one"}
    history.add("001_one", "ALTER TABLE predictions ADD COLUMN place varchar(20)", release="0.2.0")
    history.add("002_two", "ALTER TABLE predictions DROP COLUMN room", release="0.2.0", **contract)
    assert history.rules() == {"contract-with-expand"}
    history.add("002_two", "ALTER TABLE predictions DROP COLUMN room", release="0.10.0", **contract)
    assert history.rules() == set()
    history.add("002_two", release="0.3.0", revises="001_one", phase="contract of 000_other")
    assert history.rules() == {"contract-with-expand"}
    # Outside a contract, the running release still needs the removed objects.
    history.add("002_two", "ALTER TABLE predictions DROP COLUMN room", release="0.3.0", revises="001_one")
    assert history.rules() == {"ban-drop-column"}


DROPS = {
    "column": "ALTER TABLE predictions DROP COLUMN room",
    "constraint": "ALTER TABLE predictions DROP CONSTRAINT c",
    "function": "DROP FUNCTION f()",
    "table": "DROP TABLE predictions",
    "view": "DROP VIEW v",
}


@pytest.mark.parametrize("kind", DROPS)
def test_objects_in_use_may_be_dropped_in_a_contract_only(history: History, kind: str) -> None:
    history.add("001_one", "CREATE TABLE t (k bigint)")
    history.add("002_two", DROPS[kind], revises="001_one", release="0.2.0")
    assert history.rules() == {f"ban-drop-{kind}"}
    history.add("002_two", DROPS[kind], revises="001_one", release="0.2.0", phase="contract of 001_one")
    assert history.rules() == set()


def test_an_index_on_only_the_parent_table_is_accepted(history: History) -> None:
    history.add("001_one", "CREATE INDEX i ON ONLY sensor_readings (room)")
    assert history.rules() == set()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (k varchar(5))",
        "CREATE TABLE t (k integer)",
        "CREATE TABLE t (k bigint)",
    ],
)
def test_excluded_rules_of_squawk_are_not_applied(history: History, statement: str) -> None:
    history.add("001_one", statement)
    assert history.rules() == set()


def test_an_exception_from_a_rule_needs_a_reason(history: History) -> None:
    allowed = 'allowed = {"renaming-column": "nobody has used it yet"}'
    rename = "ALTER TABLE predictions RENAME COLUMN room TO place"
    history.add("001_one", rename, more=allowed)
    assert history.rules() == set()
    history.add("001_one", more=allowed)
    assert history.rules() == {"unused-allowance"}
    history.add("001_one", rename, more='allowed = {"renaming-column": " "}')
    assert history.rules() == {"renaming-column"}


def test_sql_is_split_into_statements() -> None:
    script = """
        SELECT 'a;b', ";" -- c;
        ; /* ; */ DO $body$ BEGIN PERFORM ';'; END $body$;
        -- the end;
    """
    assert [code(one) for one in split(script)] == [
        "SELECT 'a;b', \";\"",
        "DO $body$ BEGIN PERFORM ';'; END $body$",
    ]
    assert code("SELECT 'now()', $$ now() $$ -- now()", strings=False) == "SELECT '', ''"


def test_the_products_migrations_pass_and_need_each_of_their_exceptions() -> None:
    result = CliRunner().invoke(app, ["lint"])
    assert (result.exit_code, result.output) == (
        0,
        f"0 findings in {len(list(script_directory().walk_revisions()))} revisions\n",
    )


def test_a_missing_squawk_is_reported(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    history.add()
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    result = CliRunner().invoke(app, ["lint"])
    assert result.exit_code == ExitCode.UNSUITABLE
    assert "squawk is not installed here" in result.output


def test_an_older_release_can_tell_additions_from_removals(history: History) -> None:
    history.add("001_one")
    history.add("002_two", revises="001_one", phase="data")
    history.add("003_three", revises="002_two", phase="contract of 001_one", release="0.2.0")
    assert revisions.history_comment([]) == "COMMENT ON TABLE alembic_version IS NULL"
    scripts = ScriptDirectory.from_config(history.config)
    remembered = revisions.history_comment(revisions.up_to(scripts, "003_three"))
    assert revisions.applied_after(remembered, "001_one") == [("002_two", "data"), ("003_three", "contract")]
    assert revisions.applied_after(remembered, "003_three") == []
    assert revisions.applied_after(remembered, "of_another") is None
    assert revisions.applied_after(None, "001_one") is None
