"""Hosts in batches: which are taken together, which are left out, and when no further batch begins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioning import migration_plan, restarts

ROOT = Path(__file__).parents[2]
PARTS = ("batches", "provision", "rotate")
"""The playbooks whose play takes the hosts in batches: migrations, and everything that restarts a server."""


def test_no_batch_begins_after_too_many_hosts_have_failed() -> None:
    play = ["one", "two", "three"]
    assert migration_plan.stop_reason(play, play, 0) == ""
    assert migration_plan.stop_reason(play, ["two", "three"], 1) == ""
    assert "1 failed (one)" in migration_plan.stop_reason(play, ["two", "three"], 0)


def test_hosts_that_are_offline_have_a_budget_of_their_own() -> None:
    homes = [f"home{number}" for number in range(1, 51)]
    assert migration_plan.offline_problem(homes, homes, 0) == ""
    assert migration_plan.offline_problem(homes, homes[1:], 1) == ""
    said = migration_plan.offline_problem(homes, homes[2:], 1)
    assert "2 of 50 hosts are offline (home1, home2)" in said


def test_the_first_host_determines_the_size_of_the_batches() -> None:
    groups = {"occupancy": ["one", "two"]}
    variables = {"one": {"migrations_serial": [2, "50%"]}, "two": {}}
    assert migration_plan.batch_sizes("occupancy", groups, variables) == [2, "50%"]
    assert migration_plan.batch_sizes("occupancy", groups, {"one": {}}) == [1, 5, 10]
    assert migration_plan.batch_sizes("homes", {}, {}) == [1, 5, 10]


def test_a_play_leaves_out_the_hosts_that_did_not_answer() -> None:
    assert migration_plan.online_hosts("homes", {"homes": ["one", "two"]}) == "homes"
    assert (
        migration_plan.online_hosts("homes", {"homes": [], "occupancy_online": []})
        == "homes:&occupancy_online"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_a_play_that_may_restart_servers_takes_the_hosts_in_batches(path: Path) -> None:
    for play in yaml.safe_load(path.read_text()):
        roles = {
            one["ansible.builtin.import_role"]["name"]
            for one in play.get("tasks", [])
            if "ansible.builtin.import_role" in one
        }
        of_the_controller = str(play.get("hosts")).startswith("localhost")
        if roles & {"postgres", "docker_engine"} and not of_the_controller:
            assert {"serial"} < play.keys(), play["name"]
            assert "| online_hosts(" in play["hosts"]


# Runs

NOWHERE: dict[str, Any] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
"""The variables of a host that is offline: no program listens there."""


def batches(
    tmp_path: Path, playbook: str, homes: dict[str, dict[str, Any]], **variables: object
) -> tuple[int, list[str], str]:
    """Run the play of a playbook on some homes, with one task in place of its own: code, batches, output."""
    place = tmp_path / "checkout"
    (place / "roles/migrations").mkdir(parents=True)
    for name in ("playbooks", "provisioning", "roles/migrations/defaults"):
        shutil.copytree(ROOT / name, place / name)
    (play,) = (
        one for one in yaml.safe_load((place / f"playbooks/{playbook}.yml").read_text()) if "hosts" in one
    )
    ends = [task for task in play["tasks"] if re.search(r"tasks/(stop|begin)\.yml", str(task))]
    assert len(ends) == 1
    own: dict[str, Any] = {
        "ansible.builtin.debug": {"msg": "batch={{ ansible_play_batch | join(',') }}"},
        "failed_when": "fails | default(false)",
    }
    play |= {"tasks": [*ends, own], "become": False}
    play["vars"] = play.get("vars", {}) | {
        "batches_always": True,
        **yaml.safe_load(migration_plan.DEFAULTS.read_text()),  # of the role, whose tasks are left out
        **variables,
    }
    (place / f"playbooks/{playbook}.yml").write_text(yaml.safe_dump([play]))
    run = "- import_playbook: reach.yml\n- import_playbook: " + playbook + ".yml\n"
    (place / "playbooks/run.yml").write_text(run)
    (place / "hosts.json").write_text(json.dumps({"occupancy": {"hosts": homes}}))
    command = ["ansible-playbook", "playbooks/run.yml", "--inventory", "hosts.json"]
    done = subprocess.run(
        [*command, "--extra-vars", json.dumps(variables)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place), "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = list(dict.fromkeys(re.findall(r"batch=([\w,]+)", done.stdout)))
    return done.returncode, found, done.stdout + done.stderr


HERE: dict[str, Any] = {"ansible_connection": "local"}


@pytest.mark.parametrize("playbook", PARTS)
def test_a_home_that_is_offline_stops_no_other_and_is_named(tmp_path: Path, playbook: str) -> None:
    homes: dict[str, dict[str, Any]] = {
        "one": NOWHERE,
        "two": HERE,
        "three": HERE,
        "four": NOWHERE,
        "five": HERE,
    }
    code, found, said = batches(tmp_path, playbook, homes)
    assert (code, found) == (4, ["two", "three,five"]), said
    assert re.findall(r"│ (\w+) .*│ unreachable", said) == ["one", "four"]


@pytest.mark.parametrize("playbook", PARTS)
def test_nothing_begins_where_too_many_homes_are_offline(tmp_path: Path, playbook: str) -> None:
    homes: dict[str, dict[str, Any]] = {"one": HERE, "two": NOWHERE, "three": NOWHERE}
    code, found, said = batches(tmp_path, playbook, homes, migrations_max_unreachable=1)
    assert code != 0
    assert found == []
    assert "2 of 3 hosts are offline (two, three)" in " ".join(said.split())


@pytest.mark.parametrize("playbook", PARTS)
def test_a_home_that_fails_stops_the_batches_whatever_the_offline_ones(tmp_path: Path, playbook: str) -> None:
    homes: dict[str, dict[str, Any]] = {
        "one": HERE,
        "two": HERE | {"fails": True},
        "three": HERE,
        "four": HERE,
        "five": NOWHERE,
    }
    code, found, said = batches(tmp_path, playbook, homes, migrations_serial=[1, 2])
    assert code != 0
    assert found == ["one", "two,three"], said
    assert "1 failed (two), and migrations_max_failures is 0: not begun." in " ".join(said.split())


def test_one_home_needs_no_other_play(tmp_path: Path) -> None:
    code, found, said = batches(tmp_path, "provision", {"one": HERE})
    assert (code, found) == (0, ["one"]), said
    assert "ok=3 " in said  # two checks of the tags and the home's own task
    assert "│" not in said


# Restarts

COMPOSE = (ROOT / "compose/compose.yaml").read_text()
PROJECT = {
    "OCCUPANCY_POSTGRES_IMAGE": "postgres:1",
    "OCCUPANCY_MEMORY": "512m",
    "OCCUPANCY_OPS_IMAGE": "ops:1",
}
HOST = {"container": {"running": True, "current": True}, "project": PROJECT}
SERVER = {"restart": False, "fixed": {"max_connections": "20", "shared_buffers": "128MB", "wal_level": None}}


def env(**changes: str) -> dict[str, str]:
    text = "".join(f"{name}={value}\n" for name, value in (PROJECT | changes).items())
    return {"path": "/opt/occupancy/.env", "text": f"# Values\n{text}"}


def conf(*lines: str) -> dict[str, str]:
    kept = ["max_connections = '20'", "shared_buffers = '128MB'", "work_mem = '4MB'"]
    return {"path": "/opt/occupancy/postgresql/postgresql.conf", "text": "\n".join([*kept, *lines, ""])}


def changed_conf(before: str, after: str) -> dict[str, str]:
    file = conf()
    return file | {"text": file["text"].replace(before, after)}


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        ([], []),
        ([env(OCCUPANCY_OPS_IMAGE="ops:2")], []),  # the tools' image is not the server's
        (
            [env(OCCUPANCY_POSTGRES_IMAGE="postgres:2")],
            ["OCCUPANCY_POSTGRES_IMAGE: postgres:1 → postgres:2"],
        ),
        ([env(OCCUPANCY_MEMORY="600m")], ["OCCUPANCY_MEMORY: 512m → 600m"]),
        ([{"path": "/opt/occupancy/compose.yaml", "text": COMPOSE}], ["compose.yaml has changed"]),
        ([changed_conf("'4MB'", "'8MB'")], []),  # a reload is enough
        ([changed_conf("'20'", "'30'")], ["max_connections: 20 → 30"]),
        ([conf("wal_level = logical")], ["wal_level: default → logical"]),
        ([changed_conf("shared_buffers", "#")], ["shared_buffers: 128MB → default"]),
    ],
)
def test_the_reasons_of_a_restart(files: list[dict[str, str]], reasons: list[str]) -> None:
    assert restarts.reasons(HOST, SERVER, files, COMPOSE) == reasons


def test_a_restart_that_an_earlier_run_has_left() -> None:
    (said,) = restarts.reasons(HOST, SERVER | {"restart": True}, [], COMPOSE)
    assert said == "settings of an earlier run wait for a restart"
    other = HOST | {"container": {"running": True, "current": False}}
    (said,) = restarts.reasons(other, SERVER, [], COMPOSE)
    assert said == "its container has another image or configuration than the project"


def test_a_server_that_does_not_run_is_not_restarted() -> None:
    stopped = HOST | {"container": {"running": False, "current": False}}
    assert restarts.reasons(stopped, None, [env(OCCUPANCY_MEMORY="600m")], COMPOSE) == []
    assert restarts.reasons(HOST, None, [conf()], COMPOSE) == []
