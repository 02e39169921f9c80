"""The differences between a host and the variables, so that tasks run for differences only.

The facts are those of roles/occupancy/files/probe.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from provisioning import env_file, run_tags

ENV_PASSWORDS = {"POSTGRES_PASSWORD": "POSTGRES_USER", "PGPASSWORD": "PGUSER"}
"""The variables of a .env file that hold a password, and the user's name beside each."""

ENV_BLOCK = re.compile(r"^# BEGIN (written by the access role.*)\n((?:.*\n)*?)# END \1$", re.MULTILINE)
"""The block that role access keeps in a .env file."""

OPTIONAL_FLAGS = ("CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")
"""Attributes of users that only those have whose `flags` name them."""

TUNED = frozenset({"OCCUPANCY_MEMORY", "OCCUPANCY_CPUS", "OCCUPANCY_SHM"})
"""The variables of the Compose project that are a part of the plan of role tuning."""

AT_LEAST = {"vm.nr_hugepages"}
"""Kernel settings of which other programs may need more: a higher value is accepted."""


def differing(
    files: Iterable[Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the files and directories that are missing on a host or differ.

    Args:
        files: Each has `path` and `mode` (like "0644"), `uid` unless root owns it, `text` if it is a file.
        present: The host's files by path.
    """
    found = []
    for wanted in files:
        uid = int(wanted.get("uid", 0))
        state = {"type": "directory", "uid": uid, "gid": uid, "mode": wanted["mode"], "sha256": ""}
        if "text" in wanted:
            state |= {"type": "file", "sha256": hashlib.sha256(wanted["text"].encode()).hexdigest()}
        if present.get(wanted["path"]) != state:
            found.append(wanted)
    return found


def tuned(
    files: Iterable[Mapping[str, Any]], present: Mapping[str, str], tags: Iterable[str]
) -> list[Mapping[str, Any]]:
    """The files of the server that a run writes: with the tag tuning alone only the plan of role tuning.

    Args:
        files: As for `differing`.
        present: The variables of the host's .env file, by name.
        tags: The tags of the run.
    """
    if not present or not run_tags.tunes_alone(tags):
        return list(files)
    names = {file["path"].rsplit("/", 1)[-1]: file for file in files}
    found = [names["postgresql.conf"]] if "postgresql.conf" in names else []
    if ".env" in names:
        lines = [
            line if line.startswith("#") or name in TUNED else f"{name}={present[name]}"
            for line in names[".env"]["text"].splitlines()
            if line.startswith("#") or (name := line.partition("=")[0]) in present
        ]
        found.append({**names[".env"], "text": "\n".join(lines) + "\n"})
    return found


def keep_differing(wanted: Mapping[str, object], present: Mapping[str, str]) -> dict[str, object]:
    """The numbers of backup sets to keep that a host does not have, by kind.

    Args:
        wanted: The numbers by kind, as in the names of the variables.
        present: The variables of the host's .env file; empty where the host had none.
    """
    names = {kind: f"OCCUPANCY_BACKUP_KEEP_{kind}" for kind in wanted}
    return {
        kind: number for kind, number in wanted.items() if present and present.get(names[kind]) != str(number)
    }


def logins(
    product: Iterable[Mapping[str, Any]],
    operators: Iterable[Mapping[str, Any]],
    connections: Mapping[str, int],
    mark: str,
    owners: Iterable[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return all users with a password in one format.

    Args:
        product: The product's users: `name`, `comment`, `settings`; `flags` (separated by commas) and
            `member_of` unless default.
        operators: The operator's users: `name`, and `role`, the user of the product whose privileges it has.
        connections: The users' connection limits by name.
        mark: The comment of the operator's users, by which a later run knows them.
        owners: The owners of other databases than the product's, in the format of the product's users. The
            user who restores is a member of each.
    """
    found: list[dict[str, Any]] = [dict(user) for user in (*product, *owners)]
    for login in found:
        if login["name"] == "occupancy_restore":
            login["member_of"] = [*login["member_of"], *(owner["name"] for owner in owners)]
    settings = {user["name"]: user["settings"] for user in found}
    for user in operators:
        role = {"settings": settings[user["role"]], "comment": mark, "member_of": [user["role"]]}
        found.append({"name": user["name"], **role})
    for user in found:
        given = user.get("flags", "").split(",")
        flags = [flag if flag in given else f"NO{flag}" for flag in OPTIONAL_FLAGS]
        user["flags"] = ",".join(["LOGIN", "NOSUPERUSER", *flags])
        user["limit"] = connections[user["name"]]
    return found


def users(
    wanted: Sequence[Mapping[str, Any]], roles: Mapping[str, Any], written: Iterable[str]
) -> list[Mapping[str, Any]]:
    """Return the users that are missing on the server or differ.

    Args:
        wanted: As `logins` returns them.
        roles: The server's roles by name.
        written: The users whose password file this run has written.
    """
    new = set(written)
    return [login for login in wanted if login["name"] in new or _differs(login, roles.get(login["name"]))]


def _differs(login: Mapping[str, Any], role: Mapping[str, Any] | None) -> bool:
    return role is None or (
        set(role["flags"].split(",")) != set(login["flags"].split(","))
        or role["limit"] != login["limit"]
        or role["comment"] != login["comment"]
        or set(role["settings"]) != {f"{name}={value}" for name, value in login["settings"].items()}
        or not role["password_is_kept"]
    )


def outdated_passwords(
    names: Iterable[str], kept: Mapping[str, Mapping[str, Any]], passwords: Mapping[str, str]
) -> list[str]:
    """The users whose password file must be written.

    Args:
        names: All users.
        kept: The facts of the password files by user.
        passwords: The passwords of the inventory by user.
    """
    found = []
    for name in names:
        if name not in kept or (
            name in passwords and hashlib.sha256(passwords[name].encode()).hexdigest() != kept[name]["sha256"]
        ):
            found.append(name)
    return found


def generated_passwords(kept: Iterable[str], passwords: Mapping[str, str], roles: Iterable[str]) -> list[str]:
    """The users whose password a rotation replaces: those of the server with one that the product made.

    Args:
        kept: The users with a password file.
        passwords: The passwords of the inventory by user.
        roles: The server's roles.
    """
    return [name for name in kept if name in roles and name not in passwords]


def memberships(wanted: Iterable[Mapping[str, Any]], roles: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The users that are members of other roles than they should be.

    Args:
        wanted: As `logins` returns them; memberships of those without `member_of` are not
            compared.
        roles: The server's roles by name.
    """
    return [
        login
        for login in wanted
        if "member_of" in login
        and set(roles.get(login["name"], {}).get("member_of", ())) != set(login["member_of"])
    ]


def limits(wanted: Iterable[Mapping[str, Any]], roles: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The users that exist and have another connection limit than they should.

    Args:
        wanted: As `logins` returns them.
        roles: The server's roles by name.
    """
    return [
        login
        for login in wanted
        if login["name"] in roles and roles[login["name"]]["limit"] != login["limit"]
    ]


def kernel(wanted: Mapping[str, object], facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Divide kernel settings into those to load, those that differ, and those to skip.

    Args:
        wanted: Values by name.
        facts: `container` and `settings`.

    Returns:
        `allowed` (names that can be set on this host), `differs` (those of them with another value) and
        `skipped` (names with the reason).
    """
    result: dict[str, list[str]] = {"allowed": [], "differs": [], "skipped": []}
    for name, value in wanted.items():
        setting = facts["settings"].get(name)
        if facts["container"]:  # a container shares the kernel with other systems, even if it may write to it
            result["skipped"].append(f"skipped {name}: the host is a container ({facts['container']})")
        elif setting is None:
            result["skipped"].append(f"skipped {name}: this kernel does not have it")
        elif not setting["writable"]:
            result["skipped"].append(f"skipped {name}: /proc/sys is read-only here")
        else:
            result["allowed"].append(name)
            enough = name in AT_LEAST and int(setting["value"]) >= int(str(value))
            if setting["value"] != str(value) and not enough:
                result["differs"].append(name)
    return result


def _env_block(path: Path) -> str:
    if not path.is_file():
        return ""
    found = ENV_BLOCK.search(path.read_text(encoding="utf-8"))
    return found[2] if found else ""


def env_with_password(text: str, password: str) -> str:
    """Complete the text of a .env file whose passwords are empty.

    Args:
        text: Lines, in which the user's name follows the password.
        password: The password.
    """
    return "\n".join(
        env_file.assign(password, line[:-1], spare=ENV_PASSWORDS[line[:-1]])
        if line[:-1] in ENV_PASSWORDS and line.endswith("=")
        else line
        for line in text.split("\n")
    )


def outdated_env_files(
    files: Iterable[Mapping[str, str]], kept: Mapping[str, Mapping[str, Any]], written: Iterable[str]
) -> list[Mapping[str, str]]:
    """The .env files on the controller that must be written.

    A file is current if the block of role access in it is as it should be, with the password that the host
    keeps, and only its owner may read it.

    Args:
        files: Each has `path` (empty: not wanted), `user`, and `text`, the block without the password.
        kept: The facts of the password files by user.
        written: The users whose password file this run has written.
    """
    new = set(written)
    return [
        file
        for file in files
        if file["path"]
        and (file["user"] in new or not _is_current(file, kept.get(file["user"], {}).get("sha256", "")))
    ]


def _is_current(file: Mapping[str, str], sha256: str) -> bool:
    path = Path(file["path"])
    block = _env_block(path)
    password = env_file.read(block).get("POSTGRES_PASSWORD", "")
    return (
        hashlib.sha256(password.encode()).hexdigest() == sha256
        and block.strip("\n") == env_with_password(file["text"], password).strip("\n")
        and path.stat().st_mode & 0o777 == 0o600
    )
