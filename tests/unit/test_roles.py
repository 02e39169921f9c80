"""The roles and the files that they render, without a host."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from occupancy_db.schema.runner import script_directory
from occupancy_db.settings import Settings
from provisioning import other_databases

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
    # Defaults that are calculated from other variables are described in the specs, not listed.
    plain = {name: value for name, value in defaults.items() if "{{" not in str(value)}
    assert set(defaults) == set(options(role))
    assert plain == {name: spec["default"] for name, spec in options(role).items() if "default" in spec}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_comment(role: str) -> None:
    paragraphs = re.split(r"\n\s*\n", read(f"roles/{role}/defaults/main.yml").removeprefix("---\n"))
    assert [text for text in paragraphs if not text.lstrip().startswith("#")] == []


def defined(node: Any) -> set[str]:
    """Return the variables that a task defines: registered ones and facts."""
    if isinstance(node, list):
        return {name for item in node for name in defined(item)}
    if not isinstance(node, dict):
        return set()
    names = {node["register"]} if isinstance(node.get("register"), str) else set()
    names |= set(node.get("ansible.builtin.set_fact", ())) - {"cacheable"}
    return names.union(*(defined(value) for value in node.values()))


@pytest.mark.parametrize("role", ROLES)
def test_variables_have_the_prefix_of_their_role(role: str) -> None:
    names = set(load(f"roles/{role}/defaults/main.yml"))
    for path in sorted((ROOT / "roles" / role).glob("vars/*.yml")):
        names |= set(yaml.safe_load(path.read_text()))
    for path in sorted((ROOT / "roles" / role).glob("tasks/*.yml")):
        names |= defined(yaml.safe_load(path.read_text()))
    assert names
    assert {name for name in names if not name.startswith((f"{role}_", "occupancy_", f"__{role}_"))} == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_its_own_variables_and_those_of_occupancy(role: str) -> None:
    # playbooks/group_vars/all.yml passes results of other roles as inputs.
    others = "|".join(sorted(set(ROLES) - {role, "occupancy"}))
    named = re.compile(rf"(?<![\w.-])_{{0,2}}(?:{others})_\w+")
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("defaults", "tasks", "templates", "vars")
        for path in sorted((ROOT / "roles" / role / folder).glob("*"))
        for line in path.read_text().splitlines()
        for name in named.findall(line.partition("# ")[0])
    }
    assert found == set()


@pytest.mark.parametrize("path", ["playbooks/group_vars/all.yml"])
def test_inputs_of_roles_are_named_in_their_defaults(path: str) -> None:
    known = {name for role in ROLES for name in options(role)}
    # Both need the facts of the host, so that no argument_specs can check them.
    assert set(load(path)) - known <= {"occupancy_preflight", "occupancy_refused_tuning"}


@pytest.mark.parametrize("inventory", ["inventories/local", "inventories/fleet.example"])
def test_inventories_name_variables_that_exist(inventory: str) -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / inventory).rglob("*.yml")))
    prefixes = "|".join(ROLES)
    # Variables in comments as well: operators uncomment them.
    named = set(re.findall(rf"^[ #]*((?:{prefixes})_\w+):", text, re.MULTILINE))
    assert named
    assert named - {name for role in ROLES for name in options(role)} == set()


TASK_FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
# A task name begins with a verb in the imperative, so that it can be read in a log.
VERBS = {
    "Add", "Ask", "Bootstrap", "Bring", "Build", "Check", "Choose", "Collect", "Converge", "Copy",
    "Create", "Decide", "Download", "Drop", "End", "Find", "Hand", "Install", "Issue", "Keep",
    "Leave", "List", "Load", "Look", "Make", "Migrate", "Move", "Pin", "Plan", "Prepare",
    "Provision", "Publish", "Pull", "Read", "Record", "Refuse", "Reload", "Remove", "Render", "Replace",
    "Report", "Restart", "Restore", "Revoke", "Run", "Save", "Set", "Show", "Sign", "Start", "Stop",
    "Tag", "Take", "Verify", "Wait", "Write",
}  # fmt: skip


def names_of_tasks(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from names_of_tasks(item)
    elif isinstance(node, dict):
        if isinstance(node.get("name"), str):
            yield node["name"]
        for key in ("tasks", "block", "rescue", "always"):
            yield from names_of_tasks(node.get(key))


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_task_files_are_short_and_their_tasks_are_named_by_a_verb(path: Path) -> None:
    text = path.read_text()
    # provision.yml lists the roles, with a few lines for each.
    assert len(text.splitlines()) <= (80 if path.parent.name == "tasks" else 120)
    names = list(names_of_tasks(yaml.safe_load(text)))
    assert [name for name in names if re.split(r"\W", name)[0] not in VERBS] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/files/*.py")), ids=lambda path: path.name)
def test_programs_of_hosts_run_with_python_3_10(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))  # Ubuntu 22.04
    later = {"UTC", "tomllib", "StrEnum", "ExceptionGroup", "TaskGroup", "file_digest", "Self"}
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & later


def test_no_task_ignores_errors() -> None:
    files = [path for folder in ("roles", "playbooks", "molecule") for path in (ROOT / folder).rglob("*.yml")]
    assert len(files) > 30
    assert [path for path in files if "ignore_errors" in path.read_text()] == []


# Files that the roles write


def test_compose_gets_the_variables_it_needs() -> None:
    needed = set(re.findall(r"\$\{([A-Z_]+)", read("compose/compose.yaml")))
    assert needed == set(keys_of(read("compose/example.env")))
    # publish-port reads the addresses.
    assert needed | {"OCCUPANCY_LISTEN_ADDRESSES"} == set(keys_of(read("roles/postgres/templates/env.j2")))


@pytest.mark.parametrize(
    ("given", "led", "loopback"),
    [
        ("127.0.0.1", "", []),
        ("192.168.1.7", "192.168.1.7", []),
        (["127.0.0.1", "192.168.1.7", "10.0.0.7", "::1"], "192.168.1.7,10.0.0.7", ["[::1]"]),
    ],
)
def test_the_engine_publishes_on_loopback_addresses_alone(
    given: object, led: str, loopback: list[str]
) -> None:
    """Its proxy shows clients under the bridge's address, which pg_hba.conf admits (samenet)."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701
    variables: dict[str, Any] = {
        "ansible_managed": "written by a test",
        "occupancy_listen_addresses": given if isinstance(given, list) else [given],
        "occupancy_others": [],
    }
    template = environment.from_string(read("roles/postgres/templates/compose.override.yaml.j2"))
    override = yaml.safe_load(template.render(variables))
    ports = [f"{address}:${{OCCUPANCY_PORT:?}}:5432" for address in loopback]
    assert override == {"services": {"postgres": {"ports": ports}}}
    assert load("compose/compose.yaml")["services"]["postgres"]["ports"] == [
        "127.0.0.1:${OCCUPANCY_PORT:?}:5432"
    ]
    # A restore of another database gets the password of its owner.
    variables["occupancy_others"] = other_databases.complete([{"name": "homeassistant", "owner": "hass"}], [])
    override = yaml.safe_load(template.render(variables))
    assert override["services"] == {"postgres": {"ports": ports}, "restore": {"secrets": ["hass"]}}
    assert override["secrets"] == {"hass": {"file": "./secrets/hass"}}
    (line,) = re.findall(
        r"^OCCUPANCY_LISTEN_ADDRESSES=(.+)$", read("roles/postgres/templates/env.j2"), re.MULTILINE
    )
    assert environment.from_string(line).render(variables) == led


