"""The structure of the playbooks, and the decisions of provisioning/, without a host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from occupancy_db.release.results import Deployment
from playbooks.filter_plugins import playbooks
from provisioning import migration_plan, run_tags, sudo

ROOT = Path(__file__).parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
PURPOSES = {"digests", "site", "migrate", "backup", "restore", "rotate", "images", "uninstall", "status"}
UV = ROOT / ".venv/bin/uv"


def values(node: Any, key: str) -> Iterator[Any]:
    """Yield the values of a key at any depth."""
    if isinstance(node, list):
        for item in node:
            yield from values(item, key)
    elif isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from values(value, key)


@cache
def ansible(*arguments: str) -> str:
    """Run ansible-playbook, which must succeed, and return its output."""
    done = subprocess.run(
        ["ansible-playbook", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(playbook: str, *arguments: str) -> str:
    """Run a playbook for the local inventory, and return its output."""
    return ansible(f"playbooks/{playbook}.yml", "--inventory", "inventories/local", *arguments)


def plays(listing: str) -> dict[str, list[str]]:
    """The tasks of each play, as --list-tasks prints them; the numbers of the plays are left out."""
    found: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if play := re.match(r"  play #\d+ \(.*\): (.+?)\s*TAGS", line):
            found[play[1]] = []
        elif task := re.match(r"      (.+?)\s*TAGS", line):
            found[next(reversed(found))].append(task[1])
    return found


# Playbooks


def test_there_is_a_playbook_for_each_purpose() -> None:
    assert {path.stem for path in PLAYBOOKS} - PURPOSES == {
        "provision",
        "batches",
        "reach",
    }  # parts of site.yml


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_imported_playbooks_are_named_and_not_computed(path: Path) -> None:
    names = list(values(yaml.safe_load(path.read_text()), "ansible.builtin.import_playbook"))
    assert [name for name in names if not (path.parent / name).is_file()] == []


def test_every_tag_is_known_and_every_known_tag_selects_a_task() -> None:
    used = set()
    for path in PLAYBOOKS:
        for tags in values(yaml.safe_load(path.read_text()), "tags"):
            used |= set(tags)
    assert used - set(run_tags.SPECIAL) == set(run_tags.ROLES) | set(run_tags.JOBS)


SELECTED = {
    "access": {"access"},
    "backup": {"backup: signing", "backup"},
    "checks": {"checks"},
    "docker_engine": {"docker_engine: check", "docker_engine"},
    "migrate": {"migrations"},
    "migrations": {"migrations"},
    "monitoring": {"monitoring"},
    "notify": {"notify"},
    "postgres": {"tuning: codec", "postgres", "migrations: serves"},
    "restore": {"backup: restore"},
    "restore-rollback": {"backup: restore"},
    "retention": {"retention"},
    "rotate-passwords": {"access: rotate", "monitoring: rotated", "migrations: serves"},
    "rotate-signing": {"backup: signing"},
    "rotate-tls": {"tls", "postgres: certificate", "migrations: serves"},
    "tls": {"tls", "postgres: certificate", "migrations: serves"},
    "tuning": {"tuning: codec", "tuning: host", "postgres", "migrations: serves", "access: limits"},
}
"""The roles, or files of their tasks, that each tag selects beside preflight, packages and directories."""


@pytest.mark.parametrize("playbook", ["provision", "rotate"])
def test_a_tag_selects_its_own_tasks_and_no_others(playbook: str) -> None:
    found: dict[str, set[str]] = {}
    (play,) = (
        play for play in yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text()) if "tasks" in play
    )
    for task in play["tasks"]:
        role = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role")
        for tag in set(task["tags"]) - {"never"} if role and task.get("when") is not False else ():
            part = role.get("tasks_from", "main.yml").removesuffix(".yml")
            found.setdefault(tag, set()).add(role["name"] + (f": {part}" if part != "main" else ""))
    always = found.pop("always")
    assert always <= {"occupancy: preflight", "occupancy: converge", "container_images"}
    assert found == {tag: SELECTED[tag] for tag in found}
    assert set(found) == set(SELECTED) if playbook == "provision" else set(found) <= set(SELECTED)


def test_what_a_tag_changes_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z_-]+)` \| (.+) \|$", (ROOT / "docs/hosts.md").read_text(), re.MULTILINE)
    assert {tag: text for tag, text in rows if tag in run_tags.ROLES | run_tags.JOBS} == (
        run_tags.ROLES | run_tags.JOBS
    )


@pytest.mark.parametrize(
    ("tags", "brought"),
    [
        (("all",), True),
        (("postgres",), True),
        (("backup", "retention"), False),
        (("rotate-tls",), False),
    ],
)
def test_images_are_brought_where_the_tags_need_them(tags: tuple[str, ...], brought: bool) -> None:
    assert run_tags.brings_images(tags) == brought


def test_the_tag_of_a_role_is_its_name() -> None:
    # The roles occupancy and container_images always run; site.yml does not contain uninstall.
    roles = {path.name for path in (ROOT / "roles").iterdir()} - {
        "occupancy",
        "container_images",
        "uninstall",
    }
    assert set(run_tags.ROLES) == roles


def test_without_tags_no_migration_goes_alone() -> None:
    found = plays(run("site", "--list-tasks"))
    assert found["Migrate the hosts in batches"] == []
    assert "postgres : Create the cluster" in found["Provision PostgreSQL for the occupancy system"]


def test_the_tag_migrate_selects_the_plays_of_the_playbook_migrate() -> None:
    site, migrate = (
        plays(run("site", "--tags", "migrate", "--list-tasks")),
        plays(run("migrate", "--list-tasks")),
    )
    for play in ("Find the hosts that are online", "Migrate the hosts in batches"):
        assert site[play] == migrate[play] != []
    assert (
        "Leave a run with the tag migrate to batches.yml"
        in site["Provision PostgreSQL for the occupancy system"]
    )


@pytest.mark.parametrize(
    ("playbook", "tag"),
    [
        ("site", "postgres"),
        *((name, f"rotate-{what}") for name in ("site", "rotate") for what in ("tls", "passwords")),
    ],
)
def test_what_may_stop_an_application_ends_with_its_gate(playbook: str, tag: str) -> None:
    tasks = [task for part in plays(run(playbook, "--tags", tag, "--list-tasks")).values() for task in part]
    assert any("Write and read as the application" in task for task in tasks)


def test_skip_tags_migrations_skips_no_other_role() -> None:
    play = "Provision PostgreSQL for the occupancy system"
    every, without = (
        plays(run("site", "--list-tasks", *more))[play] for more in ((), ("--skip-tags", "migrations"))
    )
    left = set(every) - set(without)
    assert left >= {"migrations : Migrate the schema"}
    assert {task for task in left if not task.startswith("migrations : ")} <= {
        "Remove images of older releases"
    }


def test_the_inventory_group_is_a_variable(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("homes: {hosts: {home-berlin: {}}}\n")
    paths = [f"playbooks/{name}.yml" for name in sorted(PURPOSES - {"images", "digests"})]
    listed = ansible(
        *paths, "--list-hosts", "--inventory", str(inventory), "--extra-vars", "occupancy_group=homes"
    )
    for text in listed.split("\nplaybook: ")[1:]:
        assert re.findall(r"^      (home-berlin)$", text, re.MULTILINE), text


def test_modules_that_run_as_root_write_no_bytecode_into_the_environment_of_the_project() -> None:
    for path in [*PLAYBOOKS, *(ROOT / "molecule/shared").glob("*.yml")]:
        for play in yaml.safe_load(path.read_text()):
            if "ansible_python_interpreter" in play.get("vars", {}):
                assert play["environment"] == {"PYTHONDONTWRITEBYTECODE": "1"}, path


# Tags


def test_the_tags_of_molecule_are_accepted() -> None:
    assert run_tags.unknown(["molecule-notest", "notest", "molecule-idempotence-notest"]) == ""


def test_a_misspelt_tag_is_refused_with_the_nearest_tag() -> None:
    problem = run_tags.unknown(["tunning", "backup"])
    assert "no tag tunning (did you mean tuning?)" in problem
    assert "backup?" not in problem
    assert "no tag xyzzy" in run_tags.unknown(["xyzzy"])
    assert run_tags.unknown(["all"]) == run_tags.unknown([*run_tags.ROLES, *run_tags.JOBS, "never"]) == ""


@pytest.mark.parametrize(
    ("tags", "alone", "refused"),
    [
        (("all",), False, False),
        (("migrate",), True, False),
        (("migrations", "migrate"), True, False),
        (("migrate", "backup"), False, True),
        (("backup",), False, False),
    ],
)
def test_migrations_run_alone(tags: tuple[str, ...], alone: bool, refused: bool) -> None:
    assert (run_tags.only_migrations(tags), run_tags.migrations_and_others(tags)) == (alone, refused)


# Becoming root


@pytest.mark.parametrize(("code", "named"), [(0, False), (1, True)])
def test_a_run_without_the_password_of_sudo_is_refused_with_the_command(
    code: int, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sudo"
    program.write_text(f'#!/bin/sh\n[ "$1" = -n ] && exit {code}\nexit 99\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert ("make up ANSIBLE_ARGS=--ask-become-pass" in sudo.find_problem(password_known=False)) == named
    assert sudo.find_problem(password_known=True) == ""


def test_a_run_without_sudo_and_without_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "sudo is not installed" in sudo.find_problem(password_known=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert sudo.find_problem(password_known=False) == ""


class _OmitType:
    """Named like Ansible's type of a variable that is omitted."""


