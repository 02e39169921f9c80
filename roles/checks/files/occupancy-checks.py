#!/usr/bin/python3
"""occupancy-checks COMMAND [--request=FILE]: what the checks need to know of the host, and their job.

    collect         write what was found to status/host.json; exit with 1 if the Docker Engine does not answer
    run             the job: evaluate the checks, write status/status.json and the metrics, send messages
    without-engine  print what is known without the engine, with --json as 'occupancy-db status --json' does

FILE is written by role checks. Runs as root on the host, and reads only, except for its own files. The
evaluation itself is occupancy_db.checks, in a container without network, which sees none of this.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

REQUEST = Path("/opt/occupancy/checks.json")
CRON = Path("/etc/cron.d")
TOOLS = "/usr/local/bin/occupancy-db"

RESULTS = Path("metrics/occupancy_check_results.prom")
"""The results as metrics. occupancy_checks.prom has those of the job itself."""

HOUR, DAY = 3600, 86400
SAMPLES_EVERY, SAMPLES_KEPT = 3 * HOUR, 30 * DAY
"""How often the free space of the disks is kept, and for how long."""

MOST_MISSED = 99
LONGEST_SCHEDULE = 70
"""Days in which missed runs are looked for; a monthly run is among them."""

READ_AT_MOST = 1_000_000
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
LEVELS = ["skipped", "good", "warning", "bad"]
JOB = re.compile(r"^((?:\S+ ){5})root occupancy-job (\S+) (\d+) ", re.MULTILINE)
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def main(command: str, *arguments: str) -> int:
    """Run a command and return the exit code."""
    path = next((Path(one[10:]) for one in arguments if one.startswith("--request=")), REQUEST)
    request = json.loads(path.read_text(encoding="utf-8"))
    if command == "collect":
        return 1 if collect(request)["engine"] else 0
    if command == "without-engine":
        return without_engine(request, "--json" in arguments)
    if command != "run":
        sys.exit(__doc__)
    code = run(request)
    with suppress(OSError, subprocess.TimeoutExpired):  # also without results: then it reports that
        subprocess.run([TOOLS, "notify", "send"], stdin=subprocess.DEVNULL, timeout=70, check=False)  # noqa: S603
    return code


def collect(request: dict[str, Any]) -> dict[str, Any]:
    """Write the document of the host, and return it."""
    data = Path(request["data_dir"])
    settings = dict(re.findall(r"^(OCCUPANCY_\w+)=(.*)$", read(Path(request["dir"], ".env")), re.MULTILINE))
    engine, containers, images = engine_facts(request["dir"], settings)
    samples = metrics(data / "metrics")
    now = time.time()
    names = ",".join(settings.get(f"OCCUPANCY_{key}", "") for key in ("DATABASE", "OTHER_DATABASES"))
    initialised = Path(request["dir"], "initialised")
    document = {
        "time": moment(now),
        "host": request["host"],
        "installed": moment(initialised.stat().st_mtime) if initialised.exists() else None,
        "interval": request["interval"],
        "cron": cron_runs(),
        "synchronised": synchronised(),
        "engine": engine,
        "databases": [name for name in names.split(",") if name],
        "offsite": any(name == "offsite" for _, name, _, _ in schedules()),
        "jobs": [job(*one, samples, now) for one in schedules()],
        "disks": disks(data, Path(request["dir"]), now),
        "certificates": certificates(Path(request["dir"], "tls")),
        "containers": containers,
        "images": images,
        "metrics": samples,
        "users": users(Path(request["dir"], "users.json")),
        "notify": notifications(data / "notify/state.json"),
    }
    write(data / "status/host.json", json.dumps(document))
    return document


def run(request: dict[str, Any]) -> int:
    """The job: let the container evaluate the checks, and keep the results."""
    command = [TOOLS, "--json", "status", "--scheduled"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        status = json.loads(done.stdout)
        levels = {one["name"]: one["level"] for one in status["checks"]}
        text = metric_text(status)
    except (ValueError, KeyError, TypeError):
        print(f"<3>the checks were not evaluated: {(done.stderr or done.stdout).strip()[-1000:]}")
        return done.returncode or 1
    data = Path(request["data_dir"])
    write(data / "status/status.json", done.stdout)
    write(data / RESULTS, text)
    for level, priority in (("bad", 4), ("warning", 5)):
        if names := [name for name, found in levels.items() if found == level]:
            print(f"<{priority}>{level}: {', '.join(names)}")
    return 0


def metric_text(status: dict[str, Any]) -> str:
    """The results as metrics, except those of checks that were skipped."""
    made = [one for one in status["checks"] if one["level"] != "skipped"]
    level, value = "occupancy_check_level", "occupancy_check_value"
    when = "occupancy_checks_timestamp_seconds"
    lines = [f"# HELP {level} Result of a check: 1 good, 2 warning, 3 bad.", f"# TYPE {level} gauge"]
    lines += [f'{level}{{check="{one["name"]}"}} {LEVELS.index(one["level"])}' for one in made]
    lines += [f"# HELP {value} What a check has measured, in its own unit.", f"# TYPE {value} gauge"]
    lines += [f'{value}{{check="{one["name"]}"}} {one["value"]}' for one in made if one["value"] is not None]
    seconds = datetime.fromisoformat(status["time"]).timestamp()
    lines += [f"# HELP {when} When they were made.", f"# TYPE {when} gauge", f"{when} {seconds:.0f}"]
    return "\n".join(lines) + "\n"


def without_engine(request: dict[str, Any], as_json: bool) -> int:
    """Print what is bad without an engine, in the form of the container; the exit code is that of bad."""
    document = json.loads(read(Path(request["data_dir"], "status/host.json")) or "{}")
    before = json.loads(read(Path(request["data_dir"], "status/status.json")) or '{"checks": []}')
    why = document.get("engine") or "it does not answer"
    found = {one["name"]: ("skipped", "needs the Docker Engine") for one in before["checks"]}
    found["container"] = ("bad", f"the Docker Engine does not answer: {why}")
    found["server"] = ("bad", "runs in the Docker Engine, which does not answer")
    if not document.get("cron", True):
        found["cron"] = ("bad", "does not run: no job is started")
    since = {one["name"]: one["since"] for one in before["checks"] if one["level"] == found[one["name"]][0]}
    now = moment(time.time())
    checks = [
        {"name": name, "level": level, "summary": summary, "details": [], "value": None,
         "since": since.get(name, now)}
        for name, (level, summary) in found.items()
    ]  # fmt: skip
    status = {
        "time": now,
        "host": request["host"],
        "release": before.get("release", ""),
        "interval": request["interval"],
        "level": "bad",
        "checks": checks,
    }
    if as_json:
        print(json.dumps(status))
        return 21
    print(f"{request['host']}: BAD, {now[:16].replace('T', ' ')} UTC\n")
    for one in checks:
        if one["level"] == "bad":
            print(f"bad      {one['name']:<11}{one['summary']}")
    print("\n         sudo systemctl start docker; sudo journalctl -u docker --since -1h")
    print("         docs/troubleshooting.md\n\nThe other checks need the engine.")
    return 21


def engine_facts(
    directory: str, settings: dict[str, str]
) -> tuple[str, list[dict[str, Any]], list[dict[str, str]]]:
    """Why the engine does not answer, the containers of the product, and the age of its images."""
    ours = f"label=com.docker.compose.project.working_dir={directory}"
    found = docker(
        "ps", "--all", "--quiet", "--filter", ours, "--filter", "label=com.docker.compose.oneoff=False"
    )
    if found.returncode:
        lines = found.stderr.strip().splitlines()
        return (lines[-1] if lines else "it took too long"), [], []
    containers = []
    for one in inspect("container", found.stdout.split()):
        state = one["State"]
        health = (state.get("Health") or {}).get("Status", "")
        containers.append(
            {
                "name": one["Name"].lstrip("/"),
                "state": state["Status"],
                "health": health,
                "restarts": one["RestartCount"],
            }
        )
    names = [settings.get(f"OCCUPANCY_{name}_IMAGE", "") for name in ("POSTGRES", "OPS")]
    images = []
    for name in filter(None, names):
        for one in inspect("image", [name]):
            if one.get("Created", "") > "2010":  # some builds set none, or 1970
                images.append({"name": name, "created": one["Created"]})
    return "", containers, images


def inspect(kind: str, names: list[str]) -> list[dict[str, Any]]:
    """What the engine knows of containers or images; of those that it has."""
    if not names:
        return []
    try:
        return list(json.loads(docker(kind, "inspect", *names).stdout or "[]"))
    except ValueError:
        return []


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client; an engine that hangs counts as one that fails."""
    command = ["docker", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return subprocess.CompletedProcess(command, 1, "", why)


def cron_runs() -> bool:
    """Whether the process of cron's pid file is cron."""
    pid = read(Path("/run/crond.pid")).strip()
    return pid.isdigit() and read(Path(f"/proc/{pid}/comm")).strip() in ("cron", "crond")


def synchronised() -> bool | None:
    """Whether the kernel's clock follows another one; None if the kernel does not say."""
    with suppress(AttributeError, OSError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
        return None if state < 0 else state != TIME_ERROR
    return None


def schedules() -> Iterator[tuple[str, str, int, float]]:
    """The scheduled jobs: their schedule, name, time limit, and since when they are scheduled."""
    for path in sorted(CRON.glob("occupancy-*")):
        for fields, name, limit in JOB.findall(read(path)):
            yield fields.strip(), name, int(limit), path.stat().st_mtime


def job(
    schedule: str, name: str, limit: int, since: float, samples: list[dict[str, Any]], now: float
) -> dict[str, Any]:
    """How a job is doing, from the metrics of its last run."""
    found = {one["name"]: one["value"] for one in samples if one["labels"] == {"job": name}}
    success = found.get("occupancy_job_last_success_timestamp_seconds") or None
    start = found.get("occupancy_job_last_start_timestamp_seconds")
    code = found.get("occupancy_job_last_exit_code")
    return {
        "name": name,
        "missed": missed(schedule, max(since, success or 0), now - limit),
        "last_success": moment(success) if success else None,
        "last_start": moment(start) if start else None,
        "last_exit_code": None if code is None else int(code),
    }


def missed(schedule: str, since: float, until: float) -> int:
    """How many runs a schedule has between two times, on the host's clock; MOST_MISSED at most."""
    fields = schedule.split(" ")
    ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    minutes, hours, days, months, weekdays = (
        numbers(field, *limits) for field, limits in zip(fields, ranges, strict=True)
    )
    first, last = datetime.fromtimestamp(since), datetime.fromtimestamp(max(until, 0))
    first = max(first, last - timedelta(days=LONGEST_SCHEDULE))
    count, day = 0, last.replace(hour=0, minute=0, second=0, microsecond=0)
    while day > first - timedelta(days=1) and count < MOST_MISSED:
        on_weekday = {day.isoweekday(), day.isoweekday() % 7} & weekdays
        # As cron does: where both are restricted, one of the two is enough.
        both = not (fields[2].startswith("*") or fields[4].startswith("*"))
        fits = (day.day in days or on_weekday) if both else (day.day in days and on_weekday)
        if day.month in months and fits:
            times = (day + timedelta(hours=hour, minutes=minute) for hour in hours for minute in minutes)
            count += sum(first < at <= last for at in times)
        day -= timedelta(days=1)
    return min(count, MOST_MISSED)


def numbers(field: str, first: int, last: int) -> set[int]:
    """The numbers that a field of crontab(5) stands for."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            low, high = str(first), str(last)
        found |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


def disks(data: Path, directory: Path, now: float) -> list[dict[str, Any]]:
    """The file systems of the data, of the product and of the engine, with samples of their free space."""
    ring = data / "status/disks.json"
    try:
        history = {path: [tuple(one) for one in samples] for path, samples in json.loads(read(ring)).items()}
    except (ValueError, AttributeError, TypeError):
        history = {}
    found: dict[int, dict[str, Any]] = {}
    for path in (data, directory, Path("/var/lib/docker")):
        with suppress(OSError):
            device, space = path.stat().st_dev, os.statvfs(path)
            # What is reserved for root is neither free nor of use to the server.
            free = space.f_bavail * space.f_frsize
            size = (space.f_blocks - space.f_bfree) * space.f_frsize + free
            found.setdefault(device, {"path": str(path), "size": size, "free": free})
    kept = {}
    for disk in found.values():
        samples = [one for one in history.get(disk["path"], []) if now - SAMPLES_KEPT < one[0] <= now]
        disk["history"] = [{"time": moment(at), "free": free} for at, free in samples]
        if not samples or now - samples[-1][0] >= SAMPLES_EVERY:
            samples.append((round(now), disk["free"]))
        kept[disk["path"]] = samples
    if kept != history:
        write(ring, json.dumps(kept))
    return list(found.values())


def certificates(directory: Path) -> dict[str, str]:
    """When the server's certificate and the CA that ends first end; without those that cannot be read."""
    ends = {}
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        command = ["openssl", "x509", "-noout", "-enddate", "-in", str(directory / "server.pem")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
        ends["server"] = moment(ssl.cert_time_to_seconds(done.stdout.strip().partition("=")[2]))
    with suppress(OSError, ValueError):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory / "ca.crt")
        ends["ca"] = moment(
            min(ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs())
        )
    return ends


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The samples of the jobs' metric files, without the results of the checks."""
    found = []
    for path in sorted(directory.glob("*.prom")):
        if path.name == RESULTS.name:
            continue
        for name, labels, value in SAMPLE.findall(read(path)):
            with suppress(ValueError):
                if math.isfinite(number := float(value)):
                    found.append({"name": name, "labels": dict(LABEL.findall(labels)), "value": number})
    return found


def users(path: Path) -> list[dict[str, Any]]:
    """The users and limits that role access sets."""
    return [
        {
            "name": one["name"],
            "connections": one["limit"],
            "settings": {key: str(value) for key, value in one["settings"].items()},
        }
        for one in json.loads(read(path) or "[]")
    ]


def notifications(path: Path) -> dict[str, Any] | None:
    """What waits to be sent; None without notifications. Of the file, which another user writes, no more."""
    try:
        state = json.loads(read(path))
        pending, oldest = int(state["pending"]), state["oldest_pending"]
        oldest = moment(datetime.fromisoformat(oldest).timestamp()) if oldest else None
        error = str(state["last_error"] or "")[:200]
        return {"pending": pending, "oldest_pending": oldest, "last_error": error}
    except (ValueError, KeyError, TypeError):
        return None


def read(path: Path) -> str:
    """The text of a file, or nothing if there is none. No links are followed, and no pipe is waited for."""
    try:
        with os.fdopen(
            os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8", errors="replace"
        ) as file:
            return file.read(READ_AT_MOST)
    except OSError:
        return ""


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def moment(seconds: float) -> str:
    """A time in UTC, as ISO 8601."""
    return datetime.fromtimestamp(round(seconds), timezone.utc).isoformat()  # noqa: UP017 - Python 3.10 has no UTC


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or [""])))
