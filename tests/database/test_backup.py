"""Backups and restores without faults, alone and beside clients."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from occupancy_db.errors import ExitCode
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets
from tests.database.chain import FINGERPRINT
from tests.database.conftest import OWNER, REVISIONS
from tests.waiting import wait_for

prepared, backup_host = hosts.prepared, hosts.backup_host

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES (now(), 'office', %s, true, 'x')"
)


def ok(result: Any) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


def test_a_backup_is_created_verified_and_shown(backup_host: BackupHost, prepared: PreparedSets) -> None:
    made = ok(backup_host.backup("create", "--pin", "before the move", "--json"))
    assert made["state"] == "verified"
    assert made["pinned"] == "before the move"
    assert made["rows"] == backup_host.count_rows()
    assert list(made["phases"]) == ["check", "dump", "decode", "publish", "rehearse", "prune"]

    listed = ok(backup_host.backup("list", "--json"))
    assert [one["id"] for one in listed["sets"]] == [prepared.old, prepared.new, made["id"]]
    assert made["id"] in ok(backup_host.backup("list"))

    manifest = ok(backup_host.backup("show", "latest", "--json"))["manifest"]
    assert manifest["id"] == made["id"]
    tables = manifest["contents"]["tables"]
    assert {name: tables[f"public.{name}"]["rows"] for name in ("predictions", "room_transitions")} == {
        name: backup_host.fingerprint()[name][0] for name in ("predictions", "room_transitions")
    }
    shown = ok(backup_host.backup("show", made["id"]))
    assert f"{made['id']}: verified, pinned: before the move" in shown
    assert "public.predictions" in shown

    verified = ok(backup_host.backup("verify", "latest", prepared.old, "--json"))
    assert verified == {"verified": [made["id"], prepared.old]}
    assert ok(backup_host.backup("verify", "--older-than", "1", "--json")) == {"verified": []}

    metrics = (backup_host.sets / ".backup.prom").read_text().splitlines()
    assert "occupancy_backup_last_exit_code 0" in metrics
    assert 'occupancy_backup_sets{state="verified"} 3' in metrics
    assert f"occupancy_backup_rows {made['rows']}" in metrics
    assert backup_host.unfinished() == []


def test_a_backup_reports_its_progress(backup_host: BackupHost) -> None:
    said = ok(backup_host.backup("create")).splitlines()
    phases = [line.split(":")[0] for line in said[:-1]]
    assert phases == ["check", "dump", "decode", "publish", "rehearse", "prune"]
    assert said[-1].endswith("is verified")


def test_sets_are_removed_as_planned_and_pinned_ones_are_kept(
    backup_host: BackupHost, prepared: PreparedSets
) -> None:
    keep = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
        "BACKUP_KEEP_LAST": 1
    }
    plan = ok(backup_host.backup("prune", "--dry-run", "--json", **keep))
    assert plan["dry_run"] is True
    assert [(one["id"], one["keep"]) for one in plan["plan"]] == [(prepared.old, False), (prepared.new, True)]
    assert list(backup_host.states()) == [prepared.old, prepared.new]

    assert (
        ok(backup_host.backup("pin", prepared.old, "for the auditor", "--json"))["pinned"]
        == "for the auditor"
    )
    assert "pinned" in ok(backup_host.backup("prune", **keep))
    assert list(backup_host.states()) == [prepared.old, prepared.new]

    ok(backup_host.backup("unpin", prepared.old))
    removed = ok(backup_host.backup("prune", **keep))
    assert f"remove {prepared.old}" in removed
    assert "1 of 2 removed" in removed
    assert list(backup_host.states()) == [prepared.new]


def test_a_restore_restores_all_rows_and_can_be_rolled_back(
    backup_host: BackupHost, prepared: PreparedSets
) -> None:
    before = backup_host.fingerprint("public")
    backup_host.cluster.execute("DELETE FROM predictions", "CREATE TABLE later (n int)", database=LIVE)
    backup_host.cluster.execute("ALTER TABLE later OWNER TO occupancy", database=LIVE)
    damaged = backup_host.fingerprint("public")

    done = ok(backup_host.restore("latest", "--json"))
    assert done["set"] == prepared.new
    assert done["replaced"] == f"{LIVE}_replaced"
    assert backup_host.states()[done["safety_backup"]] == "verified"
    assert backup_host.fingerprint("public") == before
    # The safety backup of a restore is not the latest set for the next restore, and is not pruned.
    assert ok(backup_host.backup("show", "latest", "--json"))["id"] == prepared.new
    assert ok(backup_host.backup("show", done["safety_backup"], "--json"))["pinned"]

    assert (
        ok(backup_host.cli("restore-cleanup", "--json"))["dropped"] == []
    )  # the replaced database is kept for a day
    back = ok(backup_host.cli("restore-rollback", "--confirm", LIVE, "--json"))
    assert prepared.new in back["live"]
    assert backup_host.fingerprint("public") == damaged
    ok(backup_host.cli("restore-rollback", "--confirm", LIVE))
    assert backup_host.fingerprint("public") == before

    backup_host.cluster.execute(
        f"COMMENT ON DATABASE {LIVE}_replaced IS 'replaced at 2026-01-01T00:00:00+00:00 by x'"
    )
    assert ok(backup_host.cli("restore-cleanup", "--json"))["dropped"] == [f"{LIVE}_replaced"]
    assert backup_host.databases() == {LIVE}
    assert backup_host.cli("restore-rollback", "--confirm", LIVE).returncode == ExitCode.DATABASE_MISSING

    # The safety backup restores the rows from before the first restore.
    ok(backup_host.restore(done["safety_backup"], "--without-safety-backup"))
    assert backup_host.fingerprint("public") == damaged


def test_users_have_the_same_privileges_after_a_restore(backup_host: BackupHost) -> None:
    def privileges() -> list[tuple[Any, ...]]:
        return backup_host.query("""
            SELECT nspname, relname, pg_get_userbyid(relowner), a.grantee::regrole::text, a.privilege_type
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
                 LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a
            WHERE n.nspname IN ('public', 'hourly') AND c.relkind IN ('r', 'p', 'v')
            UNION ALL
            SELECT 'database', datname, pg_get_userbyid(datdba), a.grantee::regrole::text, a.privilege_type
            FROM pg_database, LATERAL aclexplode(datacl) AS a WHERE datname = current_database()
            ORDER BY 1, 2, 3, 4, 5
        """)

    before, schema = privileges(), backup_host.cluster.dump_schema(LIVE)
    ok(backup_host.restore("latest", "--without-safety-backup"))
    assert privileges() == before
    assert sorted(backup_host.cluster.dump_schema(LIVE).splitlines()) == sorted(schema.splitlines())


def test_sequences_continue_after_a_restore(backup_host: BackupHost) -> None:
    ok(backup_host.restore("latest", "--without-safety-backup"))
    application = backup_host.connect("occupancy_app")
    with application.cursor() as cursor:
        for table, insert in (
            ("sensor_readings", READING.replace("%s", "'desk'")),
            (
                "room_transitions",
                "INSERT INTO room_transitions (timestamp, to_room) VALUES (now(), 'office')",
            ),
        ):
            cursor.execute(f"SELECT max(id) FROM {table}")
            newest = cursor.fetchall()[0][0]
            cursor.execute(f"{insert} RETURNING id")
            assert cursor.fetchall()[0][0] > newest
    application.close()


def test_a_set_of_an_older_revision_is_migrated_before_the_exchange(backup_host: BackupHost) -> None:
    owner = backup_host.changes(OWNER)
    ok(backup_host.database.cli("rollback", **owner))
    assert backup_host.query("SELECT version_num FROM alembic_version") == [(REVISIONS[-2],)]
    rows = backup_host.query(FINGERPRINT)
    made = ok(backup_host.backup("create", "--json"))
    assert made["revision"] == REVISIONS[-2]
    done = ok(backup_host.restore(made["id"], "--without-safety-backup", "--json"))
    assert done["revision"] == REVISIONS[-1]
    assert backup_host.query(FINGERPRINT) == rows
    assert backup_host.query("SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]


ODD_VALUES = """
    CREATE TYPE mood AS ENUM ('fine', 'it''s', 'Ü "x"');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN share AS numeric CHECK (value BETWEEN 0 AND 1);
    CREATE TABLE "Odd, ""table"" \\ name" (
        "Ä, column" text, b bytea, f float8, r real, n numeric, s share, m mood, moods mood[], p pair,
        j jsonb, js json,
        t timestamptz, d date, i interval, tz timetz, u uuid, net inet, mac macaddr, bits varbit, c char(5),
        mon money,
        ranges tstzmultirange, ints int[][], ts tsvector, path path, gone int,
        made int GENERATED ALWAYS AS (7) STORED
    );
    ALTER TABLE "Odd, ""table"" \\ name" DROP COLUMN gone;
    INSERT INTO "Odd, ""table"" \\ name" VALUES
        (E'tab\\t line\\n back\\\\ quote'' \\u00e9 \\U0001F600', '\\x00ff5c0a', 'NaN', '-Infinity', 'NaN',
         0.5, 'it''s',
         '{fine,"Ü \\"x\\""}', '(1,"a,""b")', '{"a": [1, null, "\\u00e9"], "b": 1e400}', '{"b":1,  "a":1}',
         'infinity', '-infinity', '-1 mon 2 days -3.5s', '23:59:59.999999-15:59',
         'ffffffff-ffff-ffff-ffff-ffffffffffff', '::1/64', '08:00:2b:01:02:03', B'101', 'ab',
         '-92233720368547758.08',
         '{[2026-01-01,2026-01-02),[infinity,infinity]}', '{{1,NULL},{3,4}}', 'a:1A b', '[(0,0),(1,1)]'),
        ('', '', '-0', 1e-45, 1e-1000, NULL, NULL, '{}', '(,)', 'null', 'null', '0044-03-15 BC',
         '4713-01-01 BC', '0',
         '00:00+00', NULL, '0/0', NULL, B'', '', '0', '{}', '{}', '', '((0,0))'),
        (NULL, NULL, 5e-324, 0.1::real + 0.2::real, 0.10, 1.000, 'fine', NULL, NULL, '{}', '{}',
         '2026-10-25 02:30+02',
         '9999-12-31', '1 year', '12:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE empty_of_columns ();
    INSERT INTO empty_of_columns DEFAULT VALUES;
    CREATE TABLE twins (n int);
    INSERT INTO twins VALUES (1), (1), (NULL), (NULL);
    CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS n;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM twins;
    CREATE SCHEMA "other schema";
    CREATE TABLE "other schema".t (n int PRIMARY KEY, parent int REFERENCES "other schema".t DEFERRABLE);
    INSERT INTO "other schema".t VALUES (1, 1);
    COMMENT ON TABLE twins IS 'both of them';
"""


def test_unusual_values_are_restored_exactly(backup_host: BackupHost) -> None:
    owner = backup_host.connect(OWNER)
    with owner.cursor() as cursor:
        cursor.execute(ODD_VALUES)
    owner.close()
    before, counted = backup_host.fingerprint(), backup_host.query("SELECT * FROM counted")
    made = ok(backup_host.backup("create", "--json"))
    backup_host.cluster.execute('DROP SCHEMA "other schema" CASCADE', "DELETE FROM twins", database=LIVE)
    ok(backup_host.restore(made["id"], "--without-safety-backup"))
    assert backup_host.fingerprint() == before
    assert backup_host.query("SELECT * FROM counted") == counted


# Beside clients


class Writer(threading.Thread):
    """A client that writes, connects again after an error, and records which rows were committed."""

    def __init__(self, backup_host: BackupHost) -> None:
        super().__init__()
        self.host = backup_host
        self.written: list[str] = []
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        connection, number = None, 0
        while not self.over.is_set():
            try:
                connection = connection or self.host.connect("occupancy_app")
                with connection.cursor() as cursor:
                    cursor.execute(READING, (f"w{number}",))
                self.written.append(f"w{number}")
                number += 1
            except psycopg2.Error as error:
                self.failures.append(str(error))
                connection = None
            time.sleep(0.002)
        if connection:
            connection.close()


@contextmanager
def writing(backup_host: BackupHost) -> Iterator[Writer]:
    writer = Writer(backup_host)
    writer.start()
    try:
        wait_for(lambda: len(writer.written) >= 5, "five rows before", explain=lambda: writer.failures)
        assert not writer.failures
        yield writer
        goal = len(writer.written) + 5
        wait_for(lambda: len(writer.written) >= goal, "five rows after", explain=lambda: writer.failures)
    finally:
        writer.over.set()
        writer.join()


def test_writers_have_no_errors_during_a_backup(backup_host: BackupHost) -> None:
    with writing(backup_host) as writer:
        made = ok(backup_host.backup("create", "--json"))
    assert writer.failures == []
    assert made["state"] == "verified"
    rows = ok(backup_host.backup("show", made["id"], "--json"))["manifest"]["contents"]["tables"]
    saved = sum(facts["rows"] for name, facts in rows.items() if name.startswith("public.sensor_readings_"))
    ((total,),) = backup_host.query("SELECT count(*) FROM sensor_readings")
    assert saved < total


def test_writers_are_only_disconnected_by_a_restore(backup_host: BackupHost) -> None:
    with writing(backup_host) as writer:
        done = ok(backup_host.restore("latest", "--json"))
        written = len(writer.written)
    # The writer was disconnected, perhaps twice, and had no other errors.
    assert writer.failures
    gone = ("terminating connection", "does not exist", "server closed the connection")
    assert [text for text in writer.failures if not any(words in text for words in gone)] == []
    assert written > 5
    # All committed rows are in the replaced database or in the live one.
    zones = "SELECT zone FROM sensor_readings WHERE zone LIKE 'w%'"
    found = {zone for database in (LIVE, done["replaced"]) for (zone,) in backup_host.query(zones, database)}
    assert set(writer.written) <= found
    assert writer.written[-1] in {zone for (zone,) in backup_host.query(zones)}


def test_idle_sessions_do_not_prevent_a_restore(backup_host: BackupHost) -> None:
    sessions = [
        backup_host.connect(user)
        for user in ("occupancy_app", "occupancy_readonly", OWNER, "occupancy_monitor")
    ]
    sessions[0].autocommit = False
    with sessions[0].cursor() as cursor:
        cursor.execute("SELECT * FROM predictions FOR UPDATE")
    ok(backup_host.restore("latest", "--without-safety-backup"))
    for session in sessions:
        with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:
            cursor.execute("SELECT 1")
        session.close()
