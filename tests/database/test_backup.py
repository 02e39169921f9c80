"""Backups and restores as they are meant to go, beside clients who go on working."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from occupancy_db.errors import ExitCode
from tests.database import site as sites
from tests.database.conftest import OWNER, REVISIONS
from tests.database.site import LIVE, Site, Stock
from tests.waiting import wait_for

stock, site = sites.stock, sites.site

READING = (
    "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) "
    "VALUES (now(), 'office', %s, true, 'x')"
)


def ok(result: Any) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) if result.stdout.startswith("{") else result.stdout


def test_a_backup_is_made_proved_and_shown(site: Site, stock: Stock) -> None:
    made = ok(site.backup("create", "--pin", "before the move", "--json"))
    assert made["state"] == "verified"
    assert made["pinned"] == "before the move"
    assert made["rows"] == sum(count for count, _ in site.fingerprint().values())
    assert list(made["phases"]) == ["check", "dump", "decode", "publish", "rehearse", "prune"]

    listed = ok(site.backup("list", "--json"))
    assert [one["id"] for one in listed["sets"]] == [stock.old, stock.new, made["id"]]
    assert made["id"] in ok(site.backup("list"))

    manifest = ok(site.backup("show", "latest", "--json"))["manifest"]
    assert manifest["id"] == made["id"]
    tables = manifest["contents"]["tables"]
    assert {name: tables[f"public.{name}"]["rows"] for name in ("predictions", "room_transitions")} == {
        name: site.fingerprint()[name][0] for name in ("predictions", "room_transitions")
    }
    shown = ok(site.backup("show", made["id"]))
    assert f"{made['id']}: verified, pinned: before the move" in shown
    assert "public.predictions" in shown

    verified = ok(site.backup("verify", "latest", stock.old, "--json"))
    assert verified == {"verified": [made["id"], stock.old]}
    assert ok(site.backup("verify", "--older-than", "1", "--json")) == {"verified": []}

    metrics = (site.sets / ".backup.prom").read_text().splitlines()
    assert "occupancy_backup_last_exit_code 0" in metrics
    assert 'occupancy_backup_sets{state="verified"} 3' in metrics
    assert f"occupancy_backup_rows {made['rows']}" in metrics
    assert site.unfinished() == []


def test_a_backup_says_how_far_it_is(site: Site) -> None:
    said = ok(site.backup("create")).splitlines()
    phases = [line.split(":")[0] for line in said[:-1]]
    assert phases == ["check", "dump", "decode", "publish", "rehearse", "prune"]
    assert said[-1].endswith("is verified")


def test_sets_go_as_planned_and_pinned_ones_stay(site: Site, stock: Stock) -> None:
    keep = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
        "BACKUP_KEEP_LAST": 1
    }
    plan = ok(site.backup("prune", "--dry-run", "--json", **keep))
    assert plan["dry_run"] is True
    assert [(one["id"], one["keep"]) for one in plan["plan"]] == [(stock.old, False), (stock.new, True)]
    assert list(site.states()) == [stock.old, stock.new]

    assert ok(site.backup("pin", stock.old, "for the auditor", "--json"))["pinned"] == "for the auditor"
    assert "pinned" in ok(site.backup("prune", **keep))
    assert list(site.states()) == [stock.old, stock.new]

    ok(site.backup("unpin", stock.old))
    removed = ok(site.backup("prune", **keep))
    assert f"remove {stock.old}" in removed
    assert "1 of 2 removed" in removed
    assert list(site.states()) == [stock.new]


def test_a_restore_brings_back_what_was_and_can_be_taken_back(site: Site, stock: Stock) -> None:
    before = site.fingerprint("public")
    site.cluster.execute("DELETE FROM predictions", "CREATE TABLE later (n int)", database=LIVE)
    site.cluster.execute("ALTER TABLE later OWNER TO occupancy", database=LIVE)
    damaged = site.fingerprint("public")

    done = ok(site.restore("latest", "--json"))
    assert done["set"] == stock.new
    assert done["replaced"] == f"{LIVE}_replaced"
    assert site.states()[done["safety_backup"]] == "verified"
    assert site.fingerprint("public") == before
    # What was made before a restore is not what the next one means by latest, and is not pruned.
    assert ok(site.backup("show", "latest", "--json"))["id"] == stock.new
    assert ok(site.backup("show", done["safety_backup"], "--json"))["pinned"]

    assert ok(site.cli("restore-cleanup", "--json"))["dropped"] == []  # it is kept for a day
    back = ok(site.cli("restore-rollback", "--confirm", LIVE, "--json"))
    assert stock.new in back["live"]
    assert site.fingerprint("public") == damaged
    ok(site.cli("restore-rollback", "--confirm", LIVE))
    assert site.fingerprint("public") == before

    site.cluster.execute(
        f"COMMENT ON DATABASE {LIVE}_replaced IS 'replaced at 2026-01-01T00:00:00+00:00 by x'"
    )
    assert ok(site.cli("restore-cleanup", "--json"))["dropped"] == [f"{LIVE}_replaced"]
    assert site.databases() == {LIVE}
    assert site.cli("restore-rollback", "--confirm", LIVE).returncode == ExitCode.DATABASE_MISSING

    # The safety backup brings back what was there before the first restore.
    ok(site.restore(done["safety_backup"], "--without-safety-backup"))
    assert site.fingerprint("public") == damaged


def test_users_can_and_cannot_what_they_could_before(site: Site) -> None:
    def privileges() -> list[tuple[Any, ...]]:
        return site.ask("""
            SELECT nspname, relname, pg_get_userbyid(relowner), a.grantee::regrole::text, a.privilege_type
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
                 LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a
            WHERE n.nspname IN ('public', 'hourly') AND c.relkind IN ('r', 'p', 'v')
            UNION ALL
            SELECT 'database', datname, pg_get_userbyid(datdba), a.grantee::regrole::text, a.privilege_type
            FROM pg_database, LATERAL aclexplode(datacl) AS a WHERE datname = current_database()
            ORDER BY 1, 2, 3, 4, 5
        """)

    before, schema = privileges(), site.cluster.dump_schema(LIVE)
    ok(site.restore("latest", "--without-safety-backup"))
    assert privileges() == before
    assert sorted(site.cluster.dump_schema(LIVE).splitlines()) == sorted(schema.splitlines())


def test_numbers_go_on_after_a_restore(site: Site) -> None:
    ok(site.restore("latest", "--without-safety-backup"))
    application = site.connect("occupancy_app")
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


def test_a_set_of_an_older_revision_is_brought_up_to_date_aside(site: Site) -> None:
    owner = site.changes(OWNER)
    ok(site.database.cli("rollback", **owner))
    assert site.ask("SELECT version_num FROM alembic_version") == [(REVISIONS[-2],)]
    rows = site.fingerprint("public")["predictions"]
    made = ok(site.backup("create", "--json"))
    assert made["revision"] == REVISIONS[-2]
    done = ok(site.restore(made["id"], "--without-safety-backup", "--json"))
    assert done["revision"] == REVISIONS[-1]
    assert site.fingerprint("public")["predictions"] == rows
    assert site.ask("SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]


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


def test_odd_values_come_back_as_they_were(site: Site) -> None:
    owner = site.connect(OWNER)
    with owner.cursor() as cursor:
        cursor.execute(ODD_VALUES)
    owner.close()
    before, counted = site.fingerprint(), site.ask("SELECT * FROM counted")
    made = ok(site.backup("create", "--json"))
    site.cluster.execute('DROP SCHEMA "other schema" CASCADE', "DELETE FROM twins", database=LIVE)
    ok(site.restore(made["id"], "--without-safety-backup"))
    assert site.fingerprint() == before
    assert site.ask("SELECT * FROM counted") == counted


# Beside clients


class Writer(threading.Thread):
    """The application: writes, connects again when it was sent away, and remembers what is written."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.written: list[str] = []
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        connection, number = None, 0
        while not self.over.is_set():
            try:
                connection = connection or self.site.connect("occupancy_app")
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
def writing(site: Site) -> Iterator[Writer]:
    writer = Writer(site)
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


