"""Keep accounts out of a directory and all below it, whoever owns what is there: entries of its access ACL.

Arguments: DIRECTORY, `write` or `check`, then the ids to keep out. Other entries of the ACL are left out,
since the directory is the product's; what its mode allows stays. Prints `changed` unless it is so already,
and ends with an error where the file system has no ACLs. The format is
that of linux/posix_acl_xattr.h; Debian installs no setfacl.
"""

import os
import stat
import struct
import sys
from pathlib import Path

ATTRIBUTE = "system.posix_acl_access"
OWNER, USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF
"""The id of an entry that is for no account by name."""


def acl(mode: int, ids: list[int]) -> bytes:
    """The ACL of a directory with this mode that gives nothing to the ids."""
    group = mode >> 3 & 7
    entries = [(OWNER, mode >> 6 & 7, NOBODY), *((USER, 0, uid) for uid in sorted(ids))]
    entries += [(GROUP, group, NOBODY), (MASK, group, NOBODY), (OTHER, mode & 7, NOBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def main(directory: str, action: str, *ids: str) -> None:
    """Write the ACL if it differs; without ids, remove it."""
    wanted = acl(stat.S_IMODE(Path(directory).stat().st_mode), [int(uid) for uid in ids]) if ids else b""
    present = os.getxattr(directory, ATTRIBUTE) if ATTRIBUTE in os.listxattr(directory) else b""
    if present == wanted:
        return
    print("changed")
    if action == "write" and wanted:
        try:
            os.setxattr(directory, ATTRIBUTE, wanted)
        except OSError as error:
            sys.exit(f"{directory} cannot have an ACL ({error.strerror}): give the accounts {ids} other ids.")
    elif action == "write":
        os.removexattr(directory, ATTRIBUTE)


if __name__ == "__main__":
    main(*sys.argv[1:])