@pytest.mark.parametrize(
    ("variables", "known"),
    [
        ({}, False),
        ({"ansible_become_password": _OmitType()}, False),
        ({"ansible_become_password": "secret"}, True),
        ({"ansible_become_password": _OmitType(), "ansible_become_pass": "secret"}, True),
        ({"ansible_become_method": "su"}, True),
    ],
)
def test_a_password_of_the_inventory_is_known(
    variables: dict[str, Any], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sudo, "find_problem", lambda given: str(given))
    assert playbooks.sudo_problem(variables) == str(known)


# Images


def test_the_images_are_made_whatever_the_limit() -> None:
    inventory = ("--inventory", "inventories/fleet.example", "playbooks/images.yml", "--list-hosts")
    everywhere = ansible(*inventory)
    assert "localhost" in everywhere
    limited = ansible(*inventory, "--limit", "home-berlin")
    assert "hosts (1):\n      home-berlin" in limited


# Migrations

RELEASE = ["001_one", "002_two", "003_three"]


def test_the_revisions_of_the_release_are_those_of_the_checkout() -> None:
    assert migration_plan.release_revisions(ROOT)[:2] == [
        "001_initial_schema",
        "002_postgresql_optimizations",
    ]


def test_the_plan_of_the_release_is_used_if_its_image_is_on_the_host() -> None:
    said = {
        "from": "002_two",
        "to": "003_three",
        "pending": [{"revision": "003_three"}],
        "ahead": [],
        "problems": [],
    }
    assert migration_plan.plan(said, True, RELEASE) == {**said, "pending": ["003_three"], "applied": []}
    blocked = {**said, "to": "002_two", "problems": ["a session holds a lock"]}
    assert migration_plan.plan(blocked, True, RELEASE)["problems"] == ["a session holds a lock"]
    # An image of the previous release does not have the third revision.
    older = {**said, "to": "002_two", "pending": []}
    assert migration_plan.plan(older, True, RELEASE)["pending"] == ["003_three"]


