"""Backup sets: what they consist of, how they are written, found and checked."""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from occupancy_db.backup.contents import Contents
from occupancy_db.errors import DatabaseError, ExitCode

FORMAT = 1
"""Of the manifest; another one is not understood. A new field is a new format: the seal knows one form."""

DUMP, GLOBALS, MANIFEST, VERIFIED, PINNED, DAMAGED = (
    "db.dump", "globals.sql", "manifest.json", "verified.json", "pinned", "damaged",
)  # fmt: skip

AHEAD = timedelta(minutes=5)
"""How far in the future a set may be: clocks are set a little all the time."""

_ID = re.compile(r"(?P<database>.+)-(?P<time>\d{8}T\d{6}Z)-[0-9a-f]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_PARTIAL = ".partial-"
_POLL = 0.5

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Sealed(BaseModel):
    """A JSON file that carries its own checksum and has one form only: any other byte is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def seal(self) -> bytes:
        """The file's content."""
        body = self.model_dump(mode="json")
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def unseal(cls, path: Path) -> Self:
        """Read it.

        Raises:
            DatabaseError: it is missing or is not what seal() wrote.
        """
        try:
            content = path.read_bytes()
            body = json.loads(content)
            checksum = body.pop("checksum")
            found = cls.model_validate(body)
            if checksum == _checksum(body) and found.seal() == content:
                return found
        except FileNotFoundError:
            raise _damaged(path, "is missing") from None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            pass  # said below: what exactly is wrong with damaged JSON helps nobody
        raise _damaged(path, "is damaged or was edited")


class FileFacts(BaseModel):
    """Size in bytes and SHA-256 of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: Sha256


class Manifest(_Sealed):
    """What a set holds, taken when it was made.

    Attributes:
        format: FORMAT.
        id: The directory's name.
        database: The database that was dumped.
        started_at: When the run began.
        ended_at: When the dump was complete.
        files: Size and checksum of the other files.
        server_version: As the server says it.
        server_version_num: The same as a number, 160014 for 16.14.
        client_version: As pg_dump says it.
        image: The image that the programs came in, empty if unknown.
        superuser: The one that initdb made.
        lsn: Where the server's log stood.
        database_bytes: Size of the database.
        contents: What was in it, in the very snapshot that was dumped.
        before_restore_of: The set that took this database's place; None for any other backup.
    """

    format: int
    id: str
    database: str
    started_at: AwareDatetime
    ended_at: AwareDatetime
    files: dict[str, FileFacts]
    server_version: str
    server_version_num: int
    client_version: str
    image: str
    superuser: str
    lsn: str
    database_bytes: int
    contents: Contents
    before_restore_of: str | None = None


class Verified(_Sealed):
    """That a set has been restored and compared.

    Attributes:
        manifest: SHA-256 of the manifest that it was compared with.
        verified_at: When.
        seconds: How long the rehearsal took.
        rows: How many rows were compared.
    """

    manifest: Sha256
    verified_at: AwareDatetime
    seconds: float
    rows: int


class State(StrEnum):
    """What a set is worth."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class BackupSet:
    """A set as it is found on disk, by a look that does not read the dump.

    Attributes:
        path: Its directory.
        database: From its name.
        made_at: When the run began, from its name; UTC.
        manifest: None if it is damaged.
        verified: None if it never was.
        problem: What is wrong with it; None if nothing is.
        pinned: Why it is kept whatever the retention says; None if it is not.
    """

    path: Path
    database: str
    made_at: datetime
    manifest: Manifest | None
    verified: Verified | None
    problem: str | None
    pinned: str | None

    @property
    def id(self) -> str:
        """The name that people and commands use."""
        return self.path.name

    @property
    def state(self) -> State:
        """Verified, unverified or damaged."""
        if self.problem:
            return State.DAMAGED
        return State.VERIFIED if self.verified else State.UNVERIFIED

    def intact(self) -> Manifest:
        """The manifest, after every file was compared with it by size and SHA-256.

        Raises:
            DatabaseError: the set is damaged; it says which file and how.
        """
        if self.problem or not self.manifest:
            raise DatabaseError(
                ExitCode.DAMAGED, self.problem or "", f"Use another set. {self.path} was left as it is."
            )
        for name, facts in self.manifest.files.items():
            if file_facts(self.path / name).sha256 != facts.sha256:
                raise _damaged(self.path / name, "is not what was saved: its checksum differs")
        return self.manifest

    def mark_verified(self, seconds: float, rows: int) -> None:
        """Write down that a rehearsal has compared every row."""
        manifest = hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()
        verified = Verified(
            manifest=manifest, verified_at=datetime.now(UTC), seconds=round(seconds, 3), rows=rows
        )
        replace(self.path / VERIFIED, verified.seal())

    def mark_damaged(self, what: str) -> None:
        """Write down that a set which was good is not any more: it is kept, and never used."""
        replace(self.path / DAMAGED, f"{what} (found {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)\n".encode())


class Store:
    """The directory that the sets are in."""

    def __init__(self, directory: Path) -> None:
        """Args: directory: where; it must exist."""
        self.directory = directory

    @asynccontextmanager
    async def lock(self, wait: float = 0) -> AsyncIterator[None]:
        """Be the only one at work here.

        Args:
            wait: Seconds to wait for another run.

        Raises:
            DatabaseError: another run is at work.
            OSError: the directory is missing or not for us.
        """
        deadline = time.monotonic() + wait
        with (self.directory / ".lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise DatabaseError(
                            ExitCode.LOCKED,
                            f"another backup or restore is at work in {self.directory}",
                            "Let it finish, then try again.",
                        ) from None
                await asyncio.sleep(_POLL)
            yield

    def sets(self, database: str) -> list[BackupSet]:
        """The sets of a database, the oldest first; those that were never published are none."""
        found = [
            look(path, match)
            for path in self.directory.iterdir()
            if (match := _ID.fullmatch(path.name)) and match["database"] == database and _time(match)
        ]
        # Not those that were removed while they were looked at.
        found = [backup for backup in found if backup.path.exists()]
        return sorted(found, key=lambda backup: (backup.made_at, backup.id))

    def find(self, database: str, name: str) -> BackupSet:
        """A set by its id, or the newest verified one as ``latest``.

        What a restore has saved of the database that it replaced is not the latest: who restores once more
        does not want that.

        Raises:
            DatabaseError: there is none, or the clock leaves open which is the newest.
        """
        sets = self.sets(database)
        if name == "latest" and sets and sets[-1].made_at > datetime.now(UTC) + AHEAD:
            raise DatabaseError(
                ExitCode.CLOCK,
                f"it is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC here, and {sets[-1].id} was made later",
                "Name the set that you mean by its ID: see 'occupancy-db backup list'.",
            )
        if name == "latest":
            sets = [
                backup
                for backup in sets
                if backup.state is State.VERIFIED
                and backup.manifest
                and not backup.manifest.before_restore_of
            ]
        else:
            sets = [backup for backup in sets if backup.id == name]
        if not sets:
            what = "no verified backup set" if name == "latest" else f"no backup set {name}"
            raise DatabaseError(
                ExitCode.DAMAGED,
                f"there is {what} of the database {database} in {self.directory}",
                "See 'occupancy-db backup list'.",
            )
        return sets[-1]

    def begin(self, database: str, now: datetime) -> Path:
        """Make the directory that a new set is written in."""
        name = f"{database}-{now.strftime(_TIME)}-{token_hex(3)}"
        partial = self.directory / (_PARTIAL + name)
        partial.mkdir(mode=0o700)
        return partial

    def publish(self, partial: Path) -> BackupSet:
        """Give a complete set its name, once all of it is on disk."""
        for file in partial.iterdir():
            file.chmod(0o600)
            sync(file)
        sync(partial)
        path = self.directory / partial.name.removeprefix(_PARTIAL)
        partial.rename(path)
        sync(self.directory)
        match = _ID.fullmatch(path.name)
        assert match
        return look(path, match)

    def clear(self) -> None:
        """Remove what interrupted runs left; only for who holds the lock."""
        for path in self.directory.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path)

    def remove(self, backup: BackupSet) -> None:
        """Remove a set. It loses its name first, so that half of one is never taken for a whole.

        One that somebody has pinned since it was looked at gets its name back.
        """
        gone = backup.path.rename(self.directory / (_PARTIAL + backup.id))
        if not backup.pinned and (gone / PINNED).exists():
            gone.rename(backup.path)
            return
        sync(self.directory)
        shutil.rmtree(gone)


