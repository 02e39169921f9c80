"""Facts of a host for the role occupancy, as one JSON object. Reads only.

Ansible passes this file to the host's /usr/bin/python3 (3.10 or later) on standard input, with the request as
a JSON argument. It uses the standard library, and psycopg2 if the host has it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DISTRIBUTIONS = {"debian": "Debian", "raspbian": "Debian", "ubuntu": "Ubuntu"}  # by ID of os-release
COMPOSE = ("project", "project.working_dir", "service", "oneoff", "config-hash", "image")  # labels
SSL_REQUEST = struct.pack("!II", 8, 80877103)  # PostgreSQL's message

ROOMS = "SELECT enumlabel::text FROM pg_enum WHERE enumtypid = to_regtype('public.room_type')"
LABELS = "SELECT room, label FROM public.rooms WHERE label IS NOT NULL"
SENSORS = "SELECT DISTINCT entity FROM public.sensors"
REVISIONS = "SELECT version_num::text, obj_description(tableoid, 'pg_class') FROM public.alembic_version"
TIME_ZONE = "SELECT time_zone FROM hourly.home"
TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
"""What the database holds. The superuser reads tables only: a view would run functions of its owner."""


def main() -> None:
    """Print the facts. With `only: server` in the request, exit with 1 if the server does not answer."""
    request = json.loads(sys.argv[1])
    if request.get("only") == "server":
        facts = server_facts(request)
        print(json.dumps(facts))
        sys.exit(0 if facts["server"] else 1)
    facts = {
        **machine_facts(Path(request["data_dir"])),
        **distribution_facts(),
        **cluster_facts(request),
        **engine_facts(request),
        "accounts": {
            str(uid): (run("getent", "passwd", str(uid)) or "").split(":")[0] for uid in request["ids"]
        },
        "subuid": read("/etc/subuid"),
        "engine_kind": engine_kind(),
        **tls_facts(request),
        **server_facts(request),
        "files": file_facts(request["files"]),
        "missing": missing_packages(request["packages"]),
        "units": {name: unit_facts(name, program) for name, program in request["units"].items()},
        "kernel": kernel_facts(),
        "memory_controller": memory_controller(
            read("/sys/fs/cgroup/cgroup.controllers"), read("/proc/cgroups")
        ),
        "listeners": listeners(int(request["port"])) if str(request["port"]).isdigit() else [],
    }
    print(json.dumps(facts))


def run(*command: str, seconds: float = 20) -> str | None:
    """The standard output of a program, or None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read(path: Path | str) -> str:
    """The content of a text file, or the empty string if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def settings_of(text: str) -> dict[str, str]:
    """The assignments of a file like .env or os-release, without quotes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def nearest_directory(path: Path) -> Path:
    """The path, or its nearest parent that is a directory."""
    return path if path.is_dir() or path == path.parent else nearest_directory(path.parent)


