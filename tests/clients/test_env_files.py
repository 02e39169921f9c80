"""The last step of role access: what it has written connects, or the run fails with the reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.server import Login

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "roles/access/files/connects.py"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"POSTGRES_HOST": "localhost"}, "the server's certificate is not for"),
        ({"POSTGRES_PASSWORD": "another"}, "password"),
        ({"POSTGRES_SSLROOTCERT": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_a_file_connects_or_the_reason_is_said(
    application: Login, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    values = application.environment() | change
    (tmp_path / "app.env").write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text(), tmp_path / "app.env"],
        # The operator's shell has a login of its own.
        env=os.environ | {"POSTGRES_HOST": "elsewhere.invalid", "PGPASSWORD": "other"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if says else 0), done.stderr
    assert says in done.stderr
    assert not says or done.stderr.startswith(f"{tmp_path}/app.env does not connect: ")
    assert len(done.stderr.splitlines()) <= 1
