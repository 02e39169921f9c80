"""A database of another program beside the product's own: backed up and restored like the first."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
import yaml

from occupancy_db.errors import ExitCode
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost
from tests.database.users import FUNCTIONS, ROOT, password

prepared, backup_host = hosts.prepared, hosts.backup_host

NAME, OWNER = "recorder", "hass"
PRIVILEGES = (ROOT / "occupancy_db/schema/other_privileges.sql").read_text()
OTHERS = {"BACKUP_OTHER_DATABASES": NAME}

# As a recorder's tables: identities, foreign keys, bytes, text and an index of its own
SCHEMA = """
    CREATE TABLE states_meta (
        metadata_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entity_id text UNIQUE
    );
    CREATE TABLE states (
        state_id bigserial PRIMARY KEY, metadata_id bigint REFERENCES states_meta, state varchar(255),
        last_updated_ts double precision, context_id_bin bytea
    );
    CREATE INDEX ON states (metadata_id, last_updated_ts);
    CREATE TABLE alembic_version (version_num varchar(32)); -- of another program
    INSERT INTO alembic_version VALUES ('theirs');
    INSERT INTO states_meta (entity_id) SELECT 'sensor.' || n FROM generate_series(1, 20) AS n;
    INSERT INTO states (metadata_id, state, last_updated_ts, context_id_bin)
    SELECT 1 + n % 20, 'on', 1.7e9 + n, decode(md5(n::text), 'hex') FROM generate_series(1, 2000) AS n;
    SELECT lo_from_bytea(0, 'a large object of the owner');
    -- Functions of the owner, which a restore and a comparison run: never with more rights than the owner's
    CREATE FUNCTION has_no_other_role() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('role', 'occupancy', true);
        RETURN false;
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN true;
    END $$;
    CREATE TYPE mood AS ENUM ('calm');
    CREATE FUNCTION as_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = session_user) THEN
            RAISE 'a function of the owner is run by %', session_user;
        END IF;
        RETURN 'calm';
    END $$;
    CREATE CAST (mood AS text) WITH FUNCTION as_text(mood);
    CREATE TABLE traps (mood mood CHECK (has_no_other_role()));
    INSERT INTO traps VALUES ('calm');