def test_applications_join_the_network_by_its_name_and_find_the_server() -> None:
    compose = load("compose/compose.yaml")
    assert compose["networks"] == {"default": {"name": "occupancy"}, "notify": {}}
    assert compose["services"]["postgres"]["networks"] == {"default": {"aliases": ["occupancy-postgres"]}}
    names = str(load("roles/tls/vars/main.yml")["__tls_names"])
    assert "'postgres'" in names
    assert "'occupancy-postgres'" in names


def test_every_container_has_only_the_privileges_that_it_needs() -> None:
    services = load("compose/compose.yaml")["services"]
    tools = {"ops", "backup", "migrate", "restore", "status", "report", "notify"}
    assert set(services) == {"postgres", "initdb", *tools}
    for service in services.values():
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert service["security_opt"] == ["no-new-privileges:true"]
    # It reaches receivers, and nothing of the database.
    notify = services.pop("notify")
    assert (notify["networks"], notify["secrets"], notify["profiles"]) == (["notify"], ["notify"], ["tools"])
    mounted = {one["source"]: one.get("read_only", False) for one in notify["volumes"]}
    assert mounted == {
        "${OCCUPANCY_DATA_DIR:?}/status": True,
        "${OCCUPANCY_DATA_DIR:?}/notify": False,
    }
    isolated = [service for name, service in services.items() if name != "postgres"]
    assert {(service["network_mode"], *service["profiles"]) for service in isolated} == {("none", "tools")}
    secrets = {name: service.get("secrets", []) for name, service in services.items()}
    product = {role["name"] for role in load("roles/occupancy/vars/main.yml")["occupancy_roles"]}
    assert set(secrets.pop("restore")) == product
    assert set(secrets.pop("migrate")) == product - {"occupancy_restore"}
    assert secrets.pop("status") == ["occupancy_monitor"]
    assert secrets.pop("report") == ["occupancy_backup", "occupancy_monitor"]
    assert secrets == {"postgres": [], "initdb": [], "ops": ["occupancy"], "backup": ["occupancy_backup"]}


def test_revisions_are_named_like_their_files_in_the_order_of_the_chain() -> None:
    # The playbook uses the names of the files.
    chain = [script.revision for script in script_directory().walk_revisions()][::-1]
    assert sorted(path.stem for path in (ROOT / "migrations/versions").glob("*.py")) == chain


