"""Backup sets on disk: how they are published, found, checked and removed."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from secrets import token_hex

from occupancy_db.backup.files import replace, sync
from occupancy_db.backup.manifest import (
    DAMAGED,
    DUMP,
    FORMATS,
    GLOBALS,
    MADE_AHEAD,
    MANIFEST,
    PINNED,
    SIGNATURE,
    VERIFIED,
    Manifest,
    Verified,
    damaged,
    file_facts,
)
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.months import TOLERANCE
from occupancy_db.retry import RetryTimeoutError, retry
from occupancy_db.schema.privileges import OWNER

AHEAD = TOLERANCE
"""How far in the future a set may be."""

_ID = re.compile(r"(?P<database>.+)-(?P<time>\d{8}T\d{6}Z)-[0-9a-f]{6}")
_TIME = "%Y%m%dT%H%M%SZ"
_PARTIAL = ".partial-"
_PAUSE = 0.5


class SetState(StrEnum):
    """Whether a set can be restored."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class BackupSet:
    """A set as it is found on disk, without reading the dump.

    Attributes:
        path: Directory of the set.
        database: Name of the database, from the name of the directory.
        made_at: Start of the backup in UTC, from the name of the directory.
        manifest: The manifest; None if it is damaged.
        verified: The record of the last rehearsal; None if there is none.
        problem: What is damaged; None if nothing is.
        pinned: Why the set is kept regardless of the retention policy; None if it is not pinned.
        ahead: That the set was made while the clock was ahead, so that its time is wrong; None if it was not.
    """

    path: Path
    database: str
    made_at: datetime
    manifest: Manifest | None
    verified: Verified | None
    problem: str | None
    pinned: str | None
    ahead: str | None = None

    @property
    def id(self) -> str:
        """The name of the set in commands."""
        return self.path.name

    @property
    def owner(self) -> str:
        """The owner of the database that was dumped."""
        return self.manifest.owner if self.manifest else OWNER

    @property
    def signed(self) -> bool:
        """Whether there is a signature, which may be wrong."""
        return (self.path / SIGNATURE).exists()

    @property
    def state(self) -> SetState:
        """Verified, unverified or damaged."""
        if self.problem:
            return SetState.DAMAGED
        return SetState.VERIFIED if self.verified else SetState.UNVERIFIED

    def intact(self) -> Manifest:
        """Compare every file with the manifest by size and SHA-256, and return the manifest.

        Raises:
            DatabaseError: the set is damaged; the text names the file.
        """
        if self.problem or not self.manifest:
            raise DatabaseError(
                ExitCode.DAMAGED, self.problem or "", f"Use another set. {self.path} was left as it is."
            )
        for name, facts in self.manifest.files.items():
            if file_facts(self.path / name).sha256 != facts.sha256:
                raise damaged(self.path / name, "is not what was saved: its checksum differs")
        return self.manifest

    def mark_verified(self, seconds: float, rows: int) -> None:
        """Record that a rehearsal has compared every row.

        Args:
            seconds: Duration of the rehearsal.
            rows: Number of rows that were compared.
        """
        manifest = hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()
        verified = Verified(
            manifest=manifest, verified_at=datetime.now(UTC), seconds=round(seconds, 3), rows=rows
        )
        replace(self.path / VERIFIED, verified.seal())

    def mark_damaged(self, what: str) -> None:
        """Record that a set which was verified is damaged: it is kept, and never used.

        Args:
            what: What is damaged.
        """
        replace(self.path / DAMAGED, f"{what} (found {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)\n".encode())

    def mark_ahead(self, now: datetime) -> None:
        """Record that the set was made while the clock was ahead: it is kept, and does not count.

        Args:
            now: The current time, which the operator has confirmed.
        """
        replace(
            self.path / MADE_AHEAD, f"made while the clock was ahead of {now:%Y-%m-%d %H:%M} UTC\n".encode()
        )


