"""Foreign things in the directory of the sets are named and left alone; every command goes on."""

import json
import os
from pathlib import Path

from tests.database import backup_host as hosts
from tests.database.backup_host import LIVE, BackupHost, PreparedSets, tree

prepared, backup_host = hosts.prepared, hosts.backup_host

KEEP_ONE = {f"BACKUP_KEEP_{kind}": 0 for kind in ("HOURLY", "DAILY", "WEEKLY", "MONTHLY")} | {
    "BACKUP_KEEP_LAST": 1
}


def make_foreign(host: BackupHost, prepared: PreparedSets) -> dict[str, Path]:
    """Make one foreign thing of each kind; the link leads to the older set, on another disk."""
    disk = host.directory / "disk"
    disk.mkdir()
    (host.sets / prepared.old).rename(disk / prepared.old)
    (host.sets / prepared.old).symlink_to(disk / prepared.old)
    made = {"link": host.sets / prepared.old}
    for number, kind in enumerate(("dangling", "file", ".partial-link", ".partial-file", "loop")):
        prefix = ".partial-" if kind.startswith(".partial-") else ""
        path = host.sets / f"{prefix}{LIVE}-20250101T00000{number}Z-aaaaaa"
        if kind.endswith("file"):
            path.write_text("a note of the operator")
        else:
            goals = {"dangling": Path("/no/where"), ".partial-link": disk, "loop": path}
            path.symlink_to(goals[kind])
        made[kind] = path
    (host.rehearsals / "rehearsal-link").symlink_to(disk)
    (host.rehearsals / "rehearsal-file").write_text("a note of the operator")
    return made


def test_every_command_goes_on(backup_host: BackupHost, prepared: PreparedSets) -> None:
    made = make_foreign(backup_host, prepared)
    kept = {kind: path.lstat() for kind, path in made.items()}
    disk = tree(backup_host.directory / "disk")

    commands = {
        "list": backup_host.backup("list"),
        "create": backup_host.backup("create", **KEEP_ONE),
        "verify": backup_host.backup("verify", "latest"),
        "prune": backup_host.backup("prune", **KEEP_ONE),
        "restore": backup_host.restore("latest"),
        "create again": backup_host.backup("create", **KEEP_ONE),
    }
    for name, done in commands.items():
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        for kind, path in made.items():
            assert str(path) in done.stdout, f"{name} does not name the {kind}: {done.stdout}"
    assert {kind: os.path.lexists(path) and path.lstat() for kind, path in made.items()} == kept
    assert tree(backup_host.directory / "disk") == disk
    assert (backup_host.rehearsals / "rehearsal-link").is_symlink()
    assert (backup_host.rehearsals / "rehearsal-file").is_file()
    assert prepared.new not in backup_host.states(), "retention goes on"

    listed = json.loads(backup_host.backup("list", "--json").stdout)
    assert len(listed["foreign"]) == len(made)
    for kind in ("link", "file", "dangling"):
        refused = backup_host.backup("verify", made[kind].name)
        assert refused.returncode == 12
        assert str(made[kind]) in refused.stderr