@pytest.mark.parametrize(
    ("revision", "pending", "to"),
    [
        (None, RELEASE, "003_three"),
        ("001_one", RELEASE[1:], "003_three"),
        ("003_three", [], "003_three"),
        ("004_four", [], "004_four"),
    ],
)
def test_revisions_are_compared_without_the_image(revision: str | None, pending: list[str], to: str) -> None:
    found = migration_plan.plan({"revision": revision}, False, RELEASE)
    assert (found["from"], found["pending"], found["to"]) == (revision or "", pending, to)
    assert bool(found["problems"]) == (revision == "004_four")


@pytest.mark.parametrize(
    "server",
    [
        None,
        {},
        {"revisions": []},
        {"revisions": [["002_two", None]]},
        {"revisions": [["003_three", None], ["004_branch", None]]},
        {"revisions": [["004_four", "001_one (expand), 004_four (expand)"]]},
        {"revisions": [["003_three", "003_three (expand); unproved"]]},
    ],
)
def test_the_tools_are_asked_unless_the_probe_has_found_the_newest_revision(
    server: dict[str, Any] | None,
) -> None:
    assert migration_plan.find_present(server, RELEASE) == {}


def test_the_tools_are_not_started_for_nothing() -> None:
    found = migration_plan.find_present({"revisions": [["003_three", "003_three (expand)"]]}, RELEASE)
    said = Deployment("", "003_three", "003_three", [], [], {}).as_dict()
    assert found == {name: said[name] for name in found}


def test_an_error_is_found_among_the_lines_of_docker() -> None:
    stderr = (
        'time="…" level=warning\n{"error": {"what": "a lock was not obtained", "hint": "end the session"}}\n'
    )
    outcome = migration_plan.read_outcome(9, "", stderr)
    problem = migration_plan.find_problem(9, outcome, stderr, RELEASE, "ops:1")
    assert problem == "a lock was not obtained. end the session"
    assert "no such image" in migration_plan.find_problem(125, {}, "no such image", RELEASE, "ops:1")


def test_the_image_of_another_release_is_refused_unless_the_schema_is_ahead() -> None:
    done = migration_plan.read_outcome(0, '{"to": "002_two", "ahead": [], "applied": []}', "")
    assert "ops:1 is of another release" in migration_plan.find_problem(0, done, "", RELEASE, "ops:1")
    assert migration_plan.find_problem(0, {**done, "ahead": ["002_two"]}, "", RELEASE, "ops:1") == ""
    assert migration_plan.find_problem(0, {**done, "to": "003_three"}, "", RELEASE, "ops:1") == ""


# Uninstall


def test_uninstall_knows_every_path_that_the_roles_write_outside_their_own_directories() -> None:
    text = "\n".join(
        path.read_text()
        for path in sorted((ROOT / "roles").glob("*/*/*.yml"))
        if path.parts[-3] != "uninstall"
    )
    written = set(re.findall(r"/(?:etc|usr/local)/[\w./-]*occupancy[\w.-]*", text))
    assert len(written) >= 8
    removed = yaml.safe_load((ROOT / "roles/uninstall/vars/main.yml").read_text())
    assert written - {*removed["__uninstall_jobs"], *removed["__uninstall_files"]} == set()
