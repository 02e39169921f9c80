"""``import`` of recorders in PostgreSQL and MariaDB: the same readings as from SQLite."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.sources.base import Options
from occupancy_db.history.sources.recognise import open_source
from tests.database.conftest import Database
from tests.database.importing import ROWS, bring_in, count
from tests.database.users import OWNER, PASSWORD
from tests.packages import debian_package
from tests.recorder import for_server
from tests.unit.test_formats import Result
from tests.unit.test_recorder import BED, DESK, OTHERS, PLACES, READINGS
from tests.waiting import wait_for


def read(address: str, directory: Path, password: str | None) -> Result:
    options = Options(sensors=PLACES, password=password)
    return Result([address], options, directory / "bad.csv")


def check(result: Result, said: str) -> None:
    assert sorted(result.rows) == sorted(READINGS)
    assert result.reader.stateless == {"unavailable": 1, "unknown": 1, "none": 1}
    assert result.reader.unplaced == OTHERS
    assert list(result.reader.said.values()) == [said]


def check_names(address: str) -> None:
    with open_source(address, Options(password=PASSWORD)) as source:
        assert {name: attributes["friendly_name"] for name, attributes in source.entities()} == {
            DESK: "FP2 Office Desk",
            BED: "FP2 Bedroom Bed",
            "binary_sensor.front_door": "Front door",
            "sensor.office_temperature": "Office temperature",
            "light.kitchen": "Kitchen",
        }


def address(database: Database) -> str:
    return f"postgresql://{OWNER}@{database.cluster.host}:{database.cluster.port}/{database.name}"


@pytest.mark.parametrize("schema", [30, 50])
def test_a_recorder_in_postgresql(empty: Database, schema: int, tmp_path: Path) -> None:
    empty.psql("SET timezone = 'UTC';" + for_server(schema, "postgresql"))
    result = read(address(empty), tmp_path, PASSWORD)
    check(result, f"Home Assistant's recorder, PostgreSQL, schema {schema}")
    check_names(address(empty))


def test_the_command_reads_the_password_from_a_file(
    database: Database, empty: Database, cursor: Cursor, tmp_path: Path
) -> None:
    empty.psql(for_server(50, "postgresql"))
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    entities = tmp_path / "entities.csv"
    entities.write_text("entity_id,room,zone\nbinary_sensor.fp2_office_desk,office,desk\n")
    arguments = [address(empty), "--entities", str(entities), "--password-file", str(secret)]
    assert bring_in(database, *arguments)["imported"] == 2
    again = bring_in(database, *arguments)
    assert (again["imported"], again["duplicates"]) == (0, 3)
    assert count(cursor) == 2
    secret.write_text("wrong\n")
    done = database.cli("--json", "import", *arguments)
    assert done.returncode == ExitCode.UNREACHABLE
    assert "cannot connect to postgresql://" in done.stderr
    done = database.cli("import", address(empty).replace("@", ":SeCrEt@"))
    assert done.returncode == ExitCode.USAGE
    assert "SeCrEt" not in done.stdout + done.stderr


def test_a_server_that_ends_meanwhile_and_other_databases(empty: Database) -> None:
    empty.psql(for_server(50, "postgresql"))
    options = Options(sensors=PLACES, password=PASSWORD)
    with open_source(address(empty), options) as source:
        empty.cluster.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{empty.name}'"
        )
        with pytest.raises(DatabaseError, match="cannot read on in postgresql"):
            list(source.rows())
    empty.psql("DROP TABLE states")
    with pytest.raises(DatabaseError, match="no recorder of Home Assistant"):
        open_source(address(empty), options)
    for wrong in ("oracle://a@b/c", "postgresql://a@b:port/c"):
        with pytest.raises(DatabaseError) as caught:
            open_source(wrong, options)
        assert caught.value.code == ExitCode.USAGE


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A MariaDB server on a socket; make test-full installs one."""
    if ROWS < 1_000_000 and not shutil.which("mariadbd", path="/usr/sbin"):
        pytest.skip("no MariaDB server")
    server = debian_package("mariadb-server-core", "/sbin/mariadbd")
    directory = tmp_path_factory.mktemp("mariadb")
    data, path = directory / "data", str(directory / "socket")
    data.mkdir()
    common = [str(server), "--no-defaults", f"--datadir={data}", "--user=root"]
    # What mariadb-install-db does, which needs the package of the client
    script = ["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;"]
    for name in ("system_tables", "performance_tables", "system_tables_data"):
        script.append(Path(f"/usr/share/mysql/mysql_{name}.sql").read_text())
    subprocess.run(
        [*common, "--bootstrap"], input="\n".join(script), text=True, capture_output=True, check=True
    )

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(path) == 0

    run = [*common, f"--socket={path}", "--skip-networking"]
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(answers, "a connection to MariaDB")
            with closing(pymysql.connect(unix_socket=path, user="root")) as connection:
                yield connection, path
        finally:
            process.terminate()


@pytest.mark.parametrize("schema", [30, 50])
def test_a_recorder_in_mariadb(mariadb: Any, schema: int, tmp_path: Path) -> None:
    connection, path = mariadb
    name = f"homeassistant_{schema}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"CREATE OR REPLACE USER reader IDENTIFIED BY '{PASSWORD}'")
        cursor.execute("GRANT SELECT ON *.* TO reader")
        # The zone of the server and its sessions does not matter.
        cursor.execute("SET GLOBAL time_zone = '+05:30'")
        connection.select_db(name)
        for statement in for_server(schema, "mysql").split(";\n"):
            cursor.execute(statement.rstrip(";\n"))
        connection.commit()
    where = f"mysql://reader@localhost/{name}?unix_socket={quote(path, safe='')}&charset=utf8mb4"
    result = read(where, tmp_path, PASSWORD)
    check(result, f"Home Assistant's recorder, MariaDB, schema {schema}")
    check_names(where)
    with pytest.raises(DatabaseError, match=r"cannot connect to mysql://reader@localhost.*Access denied"):
        open_source(where, Options(password="wrong"))
