"""What restricted users try and are refused, each with the exact SQLSTATE."""

from collections.abc import Callable

import psycopg2
import psycopg2.extras
import pytest

from occupancy_db.maintenance import LOCK_KEY
from tests.database.backup_host import LIVE
from tests.database.users import password
from tests.hostile.attackers import EVERYBODY, MONITORS, READERS, WRITERS, Scene, expect_error

DENIED, READ_ONLY, NOT_PREPARED = "42501", "25006", "55000"
LOCKS = [
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE", "ACCESS EXCLUSIVE",
]  # fmt: skip
ADVISORY = ["advisory_lock", "advisory_xact_lock", "try_advisory_lock", "try_advisory_xact_lock"]
HOURS_KEY = int.from_bytes(b"occhours")
"""Key of the advisory lock of the hourly sums in release 0.1.0: the ASCII codes of "occhours"."""
OTHERS = (*READERS, *MONITORS)

# The statement, who tries it, and the SQLSTATE
REFUSED: list[tuple[str, tuple[str, ...], str]] = [
    *((f"LOCK TABLE sensor_readings IN {mode} MODE", READERS, DENIED) for mode in LOCKS[1:]),
    *((f"LOCK TABLE public.sensor_readings IN {mode} MODE", MONITORS, DENIED) for mode in LOCKS),
    *((f"LOCK TABLE public.maintenance_lock IN {mode} MODE", EVERYBODY, DENIED) for mode in LOCKS[1:]),
    *((f"LOCK TABLE hourly.watermark IN {mode} MODE", EVERYBODY, DENIED) for mode in LOCKS),
    ("LOCK TABLE public.rooms IN ROW EXCLUSIVE MODE", EVERYBODY, DENIED),
    ("LOCK TABLE public.alembic_version IN ROW EXCLUSIVE MODE", EVERYBODY, DENIED),
    ("LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE", EVERYBODY, DENIED),
    ("LOCK TABLE pg_catalog.pg_class IN ROW EXCLUSIVE MODE", EVERYBODY, DENIED),
    ("SELECT * FROM public.rooms FOR KEY SHARE", EVERYBODY, DENIED),
    ("SELECT * FROM public.alembic_version FOR UPDATE", EVERYBODY, DENIED),
    ("SELECT * FROM public.sensor_readings FOR KEY SHARE", OTHERS, DENIED),
    ("SELECT * FROM hourly.watermark FOR SHARE", EVERYBODY, DENIED),
    *((f"SELECT pg_{function}(1)", EVERYBODY, DENIED) for function in ADVISORY),
    *((f"SELECT pg_{function}_shared({LOCK_KEY})", EVERYBODY, DENIED) for function in ADVISORY),
    *((f"SELECT pg_{function}({HOURS_KEY})", EVERYBODY, DENIED) for function in ADVISORY),
    *((f"SELECT pg_{function}(1, 2)", EVERYBODY, DENIED) for function in ADVISORY),
    # Of readers it revokes nothing, with a warning.
    ("DROP OWNED BY occupancy_monitor", MONITORS, DENIED),
    ("SELECT lo_create(0)", EVERYBODY, DENIED),
    ("SELECT lo_creat(-1)", EVERYBODY, DENIED),
    ("SELECT lo_from_bytea(0, 'x')", EVERYBODY, DENIED),
    ("SELECT lo_put(1, 0, 'x')", EVERYBODY, DENIED),
    ("SELECT lo_unlink(1)", EVERYBODY, DENIED),
    ("SELECT lo_import('/etc/passwd')", EVERYBODY, DENIED),
    ("CREATE TEMPORARY TABLE mine ()", EVERYBODY, DENIED),
    ("SELECT 1 AS n INTO TEMPORARY mine", EVERYBODY, DENIED),
    ("CREATE TEMPORARY SEQUENCE mine", EVERYBODY, DENIED),
    ("BEGIN; PREPARE TRANSACTION 'mine'", EVERYBODY, NOT_PREPARED),
    ("CREATE TABLE public.mine ()", EVERYBODY, DENIED),
    ("CREATE VIEW public.mine AS SELECT 1", EVERYBODY, DENIED),
    ("CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", EVERYBODY, DENIED),
    ("CREATE TYPE public.mine AS ENUM ('a')", EVERYBODY, DENIED),
    ("CREATE DOMAIN public.mine AS int", EVERYBODY, DENIED),
    ("CREATE OPERATOR public.=== (FUNCTION = int4eq, LEFTARG = int4, RIGHTARG = int4)", EVERYBODY, DENIED),
    ("CREATE CAST (int AS uuid) WITH INOUT", EVERYBODY, DENIED),
    ("CREATE SCHEMA mine", EVERYBODY, DENIED),
    ("CREATE PUBLICATION mine", EVERYBODY, DENIED),
    ("CREATE PUBLICATION mine FOR ALL TABLES", EVERYBODY, DENIED),
    ("CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION mine WITH (connect = false)", EVERYBODY, DENIED),
    ("CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION mine()", EVERYBODY, DENIED),
    ("CREATE FOREIGN DATA WRAPPER mine", EVERYBODY, DENIED),
    ("CREATE LANGUAGE mine HANDLER plpgsql_call_handler", EVERYBODY, DENIED),
    ("CREATE TABLESPACE mine LOCATION '/tmp'", EVERYBODY, DENIED),
    ("CREATE DATABASE mine", EVERYBODY, DENIED),
    ("CREATE ROLE mine", EVERYBODY, DENIED),
    ("ALTER ROLE occupancy SET statement_timeout = 1", EVERYBODY, DENIED),
    ("ALTER ROLE CURRENT_USER CONNECTION LIMIT 1000", EVERYBODY, DENIED),
    ("ALTER ROLE CURRENT_USER BYPASSRLS", EVERYBODY, DENIED),
    ("ALTER ROLE ALL SET statement_timeout = 1", EVERYBODY, DENIED),
    (f"ALTER DATABASE {LIVE} SET statement_timeout = 1", EVERYBODY, DENIED),
    (f"ALTER DATABASE {LIVE} RENAME TO mine", EVERYBODY, "42501"),
    ("ALTER SYSTEM SET statement_timeout = 1", EVERYBODY, DENIED),
    ("ALTER ROLE CURRENT_USER SET temp_file_limit = -1", EVERYBODY, DENIED),
    ("SET temp_file_limit = -1", EVERYBODY, DENIED),
    ("SET lo_compat_privileges = on", EVERYBODY, DENIED),
    ("SET session_replication_role = replica", EVERYBODY, DENIED),
    ("SET zero_damaged_pages = on", EVERYBODY, DENIED),
    ("SET ROLE occupancy", EVERYBODY, DENIED),
    ("SET SESSION AUTHORIZATION occupancy", EVERYBODY, DENIED),
    ("REASSIGN OWNED BY occupancy TO CURRENT_USER", EVERYBODY, DENIED),
    ("DROP OWNED BY occupancy", EVERYBODY, DENIED),
    ("DROP OWNED BY occupancy_app", WRITERS, DENIED),
    ("COPY (SELECT 1) TO PROGRAM 'cat'", EVERYBODY, DENIED),
    ("COPY (SELECT 1) TO '/tmp/mine'", EVERYBODY, DENIED),
    ("SELECT pg_read_file('/etc/passwd')", EVERYBODY, DENIED),
    ("SELECT pg_ls_dir('.')", EVERYBODY, DENIED),
    ("LOAD 'mine'", EVERYBODY, DENIED),
    ("CHECKPOINT", EVERYBODY, DENIED),
    ("SELECT pg_reload_conf()", EVERYBODY, DENIED),
    ("SELECT pg_switch_wal()", EVERYBODY, DENIED),
    ("SELECT pg_backup_start('mine')", EVERYBODY, DENIED),
    ("SELECT pg_create_restore_point('mine')", EVERYBODY, DENIED),
    ("SELECT pg_create_physical_replication_slot('mine')", EVERYBODY, DENIED),
    ("SELECT pg_stat_reset()", EVERYBODY, DENIED),
    ("SELECT pg_rotate_logfile()", EVERYBODY, DENIED),
    ("SELECT rolpassword FROM pg_authid", EVERYBODY, DENIED),
    ("UPDATE pg_class SET relname = 'mine'", EVERYBODY, DENIED),
    ("TRUNCATE public.sensor_readings", EVERYBODY, DENIED),
    ("DROP TABLE public.sensor_readings", EVERYBODY, DENIED),
    ("ALTER TABLE public.sensor_readings DISABLE TRIGGER ALL", EVERYBODY, DENIED),
    ("ALTER TABLE public.sensor_readings ENABLE ROW LEVEL SECURITY", EVERYBODY, DENIED),
    ("CREATE INDEX ON public.sensor_readings (zone)", EVERYBODY, DENIED),
    ("CREATE STATISTICS mine ON zone, room FROM public.sensor_readings", EVERYBODY, DENIED),
    ("CREATE RULE mine AS ON INSERT TO public.sensor_readings DO NOTHING", EVERYBODY, DENIED),
    ("REINDEX TABLE public.predictions", EVERYBODY, DENIED),
    ("CLUSTER public.predictions USING predictions_pkey", EVERYBODY, DENIED),
    ("COMMENT ON TABLE public.sensor_readings IS 'mine'", EVERYBODY, DENIED),
    ("INSERT INTO public.alembic_version VALUES ('mine')", EVERYBODY, DENIED),
    ("DELETE FROM public.rooms", EVERYBODY, DENIED),
    ("DELETE FROM public.sensor_readings", OTHERS, DENIED),
    ("SELECT hourly.close(now())", EVERYBODY, DENIED),
    ("SELECT public.cleanup_old_sensor_readings(1)", EVERYBODY, DENIED),
    ("SELECT nextval(pg_get_serial_sequence('public.sensor_readings', 'id'))", OTHERS, DENIED),
]


