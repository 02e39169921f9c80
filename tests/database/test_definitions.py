"""Everything that pg_dump writes is compared: a backup with its copy, and a live schema with its release."""

import asyncio
import json
import os
import pwd
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.errors import ExitCode
from occupancy_db.release.drift import not_comparable
from occupancy_db.schema.definitions import Definitions
from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets, make_backup_host
from tests.database.cluster import Cluster
from tests.database.conftest import OWNER
from tests.database.prefork import Prefork
from tests.database.users import grant

prepared, backup_host = hosts.prepared, hosts.backup_host

MONTH = "(SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'sensor_readings'::regclass LIMIT 1)"

# By what is changed: the statement, as the superuser, and what names it.
CHANGES = {
    "a trigger of the hourly sums that was dropped": (
        f"DO $$ BEGIN EXECUTE format('DROP TRIGGER hourly_delete ON %s', {MONTH}); END $$",
        "CREATE TRIGGER hourly_delete",
    ),
    "a trigger that was disabled": (
        f"DO $$ BEGIN EXECUTE format('ALTER TABLE %s DISABLE TRIGGER hourly_insert', {MONTH}); END $$",
        "TRIGGER hourly_insert",
    ),
    "a new trigger": (
        "CREATE TRIGGER nothing BEFORE UPDATE ON predictions FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "TRIGGER public.predictions nothing",
    ),
    "a policy": (
        "CREATE POLICY none ON room_transitions USING (false)",
        "POLICY public.room_transitions none",
    ),
    "row-level security": (
        "ALTER TABLE room_transitions ENABLE ROW LEVEL SECURITY",
        "ROW SECURITY public.room_transitions",
    ),
    "a rule": (
        "CREATE RULE nothing AS ON INSERT TO predictions DO INSTEAD NOTHING",
        "RULE public.predictions nothing",
    ),
    "options of a sequence": (
        "ALTER SEQUENCE predictions_id_seq CYCLE",
        "SEQUENCE public.predictions_id_seq",
    ),
    "the owner of a SECURITY DEFINER function": (
        "ALTER FUNCTION hourly.mark() OWNER TO postgres",
        "FUNCTION hourly.mark()",
    ),
    "privileges on schema hourly": (
        "GRANT CREATE ON SCHEMA hourly TO occupancy_app",
        "CREATE ON SCHEMA hourly",
    ),
    "privileges on a table": (
        "GRANT TRUNCATE ON predictions TO occupancy_app",
        "TRUNCATE",
    ),
    "a privilege that was revoked": (
        "REVOKE SELECT ON predictions FROM occupancy_readonly",
        "TO occupancy_readonly",
    ),
    "default privileges": (
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT SELECT ON TABLES TO PUBLIC",
        "DEFAULT PRIVILEGES FOR ROLE",
    ),
    "options of a view": (
        "ALTER VIEW latest_readings SET (security_invoker = true)",
        "VIEW public.latest_readings",
    ),
    "storage options": ("ALTER TABLE predictions SET (fillfactor = 70)", "TABLE public.predictions"),
    "the storage of a column": (
        "ALTER TABLE predictions ALTER COLUMN model_version SET STORAGE EXTERNAL",
        "TABLE public.predictions",
    ),
    "the statistics target of a column": (
        "ALTER TABLE predictions ALTER COLUMN model_version SET STATISTICS 5",
        "TABLE public.predictions",
    ),
    "the definition of a function": ("ALTER FUNCTION retention_cutoff(integer) VOLATILE", "retention_cutoff"),
    "replica identity": ("ALTER TABLE predictions REPLICA IDENTITY FULL", "public.predictions"),
    "inheritance of privileges by a column": (
        "GRANT UPDATE (room) ON predictions TO occupancy_readonly",
        "GRANT UPDATE(room) ON TABLE public.predictions",
    ),
    "an unlogged table": ("ALTER TABLE room_transitions SET UNLOGGED", "TABLE public.room_transitions"),
}
"""Changes of what the release does: exit code 13."""