class Store:
    """The directory with the sets of all databases."""

    def __init__(self, directory: Path) -> None:
        """Args: directory: the directory; it must exist."""
        self.directory = directory

    @asynccontextmanager
    async def lock(self, wait: float = 0) -> AsyncIterator[None]:
        """Hold the lock of the directory until the block ends.

        Args:
            wait: Seconds to wait for another backup or restore.

        Raises:
            DatabaseError: another backup or restore is running.
            OSError: the directory is missing, or this user may not write to it.
        """
        with (self.directory / ".lock").open("a") as file:

            async def take_lock() -> None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

            try:
                await retry(take_lock, catch=BlockingIOError, deadline=wait, pause=_PAUSE)
            except RetryTimeoutError:
                raise DatabaseError(
                    ExitCode.LOCKED,
                    f"another backup or restore is running in {self.directory}",
                    "Let it finish, then try again.",
                ) from None
            yield

    def sets(self, database: str) -> list[BackupSet]:
        """Return the published sets of a database, the oldest first."""
        found = [
            read_set(path, match)
            for path in self.directory.iterdir()
            if (match := _ID.fullmatch(path.name))
            and match["database"] == database
            and _time(match)
            and not _foreign(path)
        ]
        # Leave out sets that another process has removed meanwhile.
        found = [backup for backup in found if backup.path.exists()]
        return sorted(found, key=lambda backup: (backup.made_at, backup.id))

    def foreign(self, database: str) -> list[str]:
        """Name what has the name of a set, or of an unfinished set, and is left alone, a line each."""
        lines = []
        for path in sorted(self.directory.iterdir()):
            match = _ID.fullmatch(path.name.removeprefix(_PARTIAL))
            if match and match["database"] == database and (why := _foreign(path) or self._kept(path)):
                lines.append(f"{path} {why}: it is left alone")
        return lines

    def find(self, database: str, name: str) -> BackupSet:
        """Return a set by its id, or the newest verified one as ``latest``.

        A set that was made before a restore is not ``latest``: a second restore should not bring back the
        database that the first one replaced. Neither is a set that was made while the clock was ahead.

        Args:
            database: Name of the database.
            name: Id of a set, or ``latest``.

        Raises:
            DatabaseError: there is no such set, or the clock contradicts the sets.
        """
        sets = self.sets(database)
        if name == "latest":
            sets = [backup for backup in sets if not backup.ahead]
        if name == "latest" and sets and sets[-1].made_at > datetime.now(UTC) + AHEAD:
            raise DatabaseError(
                ExitCode.CLOCK,
                f"it is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC here, and {sets[-1].id} was made later",
                "Name the set that you mean by its ID (see 'occupancy-db backup list'), or run "
                "'occupancy-db clock confirm' and 'occupancy-db backup prune' if the clock is right now.",
            )
        if name == "latest":
            sets = [
                backup
                for backup in sets
                if backup.state is SetState.VERIFIED
                and backup.manifest
                and not backup.manifest.before_restore_of
            ]
        else:
            sets = [backup for backup in sets if backup.id == name]
        if not sets:
            what = "no verified backup set" if name == "latest" else f"no backup set {name}"
            if _ID.fullmatch(name) and (why := _foreign(self.directory / name)):
                raise DatabaseError(
                    ExitCode.DAMAGED,
                    f"{self.directory / name} {why}, and is not used as a backup set",
                    f"Replace it by a copy of the set that belongs to the user {os.geteuid()}.",
                )
            raise DatabaseError(
                ExitCode.DAMAGED,
                f"there is {what} of the database {database} in {self.directory}",
                "See 'occupancy-db backup list'.",
            )
        return sets[-1]

    def begin(self, database: str, now: datetime) -> Path:
        """Create the directory for a new set, which has no name yet."""
        name = f"{database}-{now.strftime(_TIME)}-{token_hex(3)}"
        partial = self.directory / (_PARTIAL + name)
        partial.mkdir(mode=0o700)
        return partial

    def publish(self, partial: Path) -> BackupSet:
        """Write all files of a complete set to disk, and rename its directory to the set's id."""
        for file in partial.iterdir():
            file.chmod(0o600)
            sync(file)
        sync(partial)
        path = self.directory / partial.name.removeprefix(_PARTIAL)
        partial.rename(path)
        sync(self.directory)
        match = _ID.fullmatch(path.name)
        assert match
        return read_set(path, match)

    def clear(self) -> None:
        """Remove what interrupted backups have left, except foreign things. The caller holds the lock."""
        for path in self.directory.glob(f"{_PARTIAL}*"):
            if not _foreign(path) and not self._kept(path):
                shutil.rmtree(path)

    def _kept(self, path: Path) -> str | None:
        """Return why this user cannot remove a directory; None if the user can."""
        writable = os.access(self.directory, os.W_OK, effective_ids=True)  # a disk may be read-only
        if writable and path.exists() and not _accessible(path, os.W_OK):
            return f"may not be removed by the user {os.geteuid()}"
        return None

    def remove(self, backup: BackupSet) -> str | None:
        """Remove a set. It is renamed first, so that a partly removed set is never found.

        A set that was pinned meanwhile is renamed back.

        Returns:
            Why the set was kept; None if it was removed.
        """
        if why := self._kept(backup.path):
            return why
        gone = backup.path.rename(self.directory / (_PARTIAL + backup.id))
        if not backup.pinned and (gone / PINNED).exists():
            gone.rename(backup.path)
            return "pinned"
        sync(self.directory)
        shutil.rmtree(gone)
        return None


