#!/usr/bin/python3
"""occupancy-log log [--since TIME] [--until TIME] [--level LEVEL] [--json]: what happened on this host.

Shows what the server, the jobs and the deployments have logged, in order of time. Reads files and the journal
alone, so neither the server nor the engine need to run. `occupancy-log tidy` removes old files of the
server's log. Runs as root on the host (Python 3.10 or later, standard library).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TextIO

UTC = timezone.utc  # noqa: UP017 -- Python 3.10

PROJECT = Path("/opt/occupancy")
JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))
SYSLOGS = (Path("/var/log/syslog"), Path("/var/log/messages"))

FAILED, USAGE, PERMISSION = 1, 2, 8
"""As of occupancy-db."""

LEVELS = ("info", "notice", "warning", "error")
FREQUENT = ("occupancy-checks", "occupancy-notify")
"""Jobs that run every few minutes: their end without an error is no news."""

KEPT_BYTES = 100 * 2**20
KEPT_DAYS = 30
KEPT_FILES = 1000  # each start of the server makes two, and a server that cannot start tries again and again
LONGEST_LINE = 2**20
LONGEST_TEXT = 500

SEVERITIES = {"WARNING": "warning", "ERROR": "error", "FATAL": "error", "PANIC": "error", "NOTICE": "notice"}
# Of the messages with severity LOG, those that say how the server runs
NEWS = re.compile(
    r"starting PostgreSQL|ready to accept|received .* (request|SIGHUP)|is shut down|interrupted|not properly"
    r"|terminated by signal|terminating any other|reinitializing|could not|still waiting|^duration:"
    r"|^parameter .* (changed|cannot)|configuration file"
)
STARTING = "57P03"
AUTHENTICATION = "28"  # the class of its codes: their messages name a password and show none

SENSITIVE = re.compile(r"passw|secret|credential|token|scram-sha|\bmd5[0-9a-f]{32}", re.IGNORECASE)
LITERAL = re.compile(r"\$(\w*)\$.*?(?:\$\1\$|$)|'(?:[^']|'')*'?", re.DOTALL)
URL = re.compile(r"(\w+://[^\s:/@]*):[^\s@/]+@")
ASSIGNED = re.compile(r"(passw\w*|secret\w*|token\w*)(\s*[=:]\s*)\S+", re.IGNORECASE)
VERIFIER = re.compile(r"SCRAM-SHA-256\$\S+|\bmd5[0-9a-f]{32}\b")

STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\S+) \S+ (occupancy-[\w-]+)(?:\[\d+\])?: (.*)")
TRADITIONAL = re.compile(r"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) \S+ (occupancy-[\w-]+)(?:\[\d+\])?: (.*)")
ENDED = re.compile(r"ended with exit code (\d+)")


@dataclass(frozen=True)
class Entry:
    """One line: when, from what, how serious, and what it says."""

    time: datetime
    source: str
    level: str
    text: str


class LogError(Exception):
    """What is wrong and what helps, with the exit code of occupancy-db for it."""

    def __init__(self, code: int, what: str, hint: str) -> None:
        super().__init__(f"{what}. {hint}")
        self.code, self.what, self.hint = code, what, hint


def moment(option: str, text: str, now: datetime) -> datetime:
    """The point in time that an option gives: today, yesterday, or ISO 8601; without an offset it is UTC."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if text in words:
        return words[text]
    try:
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        hint = f"Write it as in {option} 2026-11-20T10:00:00+01:00, {option} yesterday or {option} today."
        raise LogError(USAGE, f"{option} {text} is not a time", hint) from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def one_line(text: str) -> str:
    """The text without line ends and control characters, and not too long."""
    text = "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


# The server's log


def server_entries(directory: Path, since: datetime) -> Iterator[Entry]:
    """What the server has logged in JSON since then."""
    for path in sorted(one for one in directory.iterdir() if one.suffix == ".json"):
        # Removed meanwhile, or no regular file
        with contextlib.suppress(FileNotFoundError), opened(path) as file:
            if os.fstat(file.fileno()).st_mtime < since.timestamp():
                continue
            for line in lines(file):
                entry = server_entry(line)
                if entry:
                    yield entry


def opened(path: Path) -> TextIO:
    """Open a regular file: the server's user, whose directory it is, could have left a link or a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise FileNotFoundError(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return open(descriptor, encoding="utf-8", errors="replace")  # noqa: PTH123


def lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, without those that are too long for this host's memory."""
    whole = True
    while line := file.readline(LONGEST_LINE):
        if whole and (line.endswith("\n") or len(line) < LONGEST_LINE):
            yield line
        whole = line.endswith("\n")


