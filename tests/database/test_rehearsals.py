"""A set is rehearsed as it is restored: what cannot be restored is named when the backup is made."""

import json
from pathlib import Path
from typing import Any

import pytest

from occupancy_db.backup.manifest import MANIFEST, VERIFIED, Manifest, Verified, file_facts
from occupancy_db.errors import ExitCode
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets
from tests.database.conftest import OWNER

prepared, backup_host = hosts.prepared, hosts.backup_host

# By what cannot be restored: the statements of the superuser, and what names it.
IMPOSSIBLE = {
    "a publication of all tables": (
        ["CREATE PUBLICATION everything FOR ALL TABLES"],
        "CREATE PUBLICATION everything",
    ),
    "an event trigger": (
        [
            "CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION nothing()",
        ],
        "CREATE EVENT TRIGGER watching",
    ),
    "a language that only a superuser installs": (
        ["CREATE FUNCTION loud() RETURNS int LANGUAGE internal AS 'pg_backend_pid'"],
        "CREATE FUNCTION public.loud()",
    ),
    "a cast of types of others": (
        ["CREATE CAST (jsonb AS bytea) WITH INOUT"],
        "CREATE CAST (jsonb AS bytea)",
    ),
    "a setting that only a superuser sets": (
        [f"ALTER DATABASE {LIVE} SET log_statement = 'all'"],
        "log_statement",
    ),
    "a check that the rows of the set violate": (
        [
            "CREATE TABLE rooms_seen (room text)",
            "CREATE FUNCTION zones() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.rooms_seen'",
            "CREATE TABLE checked (n int CHECK (zones() > 0))",
            f"ALTER TABLE checked OWNER TO {OWNER}",
            "INSERT INTO rooms_seen VALUES ('office')",
            "INSERT INTO checked VALUES (1)",
            "TRUNCATE rooms_seen",
        ],
        'COPY failed for table "checked"',
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_restored_is_named_by_the_backup(
    backup_host: BackupHost, prepared: PreparedSets, what: str
) -> None:
    statements, words = IMPOSSIBLE[what]
    backup_host.cluster.execute(*statements, database=LIVE)
    keep_one = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")}
    made = backup_host.backup("create", BACKUP_KEEP_LAST=1, **keep_one)
    assert made.returncode == ExitCode.DAMAGED, made.stdout + made.stderr
    assert words in made.stderr
    assert "drop" in made.stderr or "reset" in made.stderr
    states = backup_host.states()
    assert (states.pop(prepared.old), states.pop(prepared.new)) == ("verified", "verified")
    (unverified,) = states
    refused = backup_host.restore(unverified, "--without-safety-backup")
    assert refused.returncode == ExitCode.DAMAGED
    assert backup_host.databases() == {LIVE}


def test_privileges_on_functions_of_the_system_are_not_named(backup_host: BackupHost) -> None:
    backup_host.cluster.execute("REVOKE EXECUTE ON FUNCTION lo_creat(int) FROM PUBLIC", database=LIVE)
    made = backup_host.backup("create")
    assert (made.returncode, "a restore" in made.stdout) == (0, False), made.stdout + made.stderr


# What the owner creates comes back, or is named: a query whose answer must be the same after a restore.
OWNED = {
    "settings of the database": (
        [
            f"ALTER DATABASE {LIVE} SET work_mem = '7MB'",
            f"""ALTER DATABASE {LIVE} SET search_path = "$user", public, "odd ""schema" """,
            f"ALTER ROLE {OWNER} IN DATABASE {LIVE} SET statement_timeout = '1h'",
        ],
        f"SELECT setrole::regrole::text, unnest(setconfig) FROM pg_db_role_setting JOIN pg_database AS d "
        f"ON d.oid = setdatabase WHERE datname = '{LIVE}' ORDER BY 1, 2",
    ),
    "privileges on the database": (
        [f"GRANT TEMPORARY ON DATABASE {LIVE} TO occupancy_readonly"],
        f"SELECT datacl::text LIKE '%occupancy_readonly=Tc/%' FROM pg_database WHERE datname = '{LIVE}'",
    ),
    "large objects": (
        [
            "SELECT lo_from_bytea(0, 'a picture')",
            "SELECT lo_from_bytea(7654321, repeat('x', 9000000)::bytea)",
        ],
        "SELECT count(*), max(md5(lo_get(oid))), min(md5(lo_get(oid))) FROM pg_largeobject_metadata",
    ),
    "row-level security": (
        [
            "ALTER TABLE room_transitions ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE room_transitions FORCE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON room_transitions USING (to_room = 'office')",
        ],
        "SELECT count(*), bool_or(relforcerowsecurity) FROM room_transitions, pg_class "
        "WHERE relname = 'room_transitions'",
    ),
    "a check that is written differently after a restore": (
        ["CREATE TABLE listed (v varchar CHECK (v IN ('a', 'it''s', 'c')), w text CHECK (w IN ('a', 'b')))"],
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'listed'::regclass",
    ),
    "a publication": (
        ["CREATE PUBLICATION mine FOR TABLE predictions WHERE (confidence > 0.5)"],
        "SELECT pubname, rowfilter FROM pg_publication_tables",
    ),
    "rules, domains, aggregates, statistics, and odd names": (
        [
            "CREATE DOMAIN share AS numeric CHECK (value BETWEEN 0 AND 1)",
            "CREATE AGGREGATE total(integer) (SFUNC = int4pl, STYPE = integer)",
            "CREATE RULE kept AS ON DELETE TO predictions WHERE false DO INSTEAD NOTHING",
            "CREATE STATISTICS st ON room, prediction_type FROM predictions",
            "CREATE UNLOGGED TABLE quick AS SELECT 1 AS n",
            'CREATE TABLE "-- Name: x; Type: TABLE; Schema: public; Owner: y" (n int)',
            "CREATE FUNCTION text_like_a_header() RETURNS text LANGUAGE sql AS "
            "E'SELECT $q$\\n--\\n-- Name: odd; Type: TABLE; Schema: public; Owner: nobody\\n--\\n\\n$q$'",
            "CREATE COLLATION bytes (locale = 'C')",
        ],
        "SELECT total(n), text_like_a_header() FROM quick GROUP BY 2",
    ),
}


@pytest.mark.parametrize("what", OWNED)
def test_what_the_owner_creates_comes_back(backup_host: BackupHost, what: str) -> None:
    statements, query = OWNED[what]
    owner = backup_host.connect(OWNER)
    with owner.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    owner.close()
    before = backup_host.query(query)
    assert before
    made = backup_host.backup("create", "--json")
    assert made.returncode == 0, made.stderr
    restored = backup_host.restore(json.loads(made.stdout)["id"], "--without-safety-backup")
    assert restored.returncode == 0, restored.stderr
    assert backup_host.query(query) == before
    again = backup_host.backup("create")
    assert again.returncode == 0, again.stderr


def test_what_comes_back_otherwise_is_named_by_the_backup(backup_host: BackupHost) -> None:
    backup_host.cluster.execute(
        "CREATE FUNCTION of_another() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        f"ALTER ROLE occupancy_app IN DATABASE {LIVE} SET statement_timeout = 0",
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO occupancy_app",
        f"COMMENT ON DATABASE {LIVE} IS 'at home'",
        database=LIVE,
    )
    made = backup_host.backup("create")
    assert made.returncode == 0, made.stderr
    assert "FUNCTION public.of_another() of postgres" in made.stdout
    assert "ALTER ROLE occupancy_app IN DATABASE" in made.stdout
    assert "DEFAULT PRIVILEGES FOR TABLES" in made.stdout
    assert f"COMMENT ON DATABASE {LIVE}" in made.stdout


def make_format_1(path: Path) -> None:
    """Turn a set into one as release 0.1.0 has made it."""
    manifest = Manifest.unseal(path / MANIFEST)
    body: dict[str, Any] = manifest.model_dump(mode="json", exclude_unset=True)
    del body["contents"]["large_objects"]
    body["contents"]["objects"] = {"indexes": "3, 0123456789abcdef", "tables": "1, x"}
    body["format"] = 1
    (path / MANIFEST).write_bytes(Manifest.model_validate(body).seal())
    verified = Verified.unseal(path / VERIFIED)
    digest = file_facts(path / MANIFEST).sha256
    (path / VERIFIED).write_bytes(verified.model_copy(update={"manifest": digest}).seal())


def test_a_set_of_format_1_is_verified_and_restored(backup_host: BackupHost, prepared: PreparedSets) -> None:
    make_format_1(backup_host.sets / prepared.new)
    before = backup_host.fingerprint("public")
    assert backup_host.states()[prepared.new] == "verified"
    verified = backup_host.backup("verify", prepared.new)
    assert verified.returncode == 0, verified.stderr
    restored = backup_host.restore(prepared.new, "--without-safety-backup")
    assert restored.returncode == 0, restored.stderr
    assert backup_host.fingerprint("public") == before
