"""The roles and the files that they write, without a host: what is said twice is said alike."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from occupancy_db.schema.runner import script_directory
from occupancy_db.settings import Settings

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: str) -> Any:
    return yaml.safe_load(read(path))


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def keys_of(text: str) -> list[str]:
    return re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)


def test_there_are_roles() -> None:
    assert len(ROLES) >= 7


# Variables


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    defaults = load(f"roles/{role}/defaults/main.yml")
    # A default that is worked out from other variables has no place in the specs: their description tells it.
    plain = {name: value for name, value in defaults.items() if "{{" not in str(value)}
    assert set(defaults) == set(options(role))
    assert plain == {name: spec["default"] for name, spec in options(role).items() if "default" in spec}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_stands_under_a_comment(role: str) -> None:
    paragraphs = re.split(r"\n\s*\n", read(f"roles/{role}/defaults/main.yml").removeprefix("---\n"))
    assert [text for text in paragraphs if not text.lstrip().startswith("#")] == []


def defined(node: Any) -> set[str]:
    """Variables that outlive the task: registered ones and facts."""
    if isinstance(node, list):
        return {name for item in node for name in defined(item)}
    if not isinstance(node, dict):
        return set()
    names = {node["register"]} if isinstance(node.get("register"), str) else set()
    names |= set(node.get("ansible.builtin.set_fact", ())) - {"cacheable"}
    return names.union(*(defined(value) for value in node.values()))


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_their_role(role: str) -> None:
    names = set(load(f"roles/{role}/defaults/main.yml"))
    for path in sorted((ROOT / "roles" / role).glob("vars/*.yml")):
        names |= set(yaml.safe_load(path.read_text()))
    for path in sorted((ROOT / "roles" / role).glob("tasks/*.yml")):
        names |= defined(yaml.safe_load(path.read_text()))
    assert names
    assert {name for name in names if not name.startswith((f"{role}_", "occupancy_", f"__{role}_"))} == set()


@pytest.mark.parametrize("inventory", ["inventories/local", "inventories/fleet.example"])
def test_inventories_name_variables_that_exist(inventory: str) -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / inventory).rglob("*.yml")))
    prefixes = "|".join(ROLES)
    # Those in comments too: they are there to be used.
    named = set(re.findall(rf"^[ #]*((?:{prefixes})_\w+):", text, re.MULTILINE))
    assert named
    assert named - {name for role in ROLES for name in options(role)} == set()


def test_no_task_ignores_errors() -> None:
    files = [path for folder in ("roles", "playbooks", "molecule") for path in (ROOT / folder).rglob("*.yml")]
    assert len(files) > 30
    assert [path for path in files if "ignore_errors" in path.read_text()] == []


# Files that the roles write


def test_compose_gets_the_variables_it_needs() -> None:
    needed = set(re.findall(r"\$\{([A-Z_]+)", read("compose/compose.yaml")))
    assert needed == set(keys_of(read("compose/example.env")))
    assert needed == set(keys_of(read("roles/postgres/templates/env.j2")))


def test_every_container_may_do_no_more_than_it_must() -> None:
    services = load("compose/compose.yaml")["services"]
    assert set(services) == {"postgres", "initdb", "ops", "backup", "migrate", "restore"}
    for service in services.values():
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert service["security_opt"] == ["no-new-privileges:true"]
    tools = [service for name, service in services.items() if name != "postgres"]
    assert {(service["network_mode"], *service["profiles"]) for service in tools} == {("none", "tools")}
    secrets = {name: service.get("secrets", []) for name, service in services.items()}
    product = {role["name"] for role in load("roles/occupancy/vars/main.yml")["occupancy_roles"]}
    assert set(secrets.pop("restore")) == product
    assert set(secrets.pop("migrate")) == product - {"occupancy_restore"}
    assert secrets == {"postgres": [], "initdb": [], "ops": ["occupancy"], "backup": ["occupancy_backup"]}


def test_revisions_are_called_as_their_files_in_the_order_of_the_chain() -> None:
    # The playbook goes by the files' names.
    chain = [script.revision for script in script_directory().walk_revisions()][::-1]
    assert sorted(path.stem for path in (ROOT / "migrations/versions").glob("*.py")) == chain


@pytest.fixture
def pg_hba() -> list[list[str]]:
    """The rules for a host with a user of its own and one network, as fields."""
    variables: dict[str, Any] = load("roles/occupancy/vars/main.yml") | {
        "ansible_managed": "written by a test",
        "occupancy_users": [{"name": "grafana", "role": "occupancy_readonly"}],
        "occupancy_databases": ["occupancy", "occupancy_test"],
        "occupancy_restoring": "occupancy_restoring",
        "occupancy_replaced": "occupancy_replaced",
        "occupancy_allowed_cidrs": ["192.168.10.0/24"],
    }
    for name, value in load("roles/postgres/vars/main.yml").items():
        if name.endswith("_users"):
            variables[name] = (
                NativeEnvironment(undefined=StrictUndefined).from_string(value).render(variables)
            )
    # As Ansible renders
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    text = environment.from_string(read("roles/postgres/templates/pg_hba.conf.j2")).render(variables)
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_pg_hba_trusts_nobody_and_ends_in_a_reject(pg_hba: list[list[str]]) -> None:
    assert pg_hba[-1] == ["host", "all", "all", "all", "reject"]
    assert {"reject", "scram-sha-256", "peer", "map=admins"} == {
        word for rule in pg_hba for word in rule[3 if rule[0] == "local" else 4 :]
    }


def test_pg_hba_lets_nobody_in_without_tls(pg_hba: list[list[str]]) -> None:
    over_the_network = [rule for rule in pg_hba if rule[0] != "local" and rule[-1] != "reject"]
    assert [rule[0] for rule in over_the_network] == ["hostssl", "hostssl"]
    assert [rule[3] for rule in over_the_network] == ["samenet", "192.168.10.0/24"]
    for rule in over_the_network:
        assert rule[1] == "occupancy,occupancy_test"
        assert set(rule[2].split(",")) == {
            "occupancy", "occupancy_app", "occupancy_readonly", "occupancy_monitor", "grafana",
        }  # fmt: skip


def test_pg_hba_refuses_before_it_admits(pg_hba: list[list[str]]) -> None:
    first_from_network = next(number for number, rule in enumerate(pg_hba) if rule[0] == "hostssl")
    assert pg_hba[0] == ["local", "all", "postgres", "peer", "map=admins"]
    assert (
        pg_hba.index(["host", "all", "postgres,occupancy_backup,occupancy_restore", "all", "reject"])
        < first_from_network
    )
    assert [rule for rule in pg_hba if rule[0] == "local"][-1] == ["local", "all", "all", "reject"]


def test_pg_hba_keeps_what_a_restore_works_on_to_the_socket(pg_hba: list[list[str]]) -> None:
    rules = {
        (rule[0], database): rule[2].split(",")
        for rule in pg_hba
        for database in rule[1].split(",")
        if database in ("occupancy_restoring", "occupancy_replaced", "postgres")
    }
    product = [role["name"] for role in load("roles/occupancy/vars/main.yml")["occupancy_roles"]]
    assert rules == {
        ("local", "occupancy_restoring"): product,
        ("local", "postgres"): ["occupancy_restore"],
        ("local", "occupancy_replaced"): ["occupancy_restore"],
    }


# .env.example


def test_example_env_lists_every_setting() -> None:
    assert keys_of(read(".env.example")) == [name.upper() for name in Settings.model_fields]
    for name, value in re.findall(r"^([A-Z_]+)=(.+)$", read(".env.example"), re.MULTILINE):
        assert str(Settings.model_fields[name.lower()].default) == value
