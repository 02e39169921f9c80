"""The result of the tuning formula in facts, rendered files and the output of the command."""

import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from typer.testing import CliRunner

from occupancy_db.cli.app import app
from occupancy_db.errors import ExitCode
from occupancy_db.server import tuning
from occupancy_db.server.tuning import (
    Client,
    Request,
)
from provisioning import other_databases

ROOT = Path(__file__).parents[2]


def test_the_formula_and_the_playbook_have_the_same_users() -> None:
    roles = yaml.safe_load((ROOT / "roles/occupancy/vars/main.yml").read_text())["occupancy_roles"]
    theirs = {
        role["name"]: Client(role["connections"], 1 if "pools" in role else 0)  # of one process
        for role in roles
    }  # fmt: skip
    ours = dict(tuning.clients())
    others = sum(client.connections for name, client in theirs.items() if name not in ours)
    assert ours.pop("all others") == Client(others)
    assert {name: theirs[name] for name in ours} == ours


def test_the_command_and_the_roles_have_the_same_default_of_cores() -> None:
    defaults = yaml.safe_load((ROOT / "roles/occupancy/defaults/main.yml").read_text())
    assert defaults["occupancy_cpus"] == tuning.CORES_BY_DEFAULT


def filtered(**changes: Any) -> dict[str, Any]:
    """Return the facts that the playbook's filter calculates for a host."""
    namespace: dict[str, Any] = {}
    exec((ROOT / "roles/tuning/filter_plugins/tuning.py").read_text(), namespace)  # noqa: S102
    request = {
        "host": {"cores": 2, "memory_mb": 3900, "device": "sda1", "rotational": 1, "disk_mb": 30000},
        "cpus": 4, "memory": 0, "disk": "auto", "workload": "mixed", "environment": "production",
        "users": [{"name": "app", "connections": 5, "pools": 1}, {"name": "grafana", "connections": 5}],
        "wal_compression": "lz4", "huge_pages": False, "overrides": {},
    }  # fmt: skip
    found: dict[str, Any] = namespace["FilterModule"]().filters()["tuning_plan"](request | changes)
    return found


def test_the_owners_of_other_databases_are_part_of_the_plan() -> None:
    def users(connections: int) -> list[dict[str, Any]]:
        entry = {"name": "homeassistant", "owner": "hass", "connections": connections}
        owners = other_databases.owners(other_databases.complete([entry], []))
        return [{"name": "app", "connections": 5, "pools": 1}, *owners]

    assert filtered(users=users(10))["connections"]["hass"] == 13
    assert "913 sessions" in filtered(users=users(900))["refused"]


def test_the_playbook_gets_the_plan_as_facts() -> None:
    facts = filtered()
    texts = {setting["name"]: setting["text"] for setting in facts["settings"]}
    assert facts["refused"] == ""
    assert facts["container"] == {"memory": "1664m", "cpus": "2", "shm_size": facts["container"]["shm_size"]}
    assert facts["connections"] == {"app": 10, "grafana": 5}
    assert facts["pool"] == {"size": 5, "overflow": 0}
    assert (texts["random_page_cost"], texts["wal_compression"]) == ("4", "lz4")
    assert texts["max_connections"] == "25"
    assert texts["max_wal_size"] == "2944MB"
    assert json.loads(json.dumps(facts)) == facts
    assert filtered(disk="ssd")["inputs"] == "2 cores, 1664 MB, ssd, mixed"


def rendered(template: str, **variables: Any) -> str:
    """Render a template with the settings of Ansible."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    source = (ROOT / "roles" / template).read_text()
    return environment.from_string(source).render(ansible_managed="written by a test", **variables)


def test_each_setting_has_its_reason_as_a_comment() -> None:
    facts = filtered(overrides={"log_line_prefix": "it's %m "})
    text = rendered("postgres/templates/postgresql.conf.j2", postgres_tuning=facts)
    assert "# a quarter of the container's memory limit (20.4.1)\nshared_buffers = '416MB'\n" in text
    assert "# set by the operator (postgres_settings)\nlog_line_prefix = 'it''s %m '\n" in text
    assert facts["budget"] in text


def test_kernel_parameters_have_their_reason_as_a_comment() -> None:
    text = rendered(
        "tuning/templates/sysctl.conf.j2",
        tuning_plan=filtered(),
        tuning_sysctl={"vm.dirty_ratio": 5, "vm.overcommit_memory": 2},
        __tuning_sysctl={"vm.swappiness": "10", "vm.dirty_ratio": 5, "vm.overcommit_memory": 2},
        __tuning_allowed=["vm.swappiness", "vm.dirty_ratio", "vm.overcommit_memory"],
    )
    assert "(kernel.org, sysctl/vm)\nvm.swappiness = 10\n" in text
    assert "# From tuning_sysctl\nvm.dirty_ratio = 5\n" in text
    assert "# From tuning_sysctl\nvm.overcommit_memory = 2\n" in text


def test_the_playbook_gets_the_reason_of_a_refusal() -> None:
    assert "exceed the memory" in filtered(overrides={"work_mem": "1GB"})["refused"]
    assert filtered(memory=4096)["refused"] == (
        "occupancy_memory_mb is 4096, but the host has 3900 MB of memory"
    )


def test_the_command_explains_and_refuses() -> None:
    run = CliRunner()
    plain = run.invoke(app, ["tune", "--memory", "1024", "--cores", "2", "--set", "work_mem=2MB"])
    assert "work_mem = 2MB" in plain.output.splitlines()
    explained = run.invoke(app, ["tune", "--memory", "1024", "--explain"])
    for setting in tuning.plan(Request(2, 1024)).settings:
        assert setting.name in explained.output
    assert "memory in the worst case: shared_buffers 256" in explained.output
    refused = run.invoke(app, ["tune", "--memory", "1024", "--set", "work_mem=1GB"])
    assert refused.exit_code == ExitCode.CONFIGURATION