def server_entry(line: str) -> Entry | None:
    """One line of the server's log; None if it is not complete."""
    try:
        said: dict[str, Any] = json.loads(line)
        time = datetime.strptime(said["timestamp"], "%Y-%m-%d %H:%M:%S.%f UTC")
        severity, message = said["error_severity"], said["message"]
    except (ValueError, KeyError, TypeError):
        return None
    level = SEVERITIES.get(severity, "notice" if NEWS.search(message) else "info")
    if said.get("state_code") == STARTING:
        level = "info"
    names = ("user", "dbname", "application_name")
    who = " ".join(f"{name}={said[name]}" for name in names if said.get(name))
    text = f"{severity}: {described(said)}" + (f" [{who}]" if who else "")
    return Entry(time.replace(tzinfo=UTC), "server", level, one_line(text))


def described(said: dict[str, Any]) -> str:
    """Message, detail and statement without literals; none of them if one may show a password."""
    message, code = said["message"], said.get("state_code", "")
    if code.startswith(AUTHENTICATION) and not said.get("statement"):
        return str(message)
    names = ("message", "detail", "hint", "context", "internal_query", "statement")
    if any(SENSITIVE.search(said.get(name, "")) for name in names):
        return f"{code} (not shown: the statement may have a password)".strip()
    shown = [message, said.get("detail", "")]
    if said.get("statement"):
        shown.append(f"statement: {said['statement']}")
    return "; ".join(without_literals(part) for part in shown if part)


def without_literals(text: str) -> str:
    """The text with … for what is in quotes. Behind a backslash it is not certain where a literal ends."""
    if "\\" in text:
        return re.split(r"'|\$\w*\$", text.partition("\\")[0])[0] + "…"
    return LITERAL.sub("'…'", text)


# The jobs' log


