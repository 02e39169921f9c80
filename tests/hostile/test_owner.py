"""What the owner may create: it is in the backup and comes back, or the backup names it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from occupancy_db.errors import ExitCode
from tests.database.backup_host import LIVE
from tests.database.users import OWNER
from tests.hostile.attackers import Scene, expect_error


@dataclass(frozen=True)
class Creation:
    """Something that the owner creates.

    Attributes:
        statements: Create it, as the owner.
        query: A query of the superuser that shows it, the same before and after a restore.
        drop: Statements of the superuser that remove it.
        named: What the backup says if a restore could not bring it back; empty if it does.
    """

    statements: tuple[str, ...]
    query: str
    drop: tuple[str, ...] = field(default=("DROP SCHEMA own CASCADE",))
    named: str = ""


CLASSES = (
    "SELECT relname, relkind, relpersistence FROM pg_class WHERE relnamespace = "
    "'own'::regnamespace ORDER BY 1"
)
ODD = "o\"dd 'näme; -- " + "ü" * 20
NEWLINE = "two\nlines"

CREATIONS: dict[str, Creation] = {
    "a policy": Creation(
        (
            "CREATE TABLE own.t AS SELECT 1 AS n",
            "ALTER TABLE own.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY p ON own.t FOR SELECT TO occupancy_app USING (n > 1)",
        ),
        "SELECT n, (SELECT count(*) FROM pg_policies WHERE schemaname = 'own' AND roles = "
        "'{occupancy_app}') FROM own.t",
    ),
    "a publication": Creation(
        ("CREATE TABLE own.t (n int PRIMARY KEY)", "CREATE PUBLICATION own_p FOR TABLE own.t WHERE (n > 1)"),
        "SELECT pubname, tablename, rowfilter FROM pg_publication_tables",
        ("DROP PUBLICATION own_p", "DROP SCHEMA own CASCADE"),
    ),
    "a domain": Creation(
        (
            "CREATE DOMAIN own.d AS int DEFAULT 3 CHECK (VALUE > 0)",
            "CREATE TABLE own.t (n own.d)",
            "INSERT INTO own.t DEFAULT VALUES",
        ),
        "SELECT n::text, (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid "
        "= 'own.d'::regtype) FROM own.t",
    ),
    "a rule": Creation(
        (
            "CREATE TABLE own.t (n int)",
            "CREATE RULE r AS ON DELETE TO own.t DO INSTEAD NOTHING",
            "INSERT INTO own.t VALUES (1)",
        ),
        "SELECT n, (SELECT definition FROM pg_rules WHERE schemaname = 'own') FROM own.t",
    ),
    "large objects": Creation(
        ("SELECT lo_from_bytea(4711, 'of the owner')", "COMMENT ON LARGE OBJECT 4711 IS 'mine'"),
        "SELECT convert_from(lo_get(4711), 'UTF8'), obj_description(4711, 'pg_largeobject')",
        ("SELECT lo_unlink(4711)", "DROP SCHEMA own CASCADE"),
    ),
    "an unlogged table": Creation(
        ("CREATE UNLOGGED TABLE own.t AS SELECT 1 AS n",),
        "SELECT n, (SELECT relpersistence::text FROM pg_class WHERE oid = 'own.t'::regclass) FROM own.t",
    ),
    "unusual names": Creation(
        (
            f"""CREATE TABLE own.{'"' + ODD.replace('"', '""') + '"'} AS SELECT 1 AS "a column""?" """,
            f'CREATE TABLE own."{NEWLINE}" AS SELECT 2 AS "x\ty"',
            f'CREATE TABLE own."{"n" * 63}" AS SELECT 3 AS "{"ß" * 31}"',
            'CREATE TABLE own."select" AS SELECT 4 AS "from"',
        ),
        CLASSES,
    ),
    "a CHECK that calls a function": Creation(
        (
            "CREATE FUNCTION own.f(n int) RETURNS boolean LANGUAGE plpgsql AS "
            "'BEGIN RETURN n > (SELECT count(*) FROM own.limits); END'",
            "CREATE TABLE own.limits AS SELECT 1 AS n",
            "CREATE TABLE own.a (n int CHECK (own.f(n)))",
            "INSERT INTO own.a VALUES (5)",
        ),
        "SELECT n, (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = "
        "'own.a'::regclass) FROM own.a",
    ),
    "a CHECK that its rows do not satisfy any more": Creation(
        (
            "CREATE TABLE own.z (n int)",
            "CREATE FUNCTION own.f(n int) RETURNS boolean LANGUAGE plpgsql AS "
            "'BEGIN RETURN n > (SELECT count(*) FROM own.z); END'",
            "CREATE TABLE own.a (n int CHECK (own.f(n)))",
            "INSERT INTO own.a VALUES (1)",
            "INSERT INTO own.z SELECT generate_series(1, 10)",
        ),
        "SELECT n, (SELECT count(*) FROM own.z) FROM own.a",
        named='violates check constraint "a_n_check"',
    ),
    "a function with an unqualified name inside": Creation(
        (
            "CREATE TABLE own.t (n int)",
            "CREATE FUNCTION own.f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM rooms'",
            "CREATE FUNCTION own.g() RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT 1; END",
        ),
        "SELECT prosrc, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = "
        "'own'::regnamespace ORDER BY proname",
    ),
    "an aggregate and an operator": Creation(
        (
            "CREATE AGGREGATE own.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
            "CREATE OPERATOR own.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
        ),
        "SELECT own.total(n), bool_and(n OPERATOR(own.===) n) FROM generate_series(1, 3) AS n",
    ),
    "statistics": Creation(
        (
            "CREATE TABLE own.t AS SELECT 1 AS a, 2 AS b",
            "CREATE STATISTICS own.s (dependencies) ON a, b FROM own.t",
            "ALTER STATISTICS own.s SET STATISTICS 50",
            "ALTER TABLE own.t ALTER a SET STATISTICS 7",
        ),
        "SELECT stxname, stxstattarget, (SELECT attstattarget FROM pg_attribute WHERE "
        "attrelid = 'own.t'::regclass AND attname = 'a') FROM pg_statistic_ext",
    ),
    "generated and identity columns": Creation(
        (
            "CREATE TABLE own.t (n int, twice int GENERATED ALWAYS AS (n * 2) STORED, id int "
            "GENERATED ALWAYS AS IDENTITY)",
            "INSERT INTO own.t (n) VALUES (1), (2)",
        ),
        "SELECT n, twice, id, pg_get_serial_sequence('own.t', 'id') FROM own.t",
    ),
    "a materialized view": Creation(
        ("CREATE MATERIALIZED VIEW own.m AS SELECT 1 AS n", "CREATE UNIQUE INDEX ON own.m (n)"),
        "SELECT n, (SELECT ispopulated FROM pg_matviews WHERE schemaname = 'own') FROM own.m",
    ),
    "a materialized view without rows": Creation(
        ("CREATE MATERIALIZED VIEW own.m AS SELECT 1 AS n WITH NO DATA",),
        "SELECT ispopulated FROM pg_matviews WHERE schemaname = 'own'",
    ),
    "inheritance": Creation(
        (
            "CREATE TABLE own.parent (n int)",
            "CREATE TABLE own.child (m int) INHERITS (own.parent)",
            "INSERT INTO own.child VALUES (1, 2)",
        ),
        "SELECT n, tableoid::regclass::text FROM own.parent",
    ),
    "a partitioned table": Creation(
        (
            "CREATE TABLE own.t (n int, k text) PARTITION BY LIST (k)",
            "CREATE TABLE own.t1 PARTITION OF own.t FOR VALUES IN ('a') PARTITION BY RANGE (n)",
            "CREATE TABLE own.t11 PARTITION OF own.t1 FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE own.tx PARTITION OF own.t DEFAULT",
            "INSERT INTO own.t VALUES (1, 'a'), (2, 'b')",
        ),
        "SELECT n, k, tableoid::regclass::text FROM own.t ORDER BY n",
    ),
    "comments": Creation(
        (
            "CREATE TABLE own.t (n int)",
            "COMMENT ON TABLE own.t IS 'it''s\n-- a comment; \\restrict'",
            "COMMENT ON COLUMN own.t.n IS 'ü'",
        ),
        "SELECT obj_description('own.t'::regclass), col_description('own.t'::regclass, 1)",
    ),
    "a security barrier and an updatable view": Creation(
        (
            "CREATE TABLE own.t AS SELECT 1 AS n",
            "CREATE VIEW own.v WITH (security_barrier) AS SELECT n FROM own.t WHERE n > 0 WITH "
            "LOCAL CHECK OPTION",
        ),
        "SELECT reloptions FROM pg_class WHERE oid = 'own.v'::regclass",
    ),
    "a sequence with options": Creation(
        ("CREATE SEQUENCE own.s INCREMENT -3 MINVALUE -100 CYCLE CACHE 5", "SELECT nextval('own.s')"),
        "SELECT start_value, increment_by, min_value, cycle, cache_size FROM pg_sequences "
        "WHERE schemaname = 'own'",
    ),
    "a disabled trigger": Creation(
        (
            "CREATE TABLE own.t (n int)",
            "CREATE FUNCTION own.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER g BEFORE INSERT ON own.t FOR EACH ROW EXECUTE FUNCTION own.f()",
            "ALTER TABLE own.t DISABLE TRIGGER g",
        ),
        "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'own.t'::regclass",
    ),
    "privileges for a user of the inventory": Creation(
        (
            "CREATE TABLE own.t (n int, m int)",
            "GRANT USAGE ON SCHEMA own TO grafana",
            "GRANT SELECT (n) ON own.t TO grafana",
        ),
        "SELECT has_column_privilege('grafana', 'own.t', 'n', 'SELECT'), "
        "has_column_privilege('grafana', 'own.t', 'm', 'SELECT')",
    ),
    "a collation and a range type": Creation(
        (
            "CREATE COLLATION own.c (provider = libc, locale = 'C')",
            "CREATE TYPE own.r AS RANGE (SUBTYPE = float8)",
            "CREATE TABLE own.t (a text COLLATE own.c, r own.r)",
            "INSERT INTO own.t VALUES ('x', '[1,2)')",
        ),
        "SELECT a, r::text FROM own.t",
    ),
}

REFUSED = {
    "an event trigger": (
        "CREATE FUNCTION own.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER own_e ON ddl_command_end EXECUTE FUNCTION own.e()",
        "42501",
    ),
    "a publication of all tables": ("SELECT 1", "CREATE PUBLICATION own_all FOR ALL TABLES", "42501"),
    "a security label": ("CREATE TABLE own.t ()", "SECURITY LABEL ON TABLE own.t IS 'x'", "22023"),
    "an untrusted language": (
        "SELECT 1",
        "CREATE FUNCTION own.c() RETURNS int LANGUAGE c AS 'libc', 'rand'",
        "42501",
    ),
}


def create(scene: Scene, *statements: str) -> None:
    connection = scene.host.connect(OWNER)
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA own")
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize("name", CREATIONS)
def test_what_the_owner_creates_is_saved_and_comes_back_or_is_named(
    scene: Scene, record_property: Callable[[str, object], None], name: str
) -> None:
    creation = CREATIONS[name]
    create(scene, *creation.statements)
    try:
        before = scene.superuser(creation.query)
        assert before
        record_property("carried out", 1)
        made = scene.back_up()
        if creation.named:
            assert made.returncode == ExitCode.DAMAGED, made.stdout
            assert creation.named in made.stderr
            return
        if made.returncode:
            record_property("backups stopped", 1)
        assert made.returncode == 0, made.stderr
        done = scene.host.restore("latest", "--without-safety-backup")
        assert done.returncode == 0, done.stderr
        assert scene.superuser(creation.query) == before
    finally:
        scene.host.cluster.execute(*creation.drop, database=LIVE)


@pytest.mark.parametrize("name", REFUSED)
def test_the_owner_may_not_create_it(
    scene: Scene, record_property: Callable[[str, object], None], name: str
) -> None:
    prepare, statement, code = REFUSED[name]
    create(scene, prepare)
    try:
        with expect_error(code):
            scene.run(OWNER, statement)
        record_property("refused", 1)
    finally:
        scene.host.cluster.execute("DROP SCHEMA own CASCADE", database=LIVE)
