"""The page of the report: one private file that asks nobody and escapes what it shows."""

import os
import random
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from occupancy_db.checks.model import Level, Result, Status
from occupancy_db.exit_codes import ExitCode
from occupancy_db.report.file import MARK
from tests.database.conftest import Database
from tests.database.test_commands import answer
from tests.database.test_hours import NOW
from tests.database.test_occupied import compute_all, write
from tests.database.test_report import DAY, fill
from tests.database.users import grant, password

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Parsed(HTMLParser):
    """The tables of a page by their captions, its addresses, and the text of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._caption = ""
        self._rows: list[list[str]] = []
        self._into: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.addresses += [
            value or "" for name, value in attrs if name in {"href", "src", "srcset", "action"}
        ]
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th", "caption"}:
            self._into = []

    def handle_endtag(self, tag: str) -> None:
        text = "".join(self._into or []).strip()
        if tag == "caption":
            self._caption = text
        elif tag in {"td", "th"}:
            self._rows[-1].append(text)
        elif tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._into is not None:
            self._into.append(data)


def page(database: Database, *arguments: str, **environment: Any) -> str:
    result = database.cli("report", "--output", "-", *arguments, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.fixture
def strange(database: Database, cursor: Cursor) -> Iterator[Database]:
    """A home with names that mean something in HTML, or run from right to left, and with a retired room."""
    fill(database, cursor, "Europe/Berlin")
    cursor.execute(
        "INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES "
        "(now() - interval '5 min', 'office', '<script>alert(1)</script>', true, 'x'), "
        "(now() - interval '3 days', 'bedroom', 'سرير', true, '\"><img src=x onerror=alert(1)>')"
    )
    cursor.execute(
        "INSERT INTO predictions (prediction_made_at, room, prediction_type, confidence, probability, "
        "horizon_minutes, model_version) "
        "VALUES (now() - interval '1 day', 'office', 'occupancy', 1, 0.5, 15, '<b>${7*6}</b>')"
    )
    cursor.execute(
        "INSERT INTO room_transitions (timestamp, to_room) VALUES (now() - interval '1 day', 'office')"
    )
    answer(database, "rooms", "label", "office", "Büro & <i>Labor</i>")
    answer(database, "rooms", "retire", "bedroom")
    compute_all(cursor)
    yield database


def test_the_page_escapes_what_it_shows_and_asks_nobody(strange: Database) -> None:
    html = page(strange)
    assert html.encode().startswith(MARK)
    found = Parsed(html)
    zones = found.tables["The newest reading of each zone"]
    assert ["Büro & <i>Labor</i>", "<script>alert(1)</script>", "occupied"] in [row[:3] for row in zones]
    assert any(
        row[:2] == ["bedroom (retired)", "سرير"] and row[-1] == "no reading for a day" for row in zones
    )
    assert ["Büro & <i>Labor</i>", "<b>${7*6}</b>"] in [
        row[:2] for row in found.tables["Predictions of occupancy"]
    ]
    assert not {"script", "img", "link", "iframe", "object", "i", "b"} & {tag for tag, _ in found.elements}
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert all(address.startswith("#") for address in found.addresses)
    assert not re.search(r"url\(|@import", html)
    policy = {"http-equiv": "Content-Security-Policy", "content": POLICY}
    assert ("meta", policy) in found.elements


def test_the_page_can_be_read_without_seeing_it(strange: Database) -> None:
    found = Parsed(page(strange))
    ids = [attrs["id"] for _, attrs in found.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in found.addresses} <= set(ids)
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in found.elements}
    charts = [attrs for tag, attrs in found.elements if attrs.get("role") == "img"]
    assert charts
    assert all(attrs["aria-label"] for attrs in charts)
    # Each chart that is no row of a table is followed by a table with its numbers.
    tags = [tag for tag, _ in found.elements]
    assert tags.count("figure") == tags.count("details")
    assert all(attrs.get("scope") for tag, attrs in found.elements if tag == "th")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_new_database_has_a_report(database: Database, cursor: Cursor, rows: int) -> None:
    if rows:
        write(cursor, datetime.now(UTC) - timedelta(minutes=1), random.Random(1))
    found = Parsed(page(database, REPORT_STATUS="/nonexistent", BACKUP_DIR="/nonexistent"))
    assert ("There are no readings yet." in found.text) is not bool(rows)
    for why in (
        "There are no results of the checks: /nonexistent does not exist.",
        "The backup sets cannot be read here: No such file or directory: /nonexistent.",
        "There are no predictions since",
        "There are no transitions since",
        "The server has no extension pg_stat_statements.",
    ):
        assert why in found.text
    assert (len(found.tables["The newest reading of each zone"]) == 2) if rows else True


def test_the_checks_are_shown_worst_first(database: Database) -> None:
    results = (
        Result("server", Level.GOOD, "it answers"),
        Result("backup_age", Level.BAD, "3 days", ("set <1>",), since=NOW - 3 * DAY),
        Result("other", Level.SKIPPED, "not here"),
    )
    path = database.directory / "status.json"
    path.write_text(Status(datetime.now(UTC), "house", "1", results).to_json())
    found = Parsed(page(database, REPORT_STATUS=path))
    rows = found.tables["Results of the checks"][1:]
    assert [row[1] for row in rows] == ["✕ bad", "✓ good", "– not checked"]
    assert rows[0][2].startswith("3 days set <1> (since ")
    assert rows[0][2].endswith("backup create")
    assert rows[1][2] == "it answers"
    assert "on house" in found.text
    path.write_text("{}")
    assert "The results of the checks cannot be read" in page(database, REPORT_STATUS=path)


def test_the_user_who_dumps_can_make_a_report(strange: Database) -> None:
    grant(strange.cluster, strange.name)
    user = {"POSTGRES_USER": "occupancy_backup", "POSTGRES_PASSWORD": password("occupancy_backup")}
    assert len(Parsed(page(strange, **user)).tables) > 8
    refused = strange.cli(
        "report", POSTGRES_USER="occupancy_readonly", POSTGRES_PASSWORD=password("occupancy_readonly")
    )
    assert refused.returncode == ExitCode.PERMISSION
    assert not (strange.directory / "report.html").exists()


def test_the_file_is_private_and_replaces_reports_only(database: Database) -> None:
    path = database.directory / "report.html"
    for _ in range(2):
        result = answer(database, "report")
        assert (result["file"], result["bytes"]) == (str(path), path.stat().st_size)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    first = path.read_bytes()
    assert database.cli("report", "--days", "7").returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() != first
    other = database.directory / "notes.txt"
    other.write_text("mine")
    link = database.directory / "link.html"
    link.symlink_to(path)
    os.mkfifo(database.directory / "pipe")
    for target, why in (
        ("notes.txt", "another file, not a report"),
        ("link.html", "a symbolic link"),
        (".", "a directory"),
        ("pipe", "no regular file"),
    ):
        refused = database.cli("report", "--output", target)
        assert refused.returncode == ExitCode.REFUSED
        assert refused.stderr.startswith(f"error: {target} is {why}; it was left as it is.")
    assert other.read_text() == "mine"
    on_host = {"OCCUPANCY_COMMAND": "occupancy-db", "REPORT_OUTPUT": str(path)}
    elsewhere = database.cli("report", "--output", "/root/x.html", **on_host)
    assert elsewhere.returncode == ExitCode.USAGE
    assert f"writes to {database.directory} only" in elsewhere.stderr
    assert database.cli("report", **on_host).returncode == 0
    missing = database.cli("report", "--output", "nowhere/report.html")
    assert missing.returncode == ExitCode.FAILED
    assert "there is no directory nowhere" in missing.stderr
    assert sorted(one.name for one in database.directory.glob("*report*")) == ["report.html"]


def test_a_full_disk_leaves_the_earlier_report(database: Database, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if database.run("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)).returncode:
        pytest.skip("only root can make a small disk")
    try:
        path = disk / "report.html"
        assert database.cli("report", "--output", str(path)).returncode == 0
        before = path.read_bytes()
        with (disk / "full").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        full = database.cli("report", "--output", str(path))
        assert full.returncode == ExitCode.NO_SPACE
        assert path.read_bytes() == before
        assert sorted(one.name for one in disk.iterdir()) == ["full", "report.html"]
    finally:
        database.run("umount", str(disk))


def test_slow_statements_are_shown_without_values(database: Database, cursor: Cursor) -> None:
    """PostgreSQL replaces the values of queries only."""
    cursor.execute("""
        CREATE VIEW pg_stat_statements AS
        SELECT pg_roles.oid AS userid, pg_database.oid AS dbid, query, 10::bigint AS calls,
               20::float8 AS mean_exec_time, 90000::float8 AS total_exec_time, 5::bigint AS rows
        FROM pg_roles CROSS JOIN pg_database CROSS JOIN (VALUES
            ('SELECT * FROM rooms WHERE room = $1 /* of anca */'), ('ALTER ROLE x PASSWORD ''secret'''),
            ('/* secret */ SELECT 1'), ('<insufficient privilege>')
        ) AS statement (query)
        WHERE rolname IN ('occupancy_app', 'occupancy_backup') AND datname IN (current_database(), 'postgres')
    """)
    html = page(database)
    rows = Parsed(html).tables["The statements that took most time"]
    assert rows[1:] == [
        ["SELECT * FROM rooms WHERE room = $1", "occupancy_app", "10", "20.0 ms", "1 min 30 s", "5"]
    ]
    assert "secret" not in html
    assert "anca" not in html