def database_of(name: str) -> str | None:
    """Return the database that the id of a set names; None if it is no id."""
    match = _ID.fullmatch(name)
    return match["database"] if match else None


def set_id(partial: Path) -> str:
    """Return the id that an unpublished set will have."""
    return partial.name.removeprefix(_PARTIAL)


def read_set(path: Path, match: re.Match[str]) -> BackupSet:
    """Read a set from its directory, without reading the dump."""
    manifest = verified = problem = None
    try:
        manifest = _manifest(path, match["database"])
        if (path / VERIFIED).exists():
            verified = Verified.unseal(path / VERIFIED)
            if verified.manifest != hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest():
                raise damaged(path / VERIFIED, "belongs to another manifest")
        if found := _note(path / DAMAGED):
            problem = found
    except DatabaseError as error:
        problem = error.what
    except OSError as error:
        problem = f"{path}: {error.strerror}"
    made_at = _time(match)
    assert made_at
    pinned, ahead = _note(path / PINNED), _note(path / MADE_AHEAD)
    return BackupSet(path, match["database"], made_at, manifest, verified, problem, pinned, ahead)


def _foreign(path: Path) -> str | None:
    """Return why something with the name of a set is not one of this program; None if it is, or is gone."""
    if path.is_symlink():
        return "is a link"
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return "is not a directory"
    if not _accessible(path, os.R_OK | os.X_OK):
        return f"may not be read by the user {os.geteuid()}"
    return None


def _accessible(path: Path, mode: int) -> bool:
    """Whether this user may access a directory and those in it."""
    below = [Path(at, name) for at, names, _ in os.walk(path) for name in names]
    return all(one.is_symlink() or os.access(one, mode, effective_ids=True) for one in [path, *below])


def _note(path: Path) -> str | None:
    """Return the text of a marker file, or its name if it has none; None if there is no such file."""
    if not path.is_symlink() and not path.exists():
        return None
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or path.name
    except OSError as error:
        return f"{path.name}: {error.strerror}"


def _manifest(path: Path, database: str) -> Manifest:
    for name in (DUMP, GLOBALS, MANIFEST, SIGNATURE, VERIFIED):
        if (path / name).is_symlink():
            raise damaged(path / name, "is a link, and a set holds its own files")
    manifest = Manifest.unseal(path / MANIFEST)
    if manifest.format not in FORMATS:
        raise damaged(path / MANIFEST, f"has format {manifest.format}, which this release does not know")
    if manifest.id != path.name:
        raise damaged(path / MANIFEST, f"belongs to {manifest.id}")
    if manifest.database != database:
        raise damaged(path / MANIFEST, f"is of the database {manifest.database}")
    if set(manifest.files) != {DUMP, GLOBALS}:
        raise damaged(path / MANIFEST, "does not list the files of a set")
    for name, facts in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise damaged(file, "is missing")
        if (size := file.stat().st_size) != facts.bytes:
            raise damaged(file, f"has {size:,} bytes, and {facts.bytes:,} were saved")
    return manifest


def _time(match: re.Match[str]) -> datetime | None:
    try:
        return datetime.strptime(match["time"], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
