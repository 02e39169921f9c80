"""occupancy_extra_databases: what preflight refuses, and what the roles make of the rest."""

from typing import Any

import pytest

from provisioning import convergence, other_databases
from tests.unit.test_convergence import PRODUCT
from tests.unit.test_preflight import checkout, problems
from tests.unit.test_preflight_runs import SET

__all__ = ["checkout"]


@pytest.mark.parametrize(
    ("says", "entries"),
    [
        ("53 characters at most", [{"name": "x" * 54}]),
        ("53 characters at most", [{"name": "home-assistant", "owner": "hass"}]),
        ("Not so: occupancy.", [{"name": "occupancy", "owner": "hass"}]),
        ("Not so: occupancy_test.", [{"name": "occupancy_test"}]),
        ("Not so: occupancy_replaced.", [{"name": "occupancy_replaced"}]),
        ("Not so: occupancy_template.", [{"name": "occupancy_template"}]),
        ("Not so: replication.", [{"name": "replication", "owner": "hass"}]),
        ("Not so: a_restoring.", [{"name": "a"}, {"name": "a_restoring"}]),
        ("Not so: a.", [{"name": "a"}, {"name": "a", "owner": "b"}]),
        ("an owner of its own", [{"name": "a", "owner": "hass"}, {"name": "b", "owner": "hass"}]),
        ("an owner of its own", [{"name": "a", "owner": "occupancy_app"}]),
        ("an owner of its own", [{"name": "a", "owner": "grafana"}]),
        ("an owner of its own", [{"name": "a", "owner": "postgres"}]),
        ("an owner of its own", [{"name": "a", "owner": "all"}]),
        ("connections in occupancy_extra_databases", [{"name": "a", "connections": 0}]),
        (
            "occupancy_extra_databases holds what is no network",
            [{"name": "a", "allowed_cidrs": ["10.0.0.1"]}],
        ),
        ("belongs to somebody, and occupancy_extra_databases names taken", [{"name": "taken"}]),
    ],
)
def test_other_databases_that_cannot_work_are_refused(says: str, entries: list[dict[str, Any]]) -> None:
    host = {"server": {"databases": {"taken": {"owner": "somebody"}}}}
    more: dict[str, Any] = {
        "occupancy_test_database": "occupancy_test",
        "occupancy_users": [{"name": "grafana", "role": "occupancy_app"}],
    }
    (said,) = problems(host=host, occupancy_extra_databases=entries, **more)
    assert says in said
    good = [{"name": "taken", "owner": "somebody"}, {"name": "homeassistant", "connections": 8}]
    passwords = {"homeassistant": "long-enough-for-anyone"}
    assert problems(host=host, occupancy_extra_databases=good, access_passwords=passwords, **more) == []


def test_a_restore_replaces_the_database_that_is_confirmed() -> None:
    def run(name: str, confirm: str) -> list[str]:
        request = {"tags": ["restore"], "extra": {"restore_set": name, "restore_confirm": confirm}}
        return problems(more=request, occupancy_extra_databases=[{"name": "homeassistant"}])

    theirs = SET.replace("occupancy", "homeassistant")
    assert run("latest", "homeassistant") == run(theirs, "homeassistant") == run(SET, "occupancy") == []
    assert "the ID of a set of homeassistant" in " ".join(run(SET, "homeassistant"))
    assert "the ID of a set of occupancy" in " ".join(run(theirs, "occupancy"))
    assert "-e restore_confirm=occupancy" in " ".join(run("latest", "grafana"))


def test_owners_of_other_databases_have_limits_and_can_be_restored() -> None:
    databases = other_databases.complete(
        [{"name": "homeassistant", "owner": "hass"}, {"name": "grafana"}], []
    )
    owners = other_databases.owners(databases)
    limits = {"occupancy": 6, "occupancy_app": 20, "occupancy_restore": 5, "hass": 10, "grafana": 10}
    found = {login["name"]: login for login in convergence.logins(PRODUCT, [], limits, "Managed", owners)}
    assert found["occupancy_restore"]["member_of"] == ["occupancy", "hass", "grafana"]
    assert found["hass"]["flags"] == "LOGIN,NOSUPERUSER,NOCREATEDB,NOCREATEROLE,NOREPLICATION,NOBYPASSRLS"
    assert (found["hass"]["limit"], found["hass"]["settings"]["temp_file_limit"]) == (10, "1GB")
    assert "member_of" not in found["hass"]


def test_databases_that_left_the_inventory_are_known_by_their_owners() -> None:
    wanted = other_databases.complete([{"name": "grafana"}], [])
    comments = {"grafana": other_databases.MARK, "hass": other_databases.MARK, "someone": "Managed"}
    roles = {name: {"comment": comment} for name, comment in comments.items()}
    present = {
        "grafana": {"owner": "grafana"},
        "homeassistant": {"owner": "hass"},
        "homeassistant_replaced": {"owner": "hass"},
        "occupancy": {"owner": "occupancy"},
    }
    assert other_databases.left(wanted, roles, present) == {
        "hass": ["homeassistant", "homeassistant_replaced"]
    }
