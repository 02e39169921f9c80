"""Which names of variables preflight takes for misspelt ones."""

import pytest

from tests.unit.test_preflight import checkout, problems

__all__ = ["checkout"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("postgres_setings", "postgres_settings"),
        ("backup_offsite_remotes", "backup_offsite_remote"),
        ("tls_name", "tls_names"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    (said,) = problems(names=(name,))
    assert said.startswith(f"{name} is not a variable of these roles: did you mean {near}? ")
    assert said.endswith("add it to occupancy_foreign_variables.")


@pytest.mark.parametrize("foreign", ["backup_nas_path", "backup_nas_*", "*_path"])
def test_a_foreign_variable_is_accepted(foreign: str) -> None:
    assert problems(names=("backup_nas_path",), occupancy_foreign_variables=[foreign]) == []


@pytest.mark.parametrize("foreign", ["backup_nas", "backup_NAS_path", "tls_*"])
def test_a_variable_that_is_not_named_as_foreign_is_refused(foreign: str) -> None:
    (said,) = problems(names=("backup_nas_path",), occupancy_foreign_variables=[foreign])
    assert said.startswith("backup_nas_path is not a variable of these roles")


def test_foreign_variables_of_the_wrong_type_are_refused() -> None:
    said = problems(names=("backup_nas_path",), occupancy_foreign_variables="backup_nas_path")
    assert said[0].startswith("backup_nas_path is not a variable of these roles")
    assert said[1].startswith("occupancy_foreign_variables must be a list")


@pytest.mark.parametrize(
    "name",
    [
        "ansible_host",
        "__tls_present",
        "occupancy_host",
        "restore_set",
        "grafana_port",
        "occupancy_dir",
        "postgres_tuning",
        "group_names",
    ],
)
def test_other_names_are_accepted(name: str) -> None:
    assert problems(names=(name,)) == []


# The input of preflight