def machine_facts(data_dir: Path) -> dict[str, Any]:
    """Memory, cores, the disk that the data are on, and the address that the host uses by default."""
    memory = re.search(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"), re.MULTILINE)
    directory = nearest_directory(data_dir)
    disk = shutil.disk_usage(directory)
    device = directory.stat().st_dev
    # A partition's disk is the directory above it. An overlay has none.
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    mount = run("findmnt", "-nro", "FSTYPE,OPTIONS", "-T", str(directory)) or ""
    kind, _, options = mount.strip().partition(" ")
    rotational = read(block / "queue/rotational") or read(block.parent / "queue/rotational")
    return {
        "memory_mb": int(memory[1]) // 1024 if memory else 0,
        "cores": len(os.sched_getaffinity(0)),
        "device": block.name,
        "rotational": int(rotational.strip() or 0),
        # As df rounds them
        "disk_mb": -(-disk.total // 2**20),
        "free_mb": -(-disk.free // 2**20),
        "file_system": kind,
        "mount_options": options,
        "default_ipv4": default_ipv4(),
        "architecture": (run("dpkg", "--print-architecture") or "").strip(),
        "service_mgr": "systemd" if Path("/run/systemd/system").is_dir() else read("/proc/1/comm").strip(),
    }


def memory_controller(controllers: str, cgroups: str) -> bool:
    """Whether the kernel can limit memory, by cgroup.controllers or /proc/cgroups."""
    listed = re.search(r"^memory\t.*\t1$", cgroups, re.MULTILINE)
    return bool("memory" in controllers.split() or listed or not (controllers or cgroups))


def default_ipv4() -> str:
    """The source address of the host's default route, empty without a route."""
    # A UDP socket sends nothing when it connects.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("8.8.8.8", 53))
        return str(probe.getsockname()[0])
    return ""


def distribution_facts() -> dict[str, str]:
    """The distribution's name, release and version by os-release."""
    found = settings_of(read("/etc/os-release"))
    return {
        "distribution": DISTRIBUTIONS.get(found.get("ID", ""), found.get("NAME", "unknown")),
        "distribution_release": found.get("VERSION_CODENAME", ""),
        "distribution_version": found.get("VERSION_ID", ""),
    }


def cluster_facts(request: dict[str, Any]) -> dict[str, Any]:
    """The cluster's version, whether the host has had one, and the variables of the Compose project."""
    pgdata = Path(request["data_dir"]) / "pgdata"
    version = read(pgdata / "PG_VERSION").strip()
    if not version and pgdata.is_dir() and any(pgdata.iterdir()):
        version = "none, but the directory is not empty"
    project = settings_of(read(Path(request["dir"]) / ".env"))
    return {
        "cluster_version": version,
        "initialised": Path(request["initialised"]).exists(),
        # The tools' image (until role migrations replaces it), the release's brought last, the server's
        "ops_image": project.get("OCCUPANCY_OPS_IMAGE", ""),
        "release_image": project.get("OCCUPANCY_RELEASE_IMAGE", ""),
        "postgres_image": project.get("OCCUPANCY_POSTGRES_IMAGE", ""),
        "project": project,
    }


def engine_facts(request: dict[str, Any]) -> dict[str, Any]:
    """The version of a usable engine (with Compose v2), its images, containers and networks."""
    if shutil.which("docker") is None:
        return {"engine": "", "images": [], "containers": [], "networks": {}, "container": {}}
    version = run("docker", "info", "--format", "{{.ServerVersion}}")
    tools = version and run("docker", "compose", "version")
    listed = run("docker", "ps", "--all", "--no-trunc", "--format", "{{json .}}") or ""  # digests, too
    containers = [read_container(json.loads(line)) for line in listed.splitlines()]
    networks = run("docker", "network", "ls", "--format", '{{.Name}}={{.Label "com.docker.compose.project"}}')
    images = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}") or ""
    return {
        "engine": (version or "").strip() if tools else "",
        "images": [name for name in images.split() if "<none>" not in name],
        "containers": containers,
        "networks": dict(line.split("=", 1) for line in (networks or "").splitlines()),
        "container": container_facts(request, containers),
    }


def engine_kind(
    configuration: Path = Path("/etc/docker/daemon.json"), process: Path = Path("/run/docker.pid")
) -> list[str]:
    """What the engine is that the product does not work with: userns-remap, rootless, snap, no-iptables."""
    if shutil.which("docker") is None:
        return []
    said = run("docker", "info", "--format", "{{.DockerRootDir}} {{json .SecurityOptions}}") or ""
    found = {"userns-remap": "name=userns", "rootless": "name=rootless", "snap": "/var/snap/"}
    kinds = [kind for kind, mark in found.items() if mark in said]
    with contextlib.suppress(ValueError, AttributeError):  # no file, or no JSON object: the engine reports it
        if json.loads(read(configuration)).get("iptables") is False:
            kinds.append("no-iptables")
    if "--iptables=false" in read(Path("/proc") / read(process).strip() / "cmdline").split("\0"):
        kinds.append("no-iptables")
    return kinds


def read_container(shown: dict[str, str]) -> dict[str, Any]:
    """A container as `docker ps` prints it: the labels of Compose (each empty if there is none), and more."""
    found = dict(pair.split("=", 1) for pair in shown["Labels"].split(",") if "=" in pair)
    return {
        **{name: found.get(f"com.docker.compose.{name}", "") for name in COMPOSE},
        "name": shown["Names"],
        "ports": shown["Ports"],
        "networks": shown["Networks"].split(","),
        "running": shown["State"] == "running",
        "source": shown["Image"],
    }


def container_facts(request: dict[str, Any], containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the server's container runs, and has the project's present configuration, image and name."""
    for found in containers:
        server = (found["project.working_dir"], found["service"], found["oneoff"])  # names are not unique
        if server != (request["dir"], "postgres", "False"):
            continue
        compose = ("docker", "compose", "--project-directory", request["dir"])
        hashed = run(*compose, "config", "--hash", "postgres")
        image = (run("docker", "image", "inspect", "--format", "{{.Id}}", found["source"]) or "").strip()
        wanted = ((hashed or "").split()[1:], image, request["project"])
        current = wanted == ([found["config-hash"]], found["image"], found["project"])
        return {"running": found["running"], "current": current, "project": found["project"]}
    return {"running": False, "current": False, "project": ""}


def tls_facts(request: dict[str, Any]) -> dict[str, Any]:
    """The certificate on disk, the CA's, and the fingerprint of the certificate that the server presents."""
    directory = Path(request["dir"]) / "tls"
    served = ""
    if (directory / "ca.crt").exists():
        with contextlib.suppress(OSError, OverflowError, ValueError):  # no answer, another CA, no port
            served = served_fingerprint(request["client_host"], int(request["port"]), directory / "ca.crt")
    return {
        "certificate": certificate(directory / "server.pem"),
        "ca": read(directory / "ca.crt"),
        "served": served,
    }


def certificate(path: Path) -> dict[str, str]:
    """The fingerprint of a certificate; nothing without one or openssl."""
    said = run("openssl", "x509", "-in", str(path), "-noout", "-fingerprint", "-sha256")
    found = re.search(r"^sha256 Fingerprint=(.+)$", said or "", re.MULTILINE | re.IGNORECASE)
    return {"fingerprint": found[1].replace(":", "").lower()} if found else {}


def served_fingerprint(host: str, port: int, ca: Path) -> str:
    """The SHA-256 fingerprint of the certificate that the server presents, verified against the CA.

    Raises:
        OSError: The server does not answer, or its certificate is not of this CA.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False  # the address is the host's own
    with socket.create_connection((host, port), timeout=5) as plain:
        plain.sendall(SSL_REQUEST)
        if plain.recv(1) != b"S":
            return ""
        with context.wrap_socket(plain) as encrypted:
            return hashlib.sha256(encrypted.getpeercert(binary_form=True) or b"").hexdigest()


def file_facts(patterns: list[str]) -> dict[str, dict[str, Any]]:
    """Type, owner, mode and SHA-256 of the files and directories that match the patterns, by path."""
    found = {}
    for path in sorted({str(path) for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))}):
        with contextlib.suppress(OSError):  # removed meanwhile
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            found[path] = {
                "type": "file" if regular else "directory" if stat.S_ISDIR(status.st_mode) else "other",
                "uid": status.st_uid,
                "gid": status.st_gid,
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
                "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest() if regular else "",
            }
    return found


def missing_packages(names: list[str]) -> list[str]:
    """The packages that are not installed."""
    command = ["dpkg-query", "--show", "--showformat", "${binary:Package} ${db:Status-Status}\n", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 # fails if one is unknown
    installed = {
        line.split()[0].split(":")[0] for line in done.stdout.splitlines() if line.endswith(" installed")
    }
    return [name for name in names if name not in installed]


def unit_facts(name: str, program: str) -> dict[str, bool]:
    """Whether a service runs and starts at boot. Without systemd, both are true if its process runs."""
    if Path("/run/systemd/system").is_dir():
        # Both exit with a code above 0 where one answer is no.
        return {
            "running": run("systemctl", "is-active", name) is not None,
            "enabled": run("systemctl", "is-enabled", name) is not None,
        }
    running = False
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):  # ended meanwhile
            running = running or os.path.realpath(link) == os.path.realpath(program)
    return {"running": running, "enabled": running}


def kernel_facts() -> dict[str, Any]:
    """The kernel's vm.* settings, and the kind of container that the host is (empty if it is none)."""
    kind = (run("systemd-detect-virt", "--container") or "").strip()
    if kind in ("", "none"):
        kind = "docker" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else ""
    settings = {}
    for path in sorted(Path("/proc/sys/vm").iterdir()):
        if value := read(path).replace("\t", " ").strip():
            settings[f"vm.{path.name}"] = {"value": value, "writable": os.access(path, os.W_OK)}
    return {"container": kind, "settings": settings}


def listeners(port: int) -> list[str] | None:
    """Address and process of each listener on the port. None if the host has no ss."""
    said = run("ss", "-Hltnp", f"sport = :{port}")
    fields = (line.replace('"', "").split() for line in (said or "").splitlines())
    return None if said is None else [" ".join([field[3], *field[5:6]]) for field in fields if len(field) > 3]


def server_facts(request: dict[str, Any]) -> dict[str, Any]:
    """The state of the running server; `server` is None if it does not answer, with the reason beside it."""
    try:
        import psycopg2  # only where a run before this one has installed it
    except ImportError:
        return {"server": None, "server_error": "the host has no python3-psycopg2 yet"}
    try:
        (state,) = query(request, "postgres", request["server_query"])[0]
    except psycopg2.Error as error:
        return {"server": None, "server_error": str(error).strip()}
    state |= {"rooms": {}, "sensors": [], "revisions": [], "time_zone": ""}
    if request["database"] in state["databases"]:
        with contextlib.suppress(psycopg2.Error):  # it is being replaced by a restore
            state |= schema_facts(lambda statement: query(request, request["database"], statement))
    for name, role in state["roles"].items():
        role["password_is_kept"] = matches(
            read(Path(request["dir"]) / "secrets" / name), role.pop("secret") or ""
        )
    return {"server": state, "server_error": ""}


def schema_facts(ask: Callable[[str], list[tuple[Any, ...]]]) -> dict[str, Any]:
    """Rooms with labels (None without), sensors, revisions with Alembic's comment, and the time zone."""
    tables = {name for (name,) in ask(TABLES)}
    labels = dict(ask(LABELS)) if "public.rooms" in tables else {}
    return {
        "rooms": {name: labels.get(name) for (name,) in ask(ROOMS)},
        "sensors": [entity for (entity,) in ask(SENSORS)] if "public.sensors" in tables else [],
        "revisions": ask(REVISIONS) if "public.alembic_version" in tables else [],
        "time_zone": ask(TIME_ZONE)[0][0] if "hourly.home" in tables else "",
    }


def query(request: dict[str, Any], database: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement that only reads, as the superuser.

    Raises:
        psycopg2.Error: The server does not answer, or refuses the statement.
    """
    import psycopg2

    connection = psycopg2.connect(
        host=f"{request['run_dir']}/postgresql",
        user="postgres",
        dbname=database,
        connect_timeout=3,
        application_name="occupancy probe",
        options="-c default_transaction_read_only=on -c statement_timeout=10s -c search_path=pg_catalog",
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    finally:
        connection.close()


def matches(password: str, secret: str) -> bool:
    """Whether a SCRAM secret of pg_authid belongs to the password (RFC 5803; ASCII passwords only)."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", secret)
    if not found or not password or not password.isascii():
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(key, base64.b64decode(found[3]))


if __name__ == "__main__":
    main()
