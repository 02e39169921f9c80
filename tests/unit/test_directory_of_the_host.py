"""The command of the host runs in somebody's directory, and uses only the files of it that it is told."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_import_reads_no_settings_and_no_modules_of_the_directory(tmp_path: Path) -> None:
    dockerfile = (REPOSITORY / "compose/ops/Dockerfile").read_text()
    image = dict(
        pair.split("=", 1)
        for line in re.findall(r"^ENV (.*)", dockerfile, re.MULTILINE)
        for pair in line.split()
    )
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.*)", dockerfile, re.MULTILINE)[-1])
    for name in ("json.py", "csv.py", "occupancy_db/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a module of the directory')")
    (tmp_path / ".env").write_text("POSTGRES_PORT=not a port\nPOSTGRES_DB=of_the_directory\n")
    (tmp_path / "readings.csv").write_text(
        "timestamp,room,zone,state,source_entity\n2026-01-01T00:00:00Z,office,desk,on,fp2\n"
    )
    done = subprocess.run(
        [sys.executable, *entrypoint[1:], "--json", "import", "--dry-run", "readings.csv"],
        cwd=tmp_path,
        env={**os.environ, **image, "PYTHONPATH": str(REPOSITORY), "POSTGRES_HOST": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["imported"] == 1
    assert "of_the_directory" not in done.stdout