def new_id(partial: Path) -> str:
    """The id that a set in the making will have."""
    return partial.name.removeprefix(_PARTIAL)


def look(path: Path, match: re.Match[str]) -> BackupSet:
    """What a directory holds, without reading its dump."""
    manifest = verified = problem = None
    try:
        manifest = _manifest(path, match["database"])
        if (path / VERIFIED).exists():
            verified = Verified.unseal(path / VERIFIED)
            if verified.manifest != hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest():
                raise _damaged(path / VERIFIED, "belongs to another manifest")
        if found := _note(path / DAMAGED):
            problem = found
    except DatabaseError as error:
        problem = error.what
    except OSError as error:
        problem = f"{path}: {error.strerror}"
    made_at = _time(match)
    assert made_at
    return BackupSet(path, match["database"], made_at, manifest, verified, problem, _note(path / PINNED))


def _note(path: Path) -> str | None:
    """What a marker says; its presence is what counts."""
    if not path.exists():
        return None
    return path.read_text(encoding="utf-8", errors="replace").strip() or path.name


def _manifest(path: Path, database: str) -> Manifest:
    for name in (DUMP, GLOBALS, MANIFEST, VERIFIED):
        if (path / name).is_symlink():
            raise _damaged(path / name, "is a link, and a set holds its own files")
    manifest = Manifest.unseal(path / MANIFEST)
    if manifest.format != FORMAT:
        raise _damaged(path / MANIFEST, f"has format {manifest.format}, which this release does not know")
    if manifest.id != path.name:
        raise _damaged(path / MANIFEST, f"belongs to {manifest.id}")
    if manifest.database != database:
        raise _damaged(path / MANIFEST, f"is of the database {manifest.database}")
    if set(manifest.files) != {DUMP, GLOBALS}:
        raise _damaged(path / MANIFEST, "does not list the files of a set")
    for name, facts in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise _damaged(file, "is missing")
        if (size := file.stat().st_size) != facts.bytes:
            raise _damaged(file, f"has {size:,} bytes, and {facts.bytes:,} were saved")
    return manifest


def _time(match: re.Match[str]) -> datetime | None:
    try:
        return datetime.strptime(match["time"], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _damaged(path: Path, what: str) -> DatabaseError:
    return DatabaseError(ExitCode.DAMAGED, f"{path} {what}", "Use another set; this one was left as it is.")


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def file_facts(path: Path) -> FileFacts:
    """Size and SHA-256 of a file, read from beginning to end."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileFacts(bytes=file.tell(), sha256=digest.hexdigest())


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all; mode 0600."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)