"""
CONTENTS = "SELECT count(*), md5(string_agg(states::text, ',' ORDER BY state_id)) FROM states"


@pytest.fixture
def host(backup_host: BackupHost) -> Iterator[BackupHost]:
    """A host with the second database, as role access makes it."""
    cluster = backup_host.cluster
    names = [NAME, f"{NAME}_restoring", f"{NAME}_replaced"]
    drop = [
        *(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in names),
        f"DROP ROLE IF EXISTS {OWNER}",
    ]
    cluster.execute(
        *drop,
        f"CREATE ROLE {OWNER} LOGIN PASSWORD '{password('occupancy_app')}'",
        f"GRANT {OWNER} TO occupancy_restore",
        f"CREATE DATABASE {NAME} OWNER {OWNER} TEMPLATE template0",
    )
    for script in (PRIVILEGES, FUNCTIONS):
        cluster.execute(script, database=NAME)
    (backup_host.secrets / OWNER).write_text(password("occupancy_app"))
    as_owner(backup_host, SCHEMA)
    yield backup_host
    cluster.execute(*drop)


def as_owner(host: BackupHost, statement: str, database: str = NAME) -> None:
    connection = host.cluster.connect(database, OWNER, password("occupancy_app"))
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def ok(result: Any) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def sets(host: BackupHost, database: str) -> list[str]:
    listed = ok(host.backup("list", "--json", "--database", database, **OTHERS))
    assert listed["database"] == database
    return [one["id"] for one in listed["sets"] if one["state"] == "verified"]


def test_one_command_makes_a_verified_set_of_each_database(host: BackupHost) -> None:
    before = sets(host, LIVE)
    made = ok(host.backup("create", "--all", "--json", **OTHERS))["sets"]
    assert [one["id"].split("-")[0] for one in made] == [LIVE, NAME]
    assert {one["state"] for one in made} == {"verified"}
    assert sets(host, NAME) == [made[1]["id"]]
    assert sets(host, LIVE) == [*before, made[0]["id"]]

    # The ID names the database.
    manifest = ok(host.backup("show", made[1]["id"], "--json", **OTHERS))["manifest"]
    assert (manifest["owner"], manifest["contents"]["tables"]["public.states"]["rows"]) == (OWNER, 2000)
    assert ok(host.backup("verify", "--all", "--json", **OTHERS))["verified"][-1] == made[1]["id"]

    metrics = (host.sets / f".backup-{NAME}.prom").read_text().splitlines()
    assert f'occupancy_backup_last_exit_code{{database="{NAME}"}} 0' in metrics
    assert f'occupancy_backup_sets{{database="{NAME}",state="verified"}} 1' in metrics
    assert "occupancy_backup_last_exit_code 0" in (host.sets / ".backup.prom").read_text().splitlines()
    assert host.unfinished() == []


def test_a_database_that_cannot_be_restored_does_not_keep_the_first_from_its_backup(host: BackupHost) -> None:
    before = sets(host, LIVE)
    # Only a superuser makes one, and a restore is none.
    host.cluster.execute(
        "CREATE FUNCTION ends() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION ends()",
        database=NAME,
    )
    run = host.backup("create", "--all", **OTHERS)
    assert run.returncode == ExitCode.DAMAGED
    assert f"{NAME}: " in run.stderr
    assert "EVENT TRIGGER ends" in run.stderr
    assert len(sets(host, LIVE)) == len(before) + 1
    assert sets(host, NAME) == []


def test_a_restore_exchanges_the_second_database_and_leaves_the_first(host: BackupHost) -> None:
    first, contents = host.fingerprint(), host.query(CONTENTS, NAME)
    made = ok(host.backup("create", "--database", NAME, "--json", **OTHERS))
    as_owner(host, "DROP TABLE states; CREATE TABLE later (n int)")

    done = ok(host.cli("restore", "latest", "--confirm", NAME, "--json", **OTHERS))
    assert (done["database"], done["set"], done["replaced"]) == (NAME, made["id"], f"{NAME}_replaced")
    assert host.query(CONTENTS, NAME) == contents
    assert host.fingerprint() == first
    assert set(sets(host, NAME)) == {made["id"], done["safety_backup"]}

    # Everything is the owner's again, and the application and the first owner have no way in.
    owners = host.query(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        NAME,
    )
    assert owners == [(OWNER,)]
    connecting = host.query(
        "SELECT rolname FROM pg_roles WHERE has_database_privilege(rolname, current_database(), 'CONNECT')"
        " AND NOT rolsuper AND rolname !~ '^pg_' ORDER BY 1",
        NAME,
    )
    assert connecting == [(OWNER,), ("occupancy_backup",), ("occupancy_restore",)]
    as_owner(host, "INSERT INTO states (state) VALUES ('off'); SELECT pg_advisory_lock(1), lo_create(0)")

    ok(host.cli("restore-rollback", "--confirm", NAME, "--json", **OTHERS))
    assert host.query("SELECT to_regclass('states'), to_regclass('later') IS NULL", NAME) == [(None, False)]
    assert ok(host.cli("restore-cleanup", "--json", **OTHERS))["dropped"] == []


def test_the_owner_of_the_second_database_has_no_way_into_the_first(host: BackupHost) -> None:
    for database, user in [(LIVE, OWNER), (NAME, "occupancy_app"), (NAME, "occupancy")]:
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            host.cluster.connect(database, user, password(user if user != OWNER else "occupancy_app"))


def test_the_superuser_runs_no_function_of_an_owner(host: BackupHost) -> None:
    # Role access calls a function of this name. The arguments of this one fit better.
    trap = (
        "CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE plpgsql"
        " AS 'BEGIN RAISE $$trapped$$; END'"
    )
    as_owner(host, f"{trap}; ALTER DATABASE {NAME} SET search_path = public, pg_catalog")
    with pytest.raises(psycopg2.errors.RaiseException, match="trapped"):
        host.cluster.execute(PRIVILEGES, database=NAME)
    access = yaml.safe_load((ROOT / "roles/access/vars/main.yml").read_text())
    options = access["__access_in_databases"]["connect_params"]["options"].split("}}")[1]
    connection = host.cluster.connect(NAME, options=options)
    connection.autocommit = False
    with connection.cursor() as cursor:
        for script in (PRIVILEGES, FUNCTIONS):
            cursor.execute(script)
            assert cursor.fetchall() == [(False,)]
    connection.close()


def test_other_names_another_owner_and_a_wrong_clock_are_refused(host: BackupHost) -> None:
    run = host.backup("create", "--database", "elsewhere", **OTHERS)
    assert run.returncode == ExitCode.DATABASE_MISSING
    assert f"{LIVE}, {NAME}" in run.stderr
    # Without its entry it is no database of this host.
    assert host.backup("create", "--database", NAME).returncode == ExitCode.DATABASE_MISSING
    assert host.cli("restore", "latest", "--confirm", NAME).returncode == ExitCode.REFUSED

    made = ok(host.backup("create", "--database", NAME, "--json", **OTHERS))
    host.cluster.execute("CREATE ROLE other", f"ALTER DATABASE {NAME} OWNER TO other")
    try:
        run = host.cli("restore", made["id"], "--confirm", NAME, **OTHERS)
        assert run.returncode == ExitCode.UNSUITABLE
        assert f"of a database of {OWNER}, and {NAME} belongs to other" in run.stderr
    finally:
        host.cluster.execute(f"ALTER DATABASE {NAME} OWNER TO {OWNER}", "DROP ROLE other")

    # The clock of all databases is that of the first, which records its checks.
    host.cluster.execute(
        "INSERT INTO hourly.clock (number, checked_at, job)"
        " SELECT coalesce(max(number), 0) + 1, now() + interval '90 days', 'a test' FROM hourly.clock",
        database=LIVE,
    )
    assert host.backup("prune", "--database", NAME, **OTHERS).returncode == ExitCode.CLOCK
    assert sets(host, NAME) == [made["id"]]