def render_pg_hba(others: list[dict[str, Any]]) -> list[list[str]]:
    """The fields of the rules for a host with an additional user, one network, and other databases."""
    variables: dict[str, Any] = load("roles/occupancy/vars/main.yml") | {
        "ansible_managed": "written by a test",
        "occupancy_users": [{"name": "grafana", "role": "occupancy_readonly"}],
        "occupancy_databases": ["occupancy", "occupancy_test"],
        "occupancy_restoring": "occupancy_restoring",
        "occupancy_replaced": "occupancy_replaced",
        "occupancy_allowed_cidrs": ["192.168.10.0/24"],
        "occupancy_others": other_databases.complete(others, ["192.168.10.0/24"]),
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


@pytest.fixture
def pg_hba() -> list[list[str]]:
    """The rules of a host without other databases."""
    return render_pg_hba([])


def test_pg_hba_lets_the_owner_of_another_database_into_it_alone(pg_hba: list[list[str]]) -> None:
    entry = {"name": "homeassistant", "owner": "hass"}
    added = [rule for rule in render_pg_hba([entry]) if rule not in pg_hba]
    assert added == [
        ["local", "homeassistant", "hass,occupancy_backup,occupancy_restore", "scram-sha-256"],
        ["local", "homeassistant_restoring", "hass,occupancy_backup,occupancy_restore", "scram-sha-256"],
        ["local", "homeassistant_replaced", "occupancy_restore", "scram-sha-256"],
        ["hostssl", "homeassistant", "hass", "samenet", "scram-sha-256"],
        ["hostssl", "homeassistant", "hass", "192.168.10.0/24", "scram-sha-256"],
    ]
    rules = render_pg_hba([entry])
    assert rules.index(added[2]) < rules.index(["local", "all", "all", "reject"])
    networks = [
        rule[3] for rule in render_pg_hba([{**entry, "allowed_cidrs": ["10.9.0.0/16"]}]) if "hass" in rule
    ]
    assert networks == ["samenet", "10.9.0.0/16"]


def test_pg_hba_has_no_trust_rule_and_ends_with_a_reject(pg_hba: list[list[str]]) -> None:
    assert pg_hba[-1] == ["host", "all", "all", "all", "reject"]
    assert {"reject", "scram-sha-256", "peer", "map=admins"} == {
        word for rule in pg_hba for word in rule[3 if rule[0] == "local" else 4 :]
    }


def test_pg_hba_accepts_network_connections_with_tls_only(pg_hba: list[list[str]]) -> None:
    over_the_network = [rule for rule in pg_hba if rule[0] != "local" and rule[-1] != "reject"]
    assert [rule[0] for rule in over_the_network] == ["hostssl", "hostssl"]
    assert [rule[3] for rule in over_the_network] == ["samenet", "192.168.10.0/24"]
    for rule in over_the_network:
        assert rule[1] == "occupancy,occupancy_test"
        assert set(rule[2].split(",")) == {
            "occupancy", "occupancy_app", "occupancy_readonly", "occupancy_monitor", "grafana",
        }  # fmt: skip


def test_pg_hba_lists_reject_rules_first(pg_hba: list[list[str]]) -> None:
    first_from_network = next(number for number, rule in enumerate(pg_hba) if rule[0] == "hostssl")
    assert pg_hba[0] == ["local", "all", "postgres", "peer", "map=admins"]
    assert (
        pg_hba.index(["host", "all", "postgres,occupancy_backup,occupancy_restore", "all", "reject"])
        < first_from_network
    )
    assert [rule for rule in pg_hba if rule[0] == "local"][-1] == ["local", "all", "all", "reject"]


def test_pg_hba_accepts_the_restoring_database_on_the_socket_only(pg_hba: list[list[str]]) -> None:
    rules = {
        (rule[0], database): rule[2].split(",")
        for rule in pg_hba
        for database in rule[1].split(",")
        if database in ("occupancy_restoring", "occupancy_replaced", "postgres")
    }
    product = [role["name"] for role in load("roles/occupancy/vars/main.yml")["occupancy_roles"]]
    assert rules == {
        ("local", "occupancy_restoring"): product,
        ("local", "postgres"): ["occupancy_restore", "occupancy_monitor"],
        ("local", "occupancy_replaced"): ["occupancy_restore"],
    }


# .env.example


def test_example_env_lists_every_setting() -> None:
    assert keys_of(read(".env.example")) == [name.upper() for name in Settings.model_fields]
    for name, value in re.findall(r"^([A-Z_]+)=(.+)$", read(".env.example"), re.MULTILINE):
        assert str(Settings.model_fields[name.lower()].default) == value


def test_a_cluster_without_its_marker_gets_it() -> None:
    """A run that was killed after initdb leaves such a host, and no later run makes a cluster there."""
    tasks = ROOT / "roles/postgres/tasks"
    (marker,) = [
        task
        for task in yaml.safe_load((tasks / "main.yml").read_text())
        if task.get("ansible.builtin.copy", {}).get("dest") == "{{ occupancy_initialised }}"
    ]
    assert marker["when"] == "not occupancy_host.initialised"
    assert "occupancy_initialised" not in (tasks / "initdb.yml").read_text()