BESIDE = {
    "statistics": (
        "CREATE STATISTICS s ON room, prediction_type FROM predictions",
        "STATISTICS public.s",
    ),
    "an index": ("CREATE INDEX mine ON predictions (model_version)", "INDEX public.mine"),
    "a domain": ("CREATE DOMAIN share AS numeric CHECK (value < 1)", "DOMAIN public.share"),
    "an aggregate": (
        "CREATE AGGREGATE total(integer) (SFUNC = int4pl, STYPE = integer)",
        "AGGREGATE public.total(integer)",
    ),
    "a table": ("CREATE TABLE mine (n int)", "TABLE public.mine"),
}
"""What an operator may add beside the release: named, exit code 0."""


@pytest.fixture(scope="module")
def shared(
    cluster: Cluster, prepared: PreparedSets, prefork: Prefork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackupHost]:
    with make_backup_host(cluster, prepared, prefork, tmp_path_factory.mktemp("definitions")) as made:
        yield made


@pytest.fixture
def live(shared: BackupHost, prepared: PreparedSets) -> Iterator[BackupHost]:
    """The live database without changes of other tests."""
    hosts.drop(shared.cluster)
    shared.cluster.execute(
        f"CREATE DATABASE {LIVE} OWNER {OWNER} TEMPLATE {prepared.database} STRATEGY FILE_COPY"
    )
    grant(shared.cluster, LIVE)
    yield shared


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_release_is_a_difference(live: BackupHost, change: str) -> None:
    statement, words = CHANGES[change]
    live.cluster.execute(statement, database=LIVE)
    checked = live.cli("check-tables", "--json")
    assert checked.returncode == ExitCode.DIFFERENT, checked.stdout + checked.stderr
    found = json.loads(checked.stdout)["differences"]
    assert any(words in one for one in found), found


@pytest.mark.parametrize("beside", BESIDE)
def test_what_the_operator_adds_is_named(live: BackupHost, beside: str) -> None:
    statement, words = BESIDE[beside]
    live.cluster.execute(statement, database=LIVE)
    checked = live.cli("check-tables", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["differences"] == []
    assert any(words in one for one in json.loads(checked.stdout)["additional"])


@pytest.mark.parametrize("change", [*CHANGES, *BESIDE])
def test_a_copy_without_the_change_is_different(live: BackupHost, change: str) -> None:
    """As check-tables, but the comparison of a backup with its copy, in both directions."""
    statement, _ = (CHANGES | BESIDE)[change]
    before = Definitions(_dump(live))
    live.cluster.execute(statement, database=LIVE)
    after = Definitions(_dump(live))
    if "owner" in change:  # a restore makes the owner of the database the owner
        assert after.foreign_owners()
        return
    assert before.differences(after)
    assert after.differences(before)
    assert before.differences(Definitions(_dump(live).replace("\n\n", "\n\n"))) != []
    assert after.differences(Definitions(_dump(live))) == []


def _dump(host: BackupHost) -> str:
    return host.cluster.dump_schema(LIVE)


def test_an_unchanged_database_has_no_difference(live: BackupHost) -> None:
    checked = live.cli("check-tables", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    answer = json.loads(checked.stdout)
    assert (answer["differences"], answer["additional"], answer["not_compared"]) == ([], [], None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner")
def test_directories_without_an_owner_are_not_used(live: BackupHost) -> None:
    owner = live.rehearsals.stat().st_uid
    known = {account.pw_uid for account in pwd.getpwall()}
    os.chown(live.rehearsals, next(uid for uid in range(60_000, 65_000) if uid not in known), -1)
    checked = live.cli("check-tables")
    os.chown(live.rehearsals, owner, -1)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"the owner of {live.rehearsals} has no account" in checked.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner")
def test_directories_of_a_container_are_not_used_by_a_checkout(
    live: BackupHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a host that is this machine, where an account keeps the id of the containers."""
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="occupancy-tools"))
    refused = asyncio.run(not_comparable(BackupSettings(dir=live.sets, rehearsal_dir=live.rehearsals)))
    assert refused == f"{live.rehearsals} belongs to the containers of this host"


def test_a_checkout_without_the_programs_says_what_was_not_compared(live: BackupHost) -> None:
    checked = live.cli("check-tables", PATH="/usr/bin:/bin")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "definitions were not compared" in checked.stdout
    assert "is not on PATH" in checked.stdout or "PostgreSQL 16 is needed" in checked.stdout