@pytest.mark.parametrize("user", EVERYBODY)
def test_the_server_refuses(scene: Scene, record_property: Callable[[str, object], None], user: str) -> None:
    wrong, refused = [], 0
    for statement, users, code in REFUSED:
        if user not in users:
            continue
        attacker = scene.session(user, options="-c default_transaction_read_only=off")
        attacker.autocommit = not statement.startswith("LOCK")
        try:
            with attacker.cursor() as cursor, expect_error(code):
                cursor.execute(statement)
            refused += 1
        except AssertionError as error:
            wrong.append(f"{statement}: {error}")
        attacker.close()
    assert wrong == []
    record_property("refused", refused)


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize("other", ["occupancy", "occupancy_backup", "occupancy_restore", "postgres"])
def test_no_user_ends_the_sessions_of_the_tools(
    scene: Scene, record_property: Callable[[str, object], None], user: str, other: str
) -> None:
    target = scene.host.cluster.connect(LIVE) if other == "postgres" else scene.session(other)
    for function in ("pg_terminate_backend", "pg_cancel_backend"):
        with expect_error(DENIED):
            scene.run(user, f"SELECT {function}({target.info.backend_pid})")
    assert scene.state(target.info.backend_pid)
    target.close()
    record_property("refused", 1)


@pytest.mark.parametrize("user", EVERYBODY)
@pytest.mark.parametrize("kind", ["Logical", "Physical"])
def test_a_replication_connection_is_refused(
    scene: Scene, record_property: Callable[[str, object], None], user: str, kind: str
) -> None:
    # The product's pg_hba.conf has no rule for physical replication; the server of the tests has none, too.
    reason = "permission denied to start WAL sender" if kind == "Logical" else "no pg_hba.conf entry"
    with pytest.raises(psycopg2.OperationalError, match=reason):
        psycopg2.connect(
            host=scene.host.cluster.host, port=scene.host.cluster.port, dbname=LIVE, user=user,
            password=password(user),
            connection_factory=getattr(psycopg2.extras, f"{kind}ReplicationConnection"),
        )  # fmt: skip
    record_property("refused", 1)


@pytest.mark.parametrize("user", EVERYBODY)
def test_no_extension_is_created(
    scene: Scene, record_property: Callable[[str, object], None], user: str
) -> None:
    names = scene.superuser("SELECT name FROM pg_available_extensions WHERE installed_version IS NULL")
    assert names
    session = scene.session(user, options="-c default_transaction_read_only=off")
    for (name,) in names:
        with session.cursor() as cursor, expect_error(DENIED):
            cursor.execute(f'CREATE EXTENSION "{name}" SCHEMA public')
    record_property("refused", 1)
