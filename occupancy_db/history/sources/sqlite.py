"""SQLite files that another program may be writing to, and which are left as they are."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.sources.base import unusable

MAGIC: Final = b"SQLite format 3\0"
"""What a file begins with."""

_HEADER: Final = 100  # bytes, as in https://sqlite.org/fileformat.html
_WAL: Final = 2  # the version in byte 19 of files with a write-ahead log
_HINT: Final = (
    "Copy it with 'sqlite3 FILE \".backup COPY\"', or while Home Assistant is stopped. "
    "A file with -wal at its end belongs to it."
)


class Sqlite:
    """A recorder in a file. Nothing is written to it or beside it, and nobody has to wait for the reader.

    Raises:
        DatabaseError: it cannot be opened.
    """

    kind = "SQLite"
    # Exactly: the functions of dates know milliseconds.
    epoch = "CAST(strftime('%s', substr({}, 1, 19)) AS integer) + CAST('0' || substr({}, 20) AS real)"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.size = 0
        self._path = path
        self._alone = False
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER)
            if not header.startswith(MAGIC):
                raise unusable(path, "it is no SQLite file", "Decompress it first, if it is compressed.")
            self._before = self._seen()
            self.size = path.stat().st_size
            self._check_is_whole(header)
            self._connection = self._connect(header)
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, getattr(error, "strerror", None) or str(error), _HINT) from error

    def _check_is_whole(self, header: bytes) -> None:
        """A copy that has not ended, or the copy of a file that was written meanwhile."""
        page = int.from_bytes(header[16:18])
        pages = int.from_bytes(header[28:32])
        counts = header[24:28] == header[92:96]  # whoever wrote the file last has maintained the number
        if counts and self.size < pages * (65536 if page == 1 else page):
            raise unusable(
                self._path, "it is not complete: a copy of it has not ended, or was cut short", _HINT
            )

    def _connect(self, header: bytes) -> sqlite3.Connection:
        address = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        log, shared = (Path(f"{self._path}{suffix}") for suffix in ("-wal", "-shm"))
        heap = False
        if header[19] == _WAL:
            if log.exists() and shared.exists():
                address += "&readonly_shm=1"
            elif log.exists() and log.stat().st_size:
                # Nobody has it open. The index of the log would be made beside it: it is kept in memory.
                self._alone = heap = True
                address += "&vfs=unix-none"
            else:
                self._alone = True
                address += "&immutable=1"
        connection = sqlite3.connect(address, uri=True, timeout=30)
        try:
            if heap:
                connection.execute("PRAGMA locking_mode = exclusive")
            # One transaction: all queries see the same rows.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _seen(self) -> tuple[Any, ...]:
        found = []
        for path in (self._path, Path(f"{self._path}-wal")):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def columns(self, table: str) -> set[str]:
        """See ``Database``."""
        return {row[1] for row in self.rows(f"PRAGMA table_info({table})")}

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """See ``Database``."""
        try:
            with closing(self._connection.cursor()) as cursor:
                yield from cursor.execute(query)
            problem = None
            if self._alone and self._seen() != self._before:
                problem = "it was changed meanwhile"
        except sqlite3.Error as error:
            problem = str(error)
        if problem:
            raise DatabaseError(
                ExitCode.FAILED, f"cannot read on in {self.name}: {problem}", f"Nothing was imported. {_HINT}"
            )

    def close(self) -> None:
        """See ``Database``."""
        self._connection.close()
