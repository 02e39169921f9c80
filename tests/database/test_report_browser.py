"""The report in a browser."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.model import Level, Result, Status
from tests.database.conftest import ROOT, Database
from tests.database.test_commands import answer
from tests.packages import debian_package
from tests.waiting import LIMIT

# Locked in uv.lock, and not installed for who does not run this test.
RUN = ("uv", "run", "--project", str(ROOT), "--frozen", "--isolated", "--only-group", "browser", "--quiet")


def home(database: Database) -> Path:
    """A home with four weeks of readings and with results of checks; the path of its report."""
    answer(database, "timezone", "set", "Europe/Berlin")
    answer(database, "seed", "--days", "28")
    answer(database, "rooms", "label", "office", "مكتب <Büro>")
    answer(database, "partitions", "maintain")
    now = datetime.now(UTC)
    levels = [Level.GOOD, Level.WARNING, Level.BAD, Level.SKIPPED]
    results = tuple(
        Result(
            check.name, levels[number % 4], "what was found, in a sentence", since=now - timedelta(hours=5)
        )
        for number, check in enumerate(CHECKS)
    )
    (database.directory / "status.json").write_text(Status(now, "home", "1", results).to_json())
    report = answer(database, "report", REPORT_STATUS=str(database.directory / "status.json"))
    return Path(report["file"])


def test_the_page_is_good_on_every_screen(database: Database) -> None:
    """Phone and desktop, light and dark: nothing is requested, and axe and the console have nothing to say.

    The pictures stay in .cache/report.
    """
    chromium = debian_package("chromium", "/usr/bin/chromium")
    packages = subprocess.run([*RUN, "python", "-c", ""], capture_output=True, text=True, check=False)
    if packages.returncode:
        pytest.skip(
            f"the packages of the group browser cannot be installed: {packages.stderr.strip()[-200:]}"
        )
    pictures = ROOT / ".cache" / "report"
    pictures.mkdir(parents=True, exist_ok=True)
    path = home(database)
    assert path.stat().st_size < 1_000_000
    result = subprocess.run(
        [*RUN, "python", ROOT / "tests/database/look.py", chromium, path, pictures],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []
    assert len(list(pictures.glob("*.png"))) >= 4
