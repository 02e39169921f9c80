"""Migrations: upgrade, downgrade, concurrent runs, locks, and comparison with the models."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db import maintenance
from occupancy_db.errors import ExitCode
from tests.database.conftest import HEAD, REVISIONS, ROOT, Database, create
from tests.waiting import LIMIT

# All objects in the schema, without Alembic's version table, its key and its types.
OBJECTS = """
    SELECT relkind::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'type', typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
    UNION ALL SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1, 2
"""


NEXT = f"{len(REVISIONS) + 1:03}"


def objects(database: Database) -> list[tuple[str, str]]:
    with database.connect().cursor() as cursor:
        cursor.execute(OBJECTS)
        return cursor.fetchall()


def test_a_downgrade_removes_all_objects_and_an_upgrade_creates_the_same_schema(empty: Database) -> None:
    assert empty.alembic("upgrade", "head").returncode == 0
    before = empty.cluster.dump_schema(empty.name)
    assert "sensor_readings" in before

    assert empty.alembic("downgrade", "base").returncode == 0
    assert [name for _, name in objects(empty) if "alembic_version" not in name] == []

    assert empty.alembic("upgrade", "head").returncode == 0
    assert empty.cluster.dump_schema(empty.name) == before


def test_a_downgrade_by_one_revision_keeps_the_rows(database: Database, cursor: Cursor) -> None:
    assert database.cli("seed", "--days", "1").returncode == 0
    counts = "SELECT count(*), min(room::text), max(zone), sum(confidence::numeric) FROM sensor_readings"
    cursor.execute(counts)
    before = cursor.fetchall()
    assert before[0][0] > 0
    assert database.cli("rollback").returncode == 0
    cursor.execute(counts)
    assert cursor.fetchall() == before
    assert database.cli("migrate").returncode == 0
    cursor.execute(counts)
    assert cursor.fetchall() == before


async def create_lock_table(database: Database) -> None:
    """Create the table of the maintenance lock, as every command does that takes the lock."""
    async with maintenance.hold_lock(database.settings()):
        pass


def test_offline_sql_creates_the_same_schema(empty: Database, template: str) -> None:
    script = empty.alembic("upgrade", "head", "--sql")
    assert script.returncode == 0
    assert not re.search(r"sensor_readings_\d{4}", script.stdout), "months belong to the day it is applied"
    empty.psql(script.stdout)
    asyncio.run(create_lock_table(empty))
    assert empty.cluster.dump_schema(empty.name) == empty.cluster.dump_schema(template)

    script = empty.alembic("downgrade", f"{HEAD}:base", "--sql")
    empty.psql(script.stdout)
    kept = re.compile("alembic_version|maintenance_lock")
    assert [name for _, name in objects(empty) if not kept.search(name)] == []


def test_ten_runners_at_once_all_succeed_and_one_applies(empty: Database) -> None:
    runners = [
        subprocess.Popen(
            ["occupancy-db", "migrate", "--json"],
            env=empty.environment(),
            cwd=empty.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    results = [(*runner.communicate(timeout=LIMIT), runner.returncode) for runner in runners]
    assert [(code, err) for _, err, code in results] == [(0, "")] * 10
    assert sorted((json.loads(out)["applied"] for out, _, _ in results), key=len) == [[]] * 9 + [REVISIONS]
    assert f'"{HEAD}"' in empty.cli("current", "--json").stdout


def test_a_held_lock_is_reported_with_its_holder_and_nothing_is_changed(empty: Database) -> None:
    holder = empty.connect(application_name="a night shift")
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (maintenance.LOCK_KEY,))
    result = empty.cli("migrate", "--lock-wait", "0.5")
    assert result.returncode == ExitCode.LOCKED
    assert f'pid {holder.info.backend_pid}, "a night shift"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert objects(empty) == []
    holder.close()
    assert empty.cli("migrate", "--lock-wait", "0.5").returncode == ExitCode.OK


def test_a_migration_gives_up_if_a_reader_holds_the_lock(database: Database) -> None:
    before = database.cluster.dump_schema(database.name)
    reader = database.connect(application_name="a dashboard")
    reader.autocommit = False
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sensors")  # which the newest revision has created
    result = database.cli("rollback", "--lock-wait", "1")
    assert result.returncode == ExitCode.LOCKED
    assert f'pid {reader.info.backend_pid}, "a dashboard", user occupancy' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    reader.close()
    assert database.cluster.dump_schema(database.name) == before


def test_a_statement_timeout_of_the_role_does_not_apply_to_migrations(empty: Database) -> None:
    empty.cluster.execute(f"ALTER ROLE occupancy IN DATABASE {empty.name} SET statement_timeout = '1ms'")
    result = empty.cli("migrate")
    assert (result.returncode, result.stderr) == (0, "")


def test_an_existing_table_of_the_same_name_is_not_changed(empty: Database) -> None:
    with empty.connect().cursor() as cursor:
        cursor.execute("CREATE TABLE predictions (mine text)")
    result = empty.cli("init", "--drop")
    assert result.returncode == ExitCode.FAILED
    assert result.stderr.startswith('error: relation "predictions" already exists')
    assert len(result.stderr.splitlines()) == 1
    with empty.connect().cursor() as cursor:
        cursor.execute("SELECT mine FROM predictions")


def tree(directory: Path) -> Path:
    """The project as in the container: package, migrations, alembic.ini in one directory, not installed."""
    app = directory / "app"
    app.mkdir()
    shutil.copy(ROOT / "alembic.ini", app)
    shutil.copytree(ROOT / "migrations", app / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "occupancy_db", app / "occupancy_db", ignore=shutil.ignore_patterns("__pycache__"))
    return app


def test_autogenerate_proposes_nothing_on_a_migrated_database(database: Database) -> None:
    assert database.cli("seed", "--days", "1").returncode == 0
    assert database.alembic("check").returncode == 0
    app = tree(database.directory)
    result = database.run("alembic", "revision", "--autogenerate", "-m", "Nothing", cwd=app)
    assert result.returncode == 0, result.stderr
    (written,) = (app / "migrations" / "versions").glob("*_nothing.py")
    assert written.read_text().count("    pass\n") == 2


def test_autogenerate_finds_a_change_of_the_models(database: Database) -> None:
    app = tree(database.directory)
    model = app / "occupancy_db" / "models" / "prediction.py"
    changed = model.read_text().replace(
        "    model_version:", "    remark: Mapped[str | None]\n    model_version:"
    )
    model.write_text(changed)
    command = ["python", "-m", "occupancy_db", "create-migration", "Add a remark!", "--json"]
    result = database.run(*command, cwd=app)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["revision"] == f"{NEXT}_add_a_remark"
    written = (app / "migrations" / "versions" / f"{NEXT}_add_a_remark.py").read_text()
    assert "op.add_column('predictions', sa.Column('remark'" in written.replace('"', "'")
    assert written.count("op.") == 2  # one upgrade, one downgrade: partitions and views are not differences
    assert f'down_revision = "{HEAD}"' in written

    assert database.run("python", "-m", "occupancy_db", "migrate", cwd=app).returncode == 0
    # The fields of its docstring are not filled in: what a rollback loses is not known.
    result = database.run("python", "-m", "occupancy_db", "rollback", "--lose-data", cwd=app)
    assert f"{NEXT}_add_a_remark → {HEAD}" in result.stdout


def test_an_empty_migration_needs_no_server(database: Database) -> None:
    app = tree(database.directory)
    command = ["python", "-m", "occupancy_db", "create-migration", "--no-autogenerate", "Move " + "x" * 60]
    result = database.run(*command, cwd=app, POSTGRES_PORT="1")
    assert result.returncode == 0, result.stderr
    (written,) = (app / "migrations" / "versions").glob(f"{NEXT}_*.py")
    assert len(written.stem) <= 32
    result = database.run("alembic", "revision", "-m", "Migrate legacy data", cwd=app, POSTGRES_PORT="1")
    assert result.returncode == 0, result.stderr


def test_the_alembic_commands_of_the_manual(database: Database) -> None:
    assert HEAD in database.alembic("current").stdout
    assert "Initial schema" in database.alembic("history", "--verbose").stdout
    assert database.alembic("downgrade", "-1").returncode == 0
    assert REVISIONS[-2] in database.alembic("current").stdout
    assert database.alembic("upgrade", "head").returncode == 0
    assert database.alembic("downgrade", "001_initial_schema").returncode == 0
    assert database.alembic("stamp", HEAD).returncode == 0
    assert HEAD in database.alembic("current").stdout


def test_alembic_itself_reports_a_wrong_password_without_a_traceback(database: Database) -> None:
    result = database.run("alembic", "-c", str(ROOT / "alembic.ini"), "current", POSTGRES_PASSWORD="guess-me")
    assert result.returncode != 0
    assert "wrong password" in result.stderr
    assert "Traceback" not in result.stderr
    assert "guess-me" not in result.stdout + result.stderr


def test_another_owner_can_migrate_its_database(empty: Database) -> None:
    cluster = empty.cluster
    create(cluster, "of_another")
    cluster.execute("CREATE ROLE another LOGIN PASSWORD 'x'", "ALTER DATABASE of_another OWNER TO another")
    result = empty.cli("migrate", POSTGRES_DB="of_another", POSTGRES_USER="another", POSTGRES_PASSWORD="x")
    assert (result.returncode, result.stderr) == (0, "")
