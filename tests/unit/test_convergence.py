"""Differences between a host and the variables are found, and only these."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from provisioning import convergence, env_file

FILE = {"path": "/etc/x", "mode": "0644", "text": "content\n"}
PRESENT = {
    "type": "file",
    "uid": 0,
    "gid": 0,
    "mode": "0644",
    "sha256": hashlib.sha256(b"content\n").hexdigest(),
}


@pytest.mark.parametrize(
    "change", [{"sha256": "0"}, {"mode": "0600"}, {"uid": 1}, {"gid": 1}, {"type": "other", "sha256": ""}]
)
def test_a_file_with_any_difference_is_written(change: dict[str, Any]) -> None:
    assert convergence.differing([FILE], {"/etc/x": PRESENT}) == []
    assert convergence.differing([FILE], {"/etc/x": PRESENT | change}) == [FILE]
    assert convergence.differing([FILE], {}) == [FILE]


def test_a_directory_has_an_owner_and_a_mode() -> None:
    wanted = {"path": "/srv/backups", "uid": "10001", "mode": "0700"}
    present = {"type": "directory", "uid": 10001, "gid": 10001, "mode": "0700", "sha256": ""}
    assert convergence.differing([wanted], {"/srv/backups": present}) == []
    assert convergence.differing([wanted], {"/srv/backups": present | {"type": "file"}}) == [wanted]


PRODUCT: list[dict[str, Any]] = [
    {"name": "occupancy", "comment": "Owner", "settings": {}},
    {"name": "occupancy_app", "comment": "Application", "settings": {"lock_timeout": "10s"}},
    {
        "name": "occupancy_restore",
        "comment": "Restores",
        "settings": {},
        "flags": "CREATEDB",
        "member_of": ["occupancy"],
    },
]
LOGINS = convergence.logins(
    PRODUCT,
    [{"name": "grafana", "role": "occupancy_app"}],
    {"occupancy": 6, "occupancy_app": 20, "occupancy_restore": 5, "grafana": 5},
    "Managed",
)


def server(**changes: Any) -> dict[str, Any]:
    """Return the roles of a converged server, with changes of occupancy_app."""
    roles: dict[str, Any] = {
        login["name"]: {
            "flags": login["flags"],
            "limit": login["limit"],
            "comment": login["comment"],
            "settings": [f"{name}={value}" for name, value in login["settings"].items()],
            "member_of": login.get("member_of", []),
            "password_is_kept": True,
        }
        for login in LOGINS
    }
    roles["occupancy_app"] |= changes
    return roles


def names(logins: list[Any]) -> list[str]:
    return [login["name"] for login in logins]


def test_an_operators_user_has_the_settings_and_privileges_of_its_role() -> None:
    grafana = LOGINS[-1]
    assert grafana["settings"] == {"lock_timeout": "10s"}
    assert (grafana["member_of"], grafana["comment"]) == (["occupancy_app"], "Managed")


def test_only_the_restore_user_may_create_databases() -> None:
    assert [login["name"] for login in LOGINS if ",CREATEDB," in login["flags"]] == ["occupancy_restore"]
    assert {flag for login in LOGINS for flag in login["flags"].split(",")} >= {"NOSUPERUSER", "NOCREATEROLE"}


def test_converged_users_are_not_changed() -> None:
    assert convergence.users(LOGINS, server(), []) == []
    assert convergence.memberships(LOGINS, server()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"flags": "LOGIN,SUPERUSER,NOCREATEDB,NOCREATEROLE,NOREPLICATION,NOBYPASSRLS"},
        {"limit": -1},
        {"comment": None},
        {"settings": []},
        {"settings": ["lock_timeout=0"]},
        {"settings": ["lock_timeout=10s", "work_mem=1GB"]},
        {"password_is_kept": False},
    ],
)
def test_a_changed_attribute_is_converged(change: dict[str, Any]) -> None:
    assert names(convergence.users(LOGINS, server(**change), [])) == ["occupancy_app"]


def test_missing_users_and_new_passwords_are_converged() -> None:
    roles = server()
    del roles["grafana"]
    assert names(convergence.users(LOGINS, roles, ["occupancy"])) == ["occupancy", "grafana"]
    assert names(convergence.memberships(LOGINS, roles)) == ["grafana"]


def test_memberships_are_exact() -> None:
    roles = server()
    roles["occupancy_restore"]["member_of"] = ["occupancy", "pg_read_all_data"]
    assert names(convergence.memberships(LOGINS, roles)) == ["occupancy_restore"]


KEPT = {name: {"sha256": hashlib.sha256(b"old password").hexdigest()} for name in ("a", "b")}


def test_missing_and_changed_passwords_are_written() -> None:
    assert convergence.outdated_passwords(["a", "b", "c"], KEPT, {"a": "old password"}, rotate=False) == ["c"]
    assert convergence.outdated_passwords(["a", "b"], KEPT, {"a": "new password"}, rotate=False) == ["a"]


def test_a_rotation_replaces_generated_passwords_only() -> None:
    assert convergence.outdated_passwords(["a", "b"], KEPT, {"a": "old password"}, rotate=True) == ["b"]


def kernel(container: str = "", **setting: Any) -> dict[str, Any]:
    return {
        "container": container,
        "settings": {"vm.swappiness": {"value": "60", "writable": True} | setting},
    }


def test_kernel_settings_are_loaded_or_skipped() -> None:
    wanted = {"vm.swappiness": 10}
    assert convergence.kernel(wanted, kernel())["differs"] == ["vm.swappiness"]
    found = convergence.kernel(wanted, kernel(value="10"))
    assert (found["allowed"], found["differs"]) == (["vm.swappiness"], [])
    (reason,) = convergence.kernel(wanted, kernel(container="lxc"))["skipped"]
    assert reason == "skipped vm.swappiness: the host is a container (lxc)"
    (reason,) = convergence.kernel(wanted, kernel(writable=False))["skipped"]
    assert "read-only" in reason
    (reason,) = convergence.kernel({"vm.unknown": 1}, kernel())["skipped"]
    assert "does not have it" in reason


def test_other_programs_may_have_more_huge_pages() -> None:
    facts = {"container": "", "settings": {"vm.nr_hugepages": {"value": "200", "writable": True}}}
    assert convergence.kernel({"vm.nr_hugepages": "100"}, facts)["differs"] == []
    assert convergence.kernel({"vm.nr_hugepages": "300"}, facts)["differs"] == ["vm.nr_hugepages"]


BLOCK = "POSTGRES_DB=occupancy\nPOSTGRES_PASSWORD=\nPOSTGRES_USER=occupancy\nPGPASSWORD=\nPGUSER=occupancy\n"
MARK = "written by the access role; change the inventory instead"
SECRETS = ["generated", "a#b $c 'd'", "it's $5", ' "outer" ', "back\\slash\\", "${HOME}`'\\"]


def env_wanted(path: Path, **changes: str) -> dict[str, str]:
    return {"path": str(path), "user": "occupancy", "text": BLOCK} | changes


def kept(secret: str) -> dict[str, dict[str, str]]:
    return {"occupancy": {"sha256": hashlib.sha256(secret.encode()).hexdigest()}}


@pytest.fixture(params=SECRETS)
def secret(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def env(tmp_path: Path, secret: str) -> Path:
    path = tmp_path / ".env"
    block = convergence.env_with_password(BLOCK, secret)
    path.write_text(f"OTHER=1\n# BEGIN {MARK}\n{block}# END {MARK}\nLAST=2\n")
    path.chmod(0o600)
    return path


def test_an_env_file_with_the_hosts_password_is_left_alone(env: Path, secret: str) -> None:
    assert convergence.outdated_env_files([env_wanted(env)], kept(secret), []) == []


def test_both_names_of_the_password_are_completed(secret: str) -> None:
    found = env_file.read(convergence.env_with_password(BLOCK, secret))
    assert (found["POSTGRES_PASSWORD"], found["PGPASSWORD"]) == (secret, secret)
    assert (found["POSTGRES_USER"], found["PGUSER"]) == ("occupancy", "occupancy")


def test_an_env_file_is_written_if_anything_differs(env: Path, secret: str) -> None:
    wanted = env_wanted(env)
    assert convergence.outdated_env_files([wanted], kept(secret), ["occupancy"]) == [wanted]
    assert convergence.outdated_env_files([wanted], kept("another"), []) == [wanted]
    assert convergence.outdated_env_files([wanted], {}, []) == [wanted]
    more = env_wanted(env, text=BLOCK + "MORE=1\n")
    assert convergence.outdated_env_files([more], kept(secret), []) == [more]
    missing = env_wanted(env.parent / "missing")
    assert convergence.outdated_env_files([missing], kept(secret), []) == [missing]
    env.chmod(0o644)
    assert convergence.outdated_env_files([wanted], kept(secret), []) == [wanted]
    env.write_text("OTHER=1\n")
    env.chmod(0o600)
    assert convergence.outdated_env_files([wanted], kept(secret), []) == [wanted]


def test_an_env_file_that_is_not_wanted_is_not_written() -> None:
    wanted = env_wanted(Path("x")) | {"path": ""}
    assert convergence.outdated_env_files([wanted], {}, ["occupancy"]) == []
