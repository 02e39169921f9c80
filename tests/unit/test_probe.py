"""The facts of a host, read from files and programs that the test provides."""

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme

from provisioning import project
from provisioning.variables import ROLES

SCRIPT = ROLES / "occupancy/files/probe.py"


def load() -> ModuleType:
    spec = spec_from_file_location("probe", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


probe = load()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a directory first in PATH, and return a function that writes a program there."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def write(name: str, text: str) -> None:
        path = directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return write


def run_probe(request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the probe as Ansible does: the program on standard input, the request as an argument."""
    return subprocess.run(
        [sys.executable, "-", json.dumps(request)],
        input=SCRIPT.read_text(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_facts_of_this_machine_are_one_json_object(tmp_path: Path) -> None:
    request = {
        "dir": str(tmp_path / "opt"),
        "data_dir": str(tmp_path / "data"),
        "run_dir": str(tmp_path / "run"),
        "client_host": "127.0.0.1",
        "port": "many",  # preflight judges it, not the probe
        "initialised": str(tmp_path / "opt/initialised"),
        "packages": ["no-such-package"],
        "ids": [0, 4_000_000_000],
        "units": {"no-such-unit": "/nonexistent"},
        "files": [str(tmp_path / "*")],
        "server_query": "",
    }
    said = run_probe(request)
    assert said.returncode == 0, said.stderr
    facts = json.loads(said.stdout)
    assert facts["accounts"] == {"0": "root", "4000000000": ""}
    assert facts["memory_mb"] > 100
    assert facts["cores"] >= 1
    assert facts["disk_mb"] >= facts["free_mb"] > 0
    assert facts["distribution"]
    assert facts["missing"] == ["no-such-package"]
    assert facts["units"] == {"no-such-unit": {"running": False, "enabled": False}}
    assert (facts["cluster_version"], facts["initialised"], facts["server"]) == ("", False, None)
    assert facts["certificate"] == {}
    assert facts["files"] == {}
    assert facts["file_system"]
    assert facts["memory_controller"] is True
    assert "vm.swappiness" in facts["kernel"]["settings"]


def test_the_memory_controller_of_a_kernel() -> None:
    disabled = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t80\t0\ncpu\t0\t80\t1\n"
    assert not probe.memory_controller("cpuset cpu io pids\n", disabled)
    assert not probe.memory_controller("", disabled)
    assert probe.memory_controller("cpuset cpu io memory pids\n", "")
    assert probe.memory_controller("", disabled.replace("80\t0", "80\t1"))
    assert probe.memory_controller("", "")


def test_a_missing_server_ends_with_exit_code_1(tmp_path: Path) -> None:
    request = {"only": "server", "dir": str(tmp_path), "run_dir": str(tmp_path), "server_query": "SELECT 1"}
    said = run_probe(request)
    assert said.returncode == 1
    facts = json.loads(said.stdout)
    assert facts["server"] is None
    assert "No such file or directory" in facts["server_error"]


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({}, ""),
        ({"PG_VERSION": "16\n"}, "16"),
        ({"PG_VERSION": "15\n"}, "15"),
        ({"holiday.jpg": ""}, "none, but the directory is not empty"),
    ],
)
def test_the_version_of_a_cluster(tmp_path: Path, files: dict[str, str], version: str) -> None:
    (tmp_path / "pgdata").mkdir()
    for name, text in files.items():
        (tmp_path / "pgdata" / name).write_text(text)
    (tmp_path / ".env").write_text("# OCCUPANCY_OPS_IMAGE=none\nOCCUPANCY_OPS_IMAGE=ops:1\n")
    (tmp_path / "initialised").touch()
    request = {
        "data_dir": str(tmp_path),
        "dir": str(tmp_path),
        "initialised": str(tmp_path / "initialised"),
    }
    assert probe.cluster_facts(request) == {
        "cluster_version": version,
        "initialised": True,
        "ops_image": "ops:1",
        "release_image": "",
        "postgres_image": "",
        "project": {"OCCUPANCY_OPS_IMAGE": "ops:1"},
    }


def test_files_have_owner_mode_and_hash(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("content")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("/etc/shadow")
    found = probe.file_facts([str(tmp_path / "*"), str(tmp_path / "secret"), "/nonexistent/*"])
    assert found[str(tmp_path / "secret")] == {
        "type": "file",
        "uid": os.getuid(),
        "gid": os.getgid(),
        "mode": "0600",
        "sha256": hashlib.sha256(b"content").hexdigest(),
    }
    assert found[str(tmp_path / "folder")]["type"] == "directory"
    assert (found[str(tmp_path / "link")]["type"], found[str(tmp_path / "link")]["sha256"]) == ("other", "")
    assert len(found) == 3


DOCKER = """case "$*" in
info*) {info} ;;
"compose version"*) {compose} ;;
"buildx version"*) {buildx} ;;
"ps --all --no-trunc "*) cat {listed} ;;
"network ls "*) printf 'bridge=\\noccupancy=occupancy\\noccupancy_default=occupancy\\n' ;;
"images "*) printf 'occupancy-ops:1\\n<none>:<none>\\n' ;;
"compose --project-directory"*) echo postgres {hashed} ;;
"image inspect"*) echo {image} ;;
esac"""
LABELS = (
    "com.docker.compose.project=occupancy-database,com.docker.compose.project.working_dir=/opt/occupancy,"
    "com.docker.compose.service=postgres,com.docker.compose.oneoff=False,"
    "com.docker.compose.config-hash=abc,com.docker.compose.image=sha256:1"
)
CONTAINER = {
    "Names": "occupancy-postgres-1",
    "Ports": "127.0.0.1:5432->5432/tcp",
    "State": "running",
    "Image": "occupancy-postgres:1",
    "Labels": LABELS,
    "Networks": "occupancy",
}
FORMER = CONTAINER | {"Labels": LABELS.replace("project=occupancy-database", "project=occupancy")}
OTHER = CONTAINER | {
    "Names": "occupancy-app-1",
    "Ports": "",
    "Labels": FORMER["Labels"].replace("/opt/", "/home/me/"),
    "Networks": "occupancy_default",
}


def docker(programs: Any, tmp_path: Path, *containers: dict[str, str], **answers: str) -> dict[str, Any]:
    """The facts of an engine that gives these answers."""
    listed = tmp_path / "containers"
    listed.write_text("".join(f"{json.dumps(each)}\n" for each in containers))
    good = {
        "info": "echo 27.1",
        "compose": "true",
        "buildx": "echo v0.1",
        "hashed": "abc",
        "image": "sha256:1",
    }
    good["compose"] = "echo v2"
    programs("docker", DOCKER.format(listed=listed, **(good | answers)))
    facts: dict[str, Any] = probe.engine_facts(
        {"port": 5432, "dir": "/opt/occupancy", "project": "occupancy-database"}
    )
    return facts


def test_an_engine_with_the_servers_container(programs: Any, tmp_path: Path) -> None:
    assert docker(programs, tmp_path, CONTAINER) == {
        "engine": "27.1",
        "images": ["occupancy-ops:1"],
        "containers": [
            {
                "name": "occupancy-postgres-1",
                "ports": "127.0.0.1:5432->5432/tcp",
                "networks": ["occupancy"],
                "running": True,
                "source": "occupancy-postgres:1",
                "project": "occupancy-database",
                "project.working_dir": "/opt/occupancy",
                "service": "postgres",
                "oneoff": "False",
                "config-hash": "abc",
                "image": "sha256:1",
            }
        ],
        "networks": {"bridge": "", "occupancy": "occupancy", "occupancy_default": "occupancy"},
        "container": {"running": True, "current": True, "project": "occupancy-database"},
    }


def test_the_container_under_the_former_name_of_the_project_is_found_beside_those_of_others(
    programs: Any, tmp_path: Path
) -> None:
    facts = docker(programs, tmp_path, OTHER, FORMER)
    assert facts["container"] == {"running": True, "current": False, "project": "occupancy"}
    # The network of the application stays.
    found = project.former(facts, "/opt/occupancy", "occupancy-database")
    assert found == {"containers": ["occupancy-postgres-1"], "networks": ["occupancy"]}


def test_a_job_that_runs_under_the_former_name_of_the_project_is_left_alone(
    programs: Any, tmp_path: Path
) -> None:
    job = FORMER | {"Labels": FORMER["Labels"].replace("oneoff=False", "oneoff=True")}
    facts = docker(programs, tmp_path, job, CONTAINER)
    assert project.former(facts, "/opt/occupancy", "occupancy-database") == {"containers": [], "networks": []}


@pytest.mark.parametrize("answer", [{"info": "exit 1"}, {"compose": "exit 1"}])
def test_an_engine_without_compose_is_not_usable(
    programs: Any, tmp_path: Path, answer: dict[str, str]
) -> None:
    assert docker(programs, tmp_path, **answer)["engine"] == ""


@pytest.mark.parametrize(
    ("changes", "answers", "container"),
    [
        ({}, {"hashed": "other"}, {"running": True, "current": False}),
        ({}, {"image": "sha256:2"}, {"running": True, "current": False}),
        ({"State": "exited", "Ports": ""}, {}, {"running": False, "current": True}),
        ({"Labels": LABELS.replace("=postgres", "=ops")}, {}, {"running": False, "current": False}),
    ],
)
def test_a_container_that_differs_from_the_project(
    programs: Any,
    tmp_path: Path,
    changes: dict[str, str],
    answers: dict[str, str],
    container: dict[str, bool],
) -> None:
    found = docker(programs, tmp_path, CONTAINER | changes, **answers)["container"]
    assert found | {"project": ""} == container | {"project": ""}


def test_listeners_are_named_with_their_process(programs: Any) -> None:
    programs("ss", """echo 'LISTEN 0 128 127.0.0.1:5432 0.0.0.0:* users:(("python3",pid=7,fd=4))'""")
    assert probe.listeners(5432) == ["127.0.0.1:5432 users:((python3,pid=7,fd=4))"]
    programs("ss", "exit 127")
    assert probe.listeners(5432) is None


@pytest.mark.parametrize(
    ("info", "configuration", "kinds"),
    [
        ('/var/lib/docker ["name=apparmor","name=seccomp,profile=builtin","name=cgroupns"]', "", []),
        ('/var/lib/docker/165536.165536 ["name=seccomp","name=userns"]', "{}", ["userns-remap"]),
        ('/home/pi/.local/share/docker ["name=rootless"]', "", ["rootless"]),
        ('/var/snap/docker/common/var-lib-docker ["name=apparmor"]', "", ["snap"]),
        ("/var/lib/docker []", '{"iptables": false, "log-driver": "local"}', ["no-iptables"]),
        ("/var/lib/docker []", '{"iptables": true}', []),
        ("/var/lib/docker []", "no JSON", []),
    ],
)
def test_the_kinds_of_engines(
    programs: Any, tmp_path: Path, info: str, configuration: str, kinds: list[str]
) -> None:
    programs("docker", f"echo '{info}'")
    (tmp_path / "daemon.json").write_text(configuration)
    assert probe.engine_kind(tmp_path / "daemon.json", tmp_path / "missing.pid") == kinds


def test_an_engine_that_was_started_without_iptables(programs: Any, tmp_path: Path) -> None:
    programs("docker", "echo '/var/lib/docker []'")
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "--iptables=false"], stdin=subprocess.PIPE
    ) as engine:
        (tmp_path / "docker.pid").write_text(f"{engine.pid}\n")
        assert probe.engine_kind(tmp_path / "missing.json", tmp_path / "docker.pid") == ["no-iptables"]
        engine.communicate(b"\n")


def test_packages_that_are_removed_but_configured_are_missing(programs: Any) -> None:
    programs("dpkg-query", "printf 'cron installed\\nopenssl:amd64 installed\\nage config-files\\n'; exit 1")
    assert probe.missing_packages(["cron", "openssl", "age", "rclone"]) == ["age", "rclone"]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def test_a_certificate_has_a_fingerprint(tmp_path: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("home.example", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    found = probe.certificate(tmp_path / "server.pem")
    assert len(found["fingerprint"]) == 64
    assert probe.certificate(tmp_path / "missing.pem") == {}


@pytest.mark.parametrize("trusted", [True, False])
def test_the_served_certificate_is_verified(tmp_path: Path, authority: trustme.CA, trusted: bool) -> None:
    import ssl

    issued = authority.issue_cert("home.example")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "ca.crt")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(8) == probe.SSL_REQUEST
                connection.sendall(b"S")
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:  # the client does not trust it
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            arguments = ("127.0.0.1", listener.getsockname()[1], tmp_path / "ca.crt")
            if trusted:
                expected = probe.certificate(tmp_path / "server.pem")["fingerprint"]
                assert probe.served_fingerprint(*arguments) == expected
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    probe.served_fingerprint(*arguments)
        finally:
            thread.join()


def scram(password: str) -> str:
    """A secret as PostgreSQL stores it (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt-of-16-bytes", 4096)
    key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    salt, stored = (base64.b64encode(value).decode() for value in (b"salt-of-16-bytes", key))
    return f"SCRAM-SHA-256$4096:{salt}${stored}:unused"


def test_a_password_is_compared_with_its_secret() -> None:
    assert probe.matches("p@ss 'word'", scram("p@ss 'word'"))
    assert not probe.matches("another", scram("p@ss 'word'"))
    assert not probe.matches("", scram(""))
    assert not probe.matches("password", "md5abc")
    assert not probe.matches("password", "")
