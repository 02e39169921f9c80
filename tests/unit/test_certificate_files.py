"""The command of role tls on files that are damaged, and when it runs twice at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from provisioning.variables import ROLES

SCRIPT = ROLES / "tls/files/occupancy-certificate.py"
NEEDS = "import cryptography, psycopg2"


@pytest.fixture(params=[sys.executable, "/usr/bin/python3"], ids=["environment", "distribution"])
def python(request: pytest.FixtureRequest) -> str:
    """A Python: a host has the distribution's cryptography, which is older than the environment's."""
    found: str = request.param
    if not Path(found).exists() or subprocess.run([found, "-c", NEEDS], check=False).returncode:
        pytest.skip(f"{found} lacks python3-cryptography or python3-psycopg2")
    return found


@pytest.fixture
def host(tmp_path: Path, python: str) -> Path:
    """A directory as that of a host, with the request of the scheduled job."""
    for name in ("ca", "tls", "metrics"):
        (tmp_path / name).mkdir()
    request = {
        "dir": str(tmp_path), "data_dir": str(tmp_path), "run_dir": str(tmp_path / "nowhere"),
        "uid": tmp_path.stat().st_uid, "name": "home", "names": ["home"], "days": 825, "renew_days": 275,
        "operator": False,
    }  # fmt: skip
    (tmp_path / "ca/request.json").write_text(json.dumps(request))
    (tmp_path / "python").symlink_to(python)
    return tmp_path


def start(host: Path, *, role: bool = True, **changes: Any) -> subprocess.Popen[str]:
    """Start the command, as the role or as the job."""
    path = host / "ca/request.json"
    argument = json.dumps(json.loads(path.read_text()) | changes) if role else str(path)
    return subprocess.Popen(
        [(host / "python").readlink(), SCRIPT, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, errors = process.communicate(timeout=120)
    return process.returncode, said, errors


def test_role_and_job_at_once_make_one_ca_and_one_whole_certificate(host: Path) -> None:
    running = [start(host, role=number % 2 == 0, renew=True) for number in range(6)]
    results = [end(process) for process in running]
    assert [(code, errors) for code, _, errors in results] == [(0, "")] * 6
    assert sum(said.count("a CA was created") for _, said, _ in results) == 1
    assert sorted(path.name for path in host.glob("ca/*")) == ["ca.crt", "ca.key", "request.json"]
    pair = (host / "tls/server.pem").read_bytes()
    key = serialization.load_pem_private_key(pair[pair.index(b"-----BEGIN PRIVATE") :], None)
    assert x509.load_pem_x509_certificate(pair).public_key() == key.public_key()
    assert sorted(path.name for path in host.glob("tls/.*")) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "another", "no certificate"])
def test_a_ca_without_its_key_is_named_with_what_to_do(host: Path, damage: str) -> None:
    assert end(start(host))[0] == 0
    served = (host / "tls/server.pem").read_bytes()
    key = host / "ca/ca.key"
    match damage:
        case "missing":
            key.unlink()
        case "empty":
            key.write_text("")
        case "another":
            pair = (host / "tls/server.pem").read_text()
            key.write_text(pair[pair.index("-----BEGIN PRIVATE") :])
        case "no certificate":
            (host / "ca/ca.crt").write_text("")
    for role in (True, False):
        code, _, errors = end(start(host, role=role))
        assert code == 1
        assert "Traceback" not in errors
        assert f"The CA {host}/ca/ca.crt and its key cannot be used: " in errors
        assert "or move them away" in errors
    assert (host / "tls/server.pem").read_bytes() == served

    (host / "ca/ca.crt").rename(host / "ca/old")  # as the message says
    key.unlink(missing_ok=True)
    code, said, _ = end(start(host))
    assert code == 0
    assert "a CA was created" in said
    assert json.loads(end(start(host))[1])["changed"] == []


def test_a_server_certificate_that_cannot_be_read_is_issued_again(host: Path) -> None:
    assert end(start(host))[0] == 0
    for text in ("", "-----BEGIN CERTIFICATE-----\nhalf\n-----END CERTIFICATE-----\n"):
        (host / "tls/server.pem").write_text(text)
        code, said, errors = end(start(host))
        assert code == 0, errors
        assert "there was none that can be read" in said