def test_writers_do_not_notice_a_backup(site: Site) -> None:
    with writing(site) as writer:
        made = ok(site.backup("create", "--json"))
    assert writer.failures == []
    assert made["state"] == "verified"
    rows = ok(site.backup("show", made["id"], "--json"))["manifest"]["contents"]["tables"]
    saved = sum(facts["rows"] for name, facts in rows.items() if name.startswith("public.sensor_readings_"))
    ((total,),) = site.ask("SELECT count(*) FROM sensor_readings")
    assert saved < total


def test_writers_are_held_off_shortly_by_a_restore(site: Site) -> None:
    with writing(site) as writer:
        done = ok(site.restore("latest", "--json"))
        written = len(writer.written)
    # Sent away once, perhaps again while it connected; nothing else went wrong.
    assert writer.failures
    gone = ("terminating connection", "does not exist", "server closed the connection")
    assert [text for text in writer.failures if not any(words in text for words in gone)] == []
    assert written > 5
    # All that was acknowledged is in the database that was replaced, or in the one that is live now.
    zones = "SELECT zone FROM sensor_readings WHERE zone LIKE 'w%'"
    found = {zone for database in (LIVE, done["replaced"]) for (zone,) in site.ask(zones, database)}
    assert set(writer.written) <= found
    assert writer.written[-1] in {zone for (zone,) in site.ask(zones)}


def test_idle_sessions_do_not_stop_a_restore(site: Site) -> None:
    sessions = [
        site.connect(user) for user in ("occupancy_app", "occupancy_readonly", OWNER, "occupancy_monitor")
    ]
    sessions[0].autocommit = False
    with sessions[0].cursor() as cursor:
        cursor.execute("SELECT * FROM predictions FOR UPDATE")
    ok(site.restore("latest", "--without-safety-backup"))
    for session in sessions:
        with pytest.raises(psycopg2.OperationalError), session.cursor() as cursor:
            cursor.execute("SELECT 1")
        session.close()
