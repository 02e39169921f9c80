"""The files of a backup set, and the two sealed JSON files that describe it."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from occupancy_db.backup.contents import Contents
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.history.selection import Selection
from occupancy_db.schema.privileges import OWNER

FORMAT = 3
"""Format of the manifest. A new field is a new format, because of the seal."""

FORMATS = (1, 2, FORMAT)
"""Formats that this release reads. Format 1, of release 0.1.0, has no large objects; 1 and 2 have no
erasures and no owner."""

DUMP, GLOBALS, MANIFEST, SIGNATURE, VERIFIED, PINNED, DAMAGED, MADE_AHEAD = (
    "db.dump", "globals.sql", "manifest.json", "manifest.json.minisig", "verified.json", "pinned", "damaged",
    "ahead",
)  # fmt: skip

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SealedFile(BaseModel):
    """A JSON file with its own checksum that has only one valid form: any changed byte is detected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def seal(self) -> bytes:
        """Return the content of the file."""
        body = self.model_dump(mode="json", exclude_unset=True)  # the fields of the set's own format
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def unseal(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            DatabaseError: the file is missing, or is not what seal() wrote.
        """
        try:
            content = path.read_bytes()
            body = json.loads(content)
            checksum = body.pop("checksum")
            found = cls.model_validate(body)
            if checksum == _checksum(body) and found.seal() == content:
                return found
        except FileNotFoundError:
            raise damaged(path, "is missing") from None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            pass  # how the JSON is damaged does not help the operator
        raise damaged(path, "is damaged or was edited")


class FileFacts(BaseModel):
    """Size in bytes and SHA-256 of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: Sha256


class Erasure(BaseModel):
    """Data that were removed at the request of a person.

    Attributes:
        id: Made for this erasure, to recognise it in other sets.
        at: When it was asked for.
        selection: What was removed.
        complete: Whether all of it was removed; an erasure that was interrupted is not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    at: AwareDatetime
    selection: Selection
    complete: bool


class Manifest(SealedFile):
    """What a set contains, recorded when it was made.

    Attributes:
        format: One of FORMATS.
        id: Name of the set's directory.
        database: Name of the database that was dumped.
        started_at: Start of the backup.
        ended_at: End of the dump.
        files: Size and checksum of the other files.
        server_version: Version of the server, as the server reports it.
        server_version_num: The same as a number, 160014 for 16.14.
        client_version: Version of pg_dump, as pg_dump reports it.
        image: Container image of the programs; empty if unknown.
        superuser: Name of the superuser that initdb created.
        lsn: WAL position of the server at the start.
        database_bytes: Size of the database in bytes.
        contents: Content of the database in the snapshot that was dumped.
        before_restore_of: Id of the set that then replaced this database; None for any other backup.
        erasures: What had been erased when the set was made, and is thus not in it.
        owner: Owner of the database, to whom everything belongs after a restore.
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
    erasures: list[Erasure] = []
    owner: str = OWNER


class Verified(SealedFile):
    """The record that a set was restored and compared.

    Attributes:
        manifest: SHA-256 of the manifest that it was compared with.
        verified_at: End of the comparison.
        seconds: Duration of the rehearsal.
        rows: Number of rows that were compared.
    """

    manifest: Sha256
    verified_at: AwareDatetime
    seconds: float
    rows: int


def file_facts(path: Path) -> FileFacts:
    """Return the size and the SHA-256 of a file, which is read from beginning to end.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileFacts(bytes=file.tell(), sha256=digest.hexdigest())


def damaged(path: Path, what: str) -> DatabaseError:
    """Return the error for a damaged set.

    Args:
        path: The file that is damaged.
        what: What is wrong with it; follows the path in the text.
    """
    return DatabaseError(ExitCode.DAMAGED, f"{path} {what}", "Use another set; this one was left as it is.")


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
