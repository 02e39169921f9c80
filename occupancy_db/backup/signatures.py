"""The signatures of backup sets (minisign): who can write to a directory or a remote cannot make a set.

The manifest is signed; it has the checksums of the other files. The secret key is on the host that makes the
sets only, the public keys are wherever sets are verified or restored.
"""

from pathlib import Path

from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.manifest import MANIFEST, SIGNATURE
from occupancy_db.backup.programs import run_program
from occupancy_db.backup.sets import BackupSet, SetState
from occupancy_db.errors import DatabaseError, ExitCode


def unsigned_reason(backup: BackupSettings) -> str | None:
    """Return why new sets are not signed; None if they are.

    Raises:
        DatabaseError: sets of this host are signed, and the secret key is missing.
    """
    if backup.signing_key and backup.signing_key.exists():
        return None
    if trusted_keys(backup):
        raise DatabaseError(
            ExitCode.CONFIGURATION,
            f"the secret key that signs backup sets is missing: {backup.signing_key or 'BACKUP_SIGNING_KEY'}",
            "Run 'make up', which makes another one.",
        )
    return "not signed: there is no key (BACKUP_SIGNING_KEY)"


async def sign(directory: Path, backup: BackupSettings) -> None:
    """Sign the manifest in the directory of a set, if there is a key.

    Args:
        directory: The directory.
        backup: Where the secret key is.

    Raises:
        DatabaseError: minisign is missing or failed.
    """
    if unsigned_reason(backup) is None:
        assert backup.signing_key
        await run_program(
            "minisign", "-S", "-s", backup.signing_key, "-m", directory / MANIFEST,
            "-x", directory / SIGNATURE, "-t", directory.name.removeprefix(".partial-"),
        )  # fmt: skip


def trusted_keys(backup: BackupSettings) -> list[str]:
    """Return the public keys whose signatures are trusted; an empty list if none are configured.

    Raises:
        OSError: the file cannot be read.
    """
    if not backup.trusted_keys or not backup.trusted_keys.exists():
        return []
    lines = backup.trusted_keys.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("untrusted comment:")]


async def require_signature(one: BackupSet, backup: BackupSettings, *, unsigned: bool = False) -> None:
    """Refuse a set without the signature of a trusted key; where no key is trusted, accept all.

    Args:
        one: The set.
        backup: The trusted keys.
        unsigned: Whether a set without a signature is accepted. One with a wrong signature never is.

    Raises:
        DatabaseError: the set is not signed, or by another key, or it was changed; or minisign is missing.
    """
    keys = trusted_keys(backup)
    signature = one.path / SIGNATURE
    if not keys:
        return
    if signature.is_symlink() or not signature.exists():
        if unsigned and not signature.is_symlink():
            return
        raise DatabaseError(
            ExitCode.DAMAGED,
            f"{one.id} is not signed",
            "If you know that a host of yours made it, before its sets were signed, repeat the command with "
            "--unsigned.",
        )
    for key in keys:
        try:
            await run_program("minisign", "-V", "-q", "-P", key, "-m", one.path / MANIFEST, "-x", signature)
        except DatabaseError as error:
            if error.code is not ExitCode.PROGRAM:
                raise
        else:
            return
    raise DatabaseError(
        ExitCode.DAMAGED,
        f"{one.id} has no signature of a trusted key: it was made elsewhere, or changed since",
        f"Use another set. The keys that are trusted are in {backup.trusted_keys}.",
    )


async def sign_earlier(sets: list[BackupSet], backup: BackupSettings) -> list[str]:
    """Sign the verified sets that were made before the host had a key.

    Args:
        sets: The sets of the host.
        backup: Where the secret key is.

    Returns:
        The ids of the sets that were signed.

    Raises:
        DatabaseError: there is no key, or a set is damaged.
    """
    if reason := unsigned_reason(backup):
        raise DatabaseError(ExitCode.CONFIGURATION, reason, "Run 'make up', which makes the key.")
    earlier = [one for one in sets if one.state is SetState.VERIFIED and not one.signed]
    for one in earlier:
        one.intact()
        await sign(one.path, backup)
    return [one.id for one in earlier]
