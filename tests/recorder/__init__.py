"""Recorders of Home Assistant, made with its own models or from dumps of such ones.

.venv/bin/python -m tests.recorder        # writes the dumps again
"""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parents[1] / ".cache/home-assistant"
TABLES: Final = ("schema_changes", "state_attributes", "states_meta", "states")

# By schema: Home Assistant's version, the Python that runs it, and what else it needs.
VERSIONS: Final = {
    30: ("2023.1.7", "3.10", ["sqlalchemy==1.4.45", "setuptools<81"]),
    35: ("2023.3.6", "3.10", ["sqlalchemy==2.0.7", "setuptools<81"]),
    42: ("2024.3.3", "3.11", ["sqlalchemy==2.0.28"]),
    50: ("2025.4.4", "3.13", ["sqlalchemy==2.0.39"]),
}


def from_dump(schema: int, path: Path) -> Path:
    """Make the recorder of a dump.

    Args:
        schema: One of ``VERSIONS``.
        path: The file to make.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript((HERE / f"schema-{schema}.sql").read_text())
    return path


def from_models(schema: int, path: Path, states: int = 0) -> Path:
    """Make a recorder with the models of Home Assistant; skip the test where these cannot be installed.

    Args:
        schema: One of ``VERSIONS``.
        path: The file to make.
        states: How many; default: those of the dumps.
    """
    version, python, others = VERSIONS[schema]
    directory = ENVIRONMENTS / version
    if not (directory / ".installed").exists():
        packages = [f"homeassistant=={version}", "fnv-hash-fast", "psutil-home-assistant", *others]
        install = ["uv", "pip", "install", "--quiet", "--python", str(directory), *packages]
        for command in (["uv", "venv", "--quiet", "--clear", "--python", python, str(directory)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no environment with homeassistant {version}: {done.stderr.strip()[-300:]}")
        (directory / ".installed").touch()
    subprocess.run(
        [directory / "bin/python", "-W", "ignore", HERE / "make.py", path, str(states)],
        env={**os.environ, "PYTHONPATH": ""},
        check=True,
    )
    return path


def dump(path: Path) -> str:
    """What ``from_dump`` needs."""
    with closing(sqlite3.connect(path)) as connection:
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        lines = []
        for table in TABLES:
            if table not in tables:
                continue
            lines.append(f"{tables[table]};")
            rows = connection.execute(f"SELECT * FROM {table}")  # a constant
            names = [column[0] for column in rows.description]
            for row in rows:
                values = {name: value for name, value in zip(names, row, strict=True) if value is not None}
                shown = ", ".join(
                    connection.execute("SELECT quote(?)", (value,)).fetchone()[0] for value in values.values()
                )
                lines.append(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({shown});")
        lines += [
            f"{sql};"
            for sql, table in connection.execute(
                "SELECT sql, tbl_name FROM sqlite_master WHERE type = 'index' AND sql <> '' ORDER BY name"
            )
            if table in TABLES
        ]
    return "\n".join(line.replace(" \n", "\n") for line in lines) + "\n"


def for_server(schema: int, server: str) -> str:
    """The statements that make the recorder of a dump on a server.

    Args:
        schema: 30 or 50.
        server: postgresql or mysql.
    """
    rows = (HERE / f"schema-{schema}.sql").read_text().splitlines()
    tables = (HERE / f"schema-{schema}-{server}.sql").read_text()
    return tables + "\n".join(line for line in rows if line.startswith("INSERT"))