def journal_entries(since: datetime, until: datetime) -> Iterator[Entry]:
    """What the jobs have logged to the journal."""
    names = journalctl("--field=SYSLOG_IDENTIFIER").split()
    jobs = sorted(f"--identifier={name}" for name in names if name.startswith("occupancy-"))
    if not jobs:
        return
    # Whole seconds, the last one included: what is too early or too late is left out by the caller.
    limits = [f"--since=@{int(since.timestamp())}", f"--until=@{int(until.timestamp()) + 1}"]
    for line in journalctl("--output=json", *limits, *jobs).splitlines():
        said = json.loads(line)
        message = said.get("MESSAGE") or ""
        if isinstance(message, list):  # bytes that are not UTF-8
            message = bytes(message).decode(errors="replace")
        time = datetime.fromtimestamp(int(said["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
        yield job_entry(time, said["SYSLOG_IDENTIFIER"], message, int(said.get("PRIORITY", 5)))


def journalctl(*arguments: str) -> str:
    """The output of journalctl."""
    command = ["journalctl", "--quiet", "--no-pager", "--all", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if done.returncode:
        raise OSError(done.stderr.strip() or f"journalctl ended with {done.returncode}")
    return done.stdout


def syslog_entries(path: Path, since: datetime) -> Iterator[Entry]:
    """What the jobs have logged to syslog, in the file and in those that were rotated."""
    for each in path.parent.glob(f"{path.name}*"):
        written = datetime.fromtimestamp(each.stat().st_mtime, UTC)
        if written < since:
            continue
        opener: Any = gzip.open if each.suffix == ".gz" else open
        with opener(each, "rt", encoding="utf-8", errors="replace") as file:
            for line in lines(file):
                entry = syslog_entry(line, written)
                if entry:
                    yield entry


def syslog_entry(line: str, written: datetime) -> Entry | None:
    """One line of syslog; None if it is not a job's."""
    if found := STAMPED.match(line):
        with contextlib.suppress(ValueError):  # no time: not a line of a job
            time = datetime.fromisoformat(re.sub("Z$", "+00:00", found[1])).astimezone(UTC)
            return job_entry(time, found[2], found[3])
    if not (found := TRADITIONAL.match(line)):
        return None
    # It has no year, and is in the host's time zone.
    named = datetime.strptime(f"{written.year} {found[1]}", "%Y %b %d %H:%M:%S").astimezone(UTC)
    if named > written + timedelta(days=1):
        named = named.replace(year=written.year - 1)
    return job_entry(named, found[2], found[3])


def job_entry(time: datetime, name: str, text: str, priority: int = 5) -> Entry:
    """A line of a job: as serious as it was logged, or as it says."""
    ended = ENDED.search(text)
    if text.startswith("error:") or priority <= 3 or (ended and ended[1] not in ("0", "9")):
        level = "error"
    elif text.startswith(("skipped:", "warning:")) or priority == 4 or (ended and ended[1] == "9"):
        level = "warning"
    else:
        level = "info" if priority > 5 or name in FREQUENT else "notice"
    text = VERIFIER.sub("…", ASSIGNED.sub(r"\1\2…", URL.sub(r"\1:…@", text)))
    return Entry(time, name.removeprefix("occupancy-"), level, one_line(text))


# The command


def collect(data: Path, since: datetime, until: datetime) -> tuple[list[Entry], list[str]]:
    """All entries of that time in their order, and what could not be read."""
    found: list[Entry] = []
    notes = []
    try:
        found += server_entries(data / "log", since)
    except FileNotFoundError:
        notes.append(f"There is no log of the server in {data / 'log'}.")
    syslogs = [path for path in SYSLOGS if path.is_file()]
    if any(path.is_dir() for path in JOURNALS):
        try:
            found += journal_entries(since, until)
        except OSError as error:
            notes.append(f"The journal cannot be read: {error}.")
    elif syslogs:
        found += syslog_entries(syslogs[0], since)
    else:
        notes.append("This host has neither a journal nor a syslog: what the jobs log is not kept.")
    return sorted((one for one in found if since <= one.time <= until), key=lambda one: one.time), notes


def data_directory() -> Path:
    """The directory of the data, as the Compose project knows it."""
    text = (PROJECT / ".env").read_text(encoding="utf-8")
    named = re.search("^OCCUPANCY_DATA_DIR=(.+)$", text, re.MULTILINE)
    if not named:
        raise LogError(
            FAILED, f"{PROJECT / '.env'} names no directory of the data", "Run the playbook again."
        )
    return Path(named[1])


def show(options: argparse.Namespace) -> None:
    """Print what happened, in lines or as one JSON object."""
    now = datetime.now(UTC)
    since, until = moment("--since", options.since, now), moment("--until", options.until, now)
    found, notes = collect(data_directory(), since, until)
    found = [one for one in found if LEVELS.index(one.level) >= LEVELS.index(options.level)]
    if options.json:
        entries = [asdict(one) | {"time": one.time.isoformat()} for one in found]
        period = {"since": since.isoformat(), "until": until.isoformat()}
        print(json.dumps(period | {"notes": notes, "entries": entries}))
        return
    for note in notes:
        print(note, file=sys.stderr)
    for one in found:
        print(f"{one.time:%Y-%m-%d %H:%M:%S} UTC  {one.level:7}  {one.source:12}  {one.text}")
    if not found:
        period = f"{since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
        print(f"Nothing at level {options.level} or above from {period}.")


def tidy() -> None:
    """Remove the oldest files of the server's log: beyond KEPT_DAYS, KEPT_FILES and KEPT_BYTES."""
    directory = os.open(data_directory() / "log", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    oldest = datetime.now(UTC).timestamp() - KEPT_DAYS * 86400
    total = 0
    # The names have the time. The server writes to the newest two: its log, and the output of its programs.
    names = os.listdir(directory)  # noqa: PTH208 -- Path has no descriptors
    for number, name in enumerate(sorted(names, reverse=True)):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            total += status.st_size
            excess = number >= KEPT_FILES or total > KEPT_BYTES or status.st_mtime < oldest
            if number > 1 and excess:
                os.unlink(name, dir_fd=directory)
    os.close(directory)


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="occupancy-db",
        description="Show what the server, the jobs and the deployments have logged, in order of time (UTC).",
    )
    parser.add_argument("command", choices=("log", "tidy"), metavar="log")
    parser.add_argument("--since", default="yesterday", metavar="TIME", help="default: yesterday")
    parser.add_argument("--until", default="now", metavar="TIME", help="default: now")
    parser.add_argument("--level", default="notice", choices=LEVELS, help="the lowest level; default: notice")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(given)


def main() -> int:
    """Run the command, and return the exit code."""
    options = arguments(sys.argv[1:])
    try:
        tidy() if options.command == "tidy" else show(options)
        sys.stdout.flush()
    except BrokenPipeError:  # as in: occupancy-db log | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (LogError, OSError) as error:
        return report(error, options.json)
    return 0


def report(error: LogError | OSError, in_json: bool) -> int:
    """Print a failure in the form of occupancy-db, and return its exit code."""
    if isinstance(error, PermissionError):
        error = LogError(PERMISSION, f"{error.filename} is for root only", "Run the command with sudo.")
    elif isinstance(error, OSError):
        error = LogError(FAILED, f"{error.filename}: {error.strerror}", "Run the playbook again.")
    said = {"exit_code": error.code, "what": error.what, "hint": error.hint}
    print(json.dumps({"error": said}) if in_json else f"error: {error}", file=sys.stderr)
    return error.code


if __name__ == "__main__":
    sys.exit(main())
