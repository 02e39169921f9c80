"""Preflight refuses hosts and variables that cannot work, and names the problem and the remedy."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioning import preflight
from provisioning.variables import ROLES, load_specs

WIRING = yaml.safe_load((ROLES.parent / "playbooks/group_vars/all.yml").read_text())
CHECKED = sorted({*WIRING["occupancy_preflight"], "occupancy"})

HOST: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_version": "12",
    "memory_mb": 4096,
    "free_mb": 50_000,
    "cluster_version": "16",
    "initialised": True,
    "project": {},
    "server": None,
    "listeners": [],
    "containers": [
        {
            "name": "occupancy-postgres-1",
            "ports": "127.0.0.1:5432->5432/tcp",
            "project.working_dir": "/opt/occupancy",
        },
        {"name": "occupancy-app-1", "ports": "", "project.working_dir": "/home/me/occupancy"},
    ],
    "file_system": "ext4",
    "memory_controller": True,
    "images": ["postgres:16", "occupancy-ops:0.1.0-0a1b2c3d4e5f"],
}
STRANGER = {"name": "other", "ports": "0.0.0.0:5432->5432/tcp", "project.working_dir": "/srv/other"}
AGE = "age1" + "q" * 58
OFFSITE = {
    "backup_offsite_remote": "store:backups",
    "backup_offsite_config": "[store]\ntype = sftp\n",
    "backup_offsite_age_recipients": [AGE],
}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose controller has made no image."""
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    return tmp_path


def defaults(role: str) -> dict[str, Any]:
    """Return a role's defaults without inputs from other roles and without expressions."""
    found = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    return {name: value for name, value in found.items() if name not in WIRING and "{{" not in str(value)}


def problems(
    *,
    host: dict[str, Any] | None = None,
    names: tuple[str, ...] = (),
    more: dict[str, Any] | None = None,
    **values: Any,
) -> list[str]:
    """Return the problems of the defaults with some values changed; `more` changes the request itself."""
    variables = {role: defaults(role) for role in CHECKED}
    for name, value in values.items():
        (role,) = [role for role, options in load_specs().items() if name in options]
        variables[role][name] = value
    request: dict[str, Any] = {
        "hostname": "home",
        "host": deepcopy(HOST) | (host or {}),
        "variables": variables,
        "names": [*values, *names],
        "extra": {},
        "tags": ["all"],
        "hosts": ["home"],
        "product": ["occupancy", "occupancy_app", "occupancy_readonly"],
        "version": "0.1.0",
        "refused_tuning": "",
    }
    return preflight.problems(request | (more or {}), load_specs())


def test_the_defaults_pass() -> None:
    assert problems() == []


NEW = {"cluster_version": "", "initialised": False, "containers": [], "listeners": []}
HOME = {"OCCUPANCY_DATABASE": "home"}
HOSTS = [
    (
        {"distribution": "Fedora", "distribution_version": "41"},
        "Fedora 41 is not supported",
        {"distribution": "Ubuntu", "distribution_version": "24.04"},
    ),
    ({"distribution_version": "11"}, "Debian 11 is not supported", {"distribution_version": "13"}),
    ({"memory_mb": 899}, "has 899 MB of memory and needs 900", {"memory_mb": 900}),
    (
        NEW | {"free_mb": 2047},
        "2047 MB are free for /var/lib/occupancy, which needs",
        NEW | {"free_mb": 2048},
    ),
    # A run on a full host may be the one that frees space. The images of another release are not brought.
    (
        {"free_mb": 699, "images": ["occupancy-ops:0.0.9-1"]},
        "the images of this release take up to 700",
        {"free_mb": 0},
    ),
    (
        {"free_mb": 0, "images": ["occupancy-ops:0.0.9-1"]},
        "Free some first",
        {"free_mb": 0, "images": []},  # its engine is stopped
    ),
    (
        {
            "containers": [
                {"name": "occupancy-postgres-1", "ports": "", "project.working_dir": "/home/me/occupancy"}
            ]
        },
        "is not this product's (its Compose project is in /home/me/occupancy)",
        {"containers": [{"name": "other", "ports": "", "project.working_dir": ""}], "listeners": []},
    ),
    (
        {"cluster_version": "15"},
        "holds a cluster of PostgreSQL 15",
        {"cluster_version": "", "initialised": False},
    ),
    (
        {"project": HOME, "server": {"databases": {"home": {}}}},
        "ALTER DATABASE home RENAME TO occupancy",
        {"project": HOME, "server": {"databases": {"occupancy": {}}}},  # renamed by its owner
    ),
    (
        {"project": HOME},
        "an occupancy_database of the name occupancy would be",
        {"project": {"OCCUPANCY_DATABASE": "occupancy"}},
    ),
    ({"cluster_version": ""}, "holds none: is its disk mounted", {"cluster_version": "16"}),
    (
        {"containers": [STRANGER]},
        "Port 5432 is in use by container other",
        {"listeners": ["127.0.0.1:5432 users:((docker-proxy,pid=7,fd=4))"]},  # of the product's container
    ),
    (
        {"containers": [], "listeners": ["127.0.0.1:5432 users:((docker-proxy,pid=7,fd=4))"]},
        "in use by 127.0.0.1:5432 users:((docker-proxy",
        {"containers": [], "listeners": ["10.0.0.1:5432 users:((x"]},
    ),
    (
        {"containers": [], "listeners": ["*:5432 users:((x"]},
        "in use by *:5432",
        {"containers": [], "listeners": None},
    ),
]


@pytest.mark.parametrize(("bad", "says", "good"), HOSTS)
def test_a_host_is_refused_or_accepted(bad: dict[str, Any], says: str, good: dict[str, Any]) -> None:
    (said,) = problems(host=bad)
    assert says in said
    assert problems(host=good) == []


VARIABLES = [
    (
        {"occupancy_listen_address": "localhost"},
        "'localhost', which is no IPv4 address",
        {"occupancy_listen_address": "192.168.1.7"},
    ),
    ({"occupancy_port": 70_000}, "70000, which is no port", {"occupancy_port": 65_535}),
    ({"occupancy_port": 0}, "0, which is no port", {"occupancy_port": 1}),
    (
        {"occupancy_allowed_cidrs": ["192.168.1.7/24"]},
        "no network in CIDR notation (like 192.168.1.0/24): 192.168.1.7/24",
        {"occupancy_allowed_cidrs": ["192.168.1.0/24", "fd00::/8"]},
    ),
    (
        {"occupancy_allowed_cidrs": ["10.0.0.0"]},
        "no network in CIDR notation",
        {"occupancy_allowed_cidrs": ["10.0.0.0/8"]},
    ),
    (
        {"occupancy_database": "Occupancy; DROP"},
        "lower-case letters, digits and _",
        {"occupancy_database": "home_2"},
    ),
    (
        {"occupancy_timezone": "Europe/Nowhere"},
        "'Europe/Nowhere' is not a known time zone",
        {"occupancy_timezone": "Asia/Kathmandu"},
    ),
    ({"occupancy_checks_minutes": 7}, "must divide an hour", {"occupancy_checks_minutes": 30}),
    ({"occupancy_report_schedule": "@daily"}, "Not so: @daily.", {"occupancy_report_schedule": "15 6 * * *"}),
    (
        {"occupancy_check_thresholds": {"disk_fre": {"bad": 1}}},
        "occupancy_check_thresholds: disk_fre is no check",
        {"occupancy_check_thresholds": {"disk_free": {"warning": 20, "bad": 10}}},
    ),
    (
        {"occupancy_check_thresholds": {"cron": {"bad": 1}}},
        "cron has no thresholds",
        {"occupancy_check_thresholds": {"silent_sensors": {"bad": 1}}},
    ),
    (
        {"occupancy_check_thresholds": {"disk_free": {"bad": "much"}}},
        "disk_free must have numbers of 0 or more, in percent",
        {"occupancy_check_thresholds": {"stale_zones": {"warning": None}}},
    ),
    (
        {"occupancy_check_thresholds": {"disk_free": {"bad": 20}}},
        "disk_free must have both, bad below warning",
        {"occupancy_check_thresholds": {"disk_free": {"bad": 2}}},
    ),
    (
        {"occupancy_check_thresholds": {"connections": {"bad": 50}}},
        "connections must have bad at or above warning",
        {"occupancy_check_thresholds": {"connections": {"bad": 80}}},
    ),
    (
        {"occupancy_check_thresholds": {"connections": 80}},
        "connections must have warning, bad or both",
        {"occupancy_check_thresholds": {"connections": {"bad": None}}},
    ),
    (
        {"occupancy_timezone": "CET"},
        "is not the name of a time zone, as Europe/Berlin",
        {"occupancy_timezone": "UTC"},
    ),
    (
        {"occupancy_test_database": "occupancy"},
        "two different names",
        {"occupancy_test_database": "occupancy_test"},
    ),
    (
        {"occupancy_test_database": "postgres"},
        "cannot be one of the server's own",
        {"occupancy_test_database": ""},
    ),
    ({"occupancy_database": "x" * 54}, "can have 53 characters", {"occupancy_database": "x" * 53}),
    (
        {"occupancy_test_database": "occupancy_restoring"},
        "A restore needs the names",
        {"occupancy_test_database": "restoring"},
    ),
    (
        {"occupancy_users": [{"name": "occupancy_app", "role": "occupancy_app"}]},
        "names in occupancy_users",
        {"occupancy_users": [{"name": "grafana", "role": "occupancy_app"}]},
    ),
    (
        {"occupancy_users": [{"name": "pg_x", "role": "occupancy_app"}]},
        "names in occupancy_users",
        {"occupancy_users": [{"name": "pgx", "role": "occupancy_app"}]},
    ),
    ({"occupancy_users": [{"name": "a", "role": "occupancy_app"}] * 2}, "each once", {"occupancy_users": []}),
    (
        {"container_images_source": "registry"},
        "container_images_ops must name",
        {"container_images_source": "registry", "container_images_ops": "r.example/ops:0.1.0-abc"},
    ),
    (
        {"container_images_source": "registry", "container_images_ops": "r.example/ops:0.1.10"},
        "container_images_ops must name",
        {"container_images_source": "registry", "container_images_ops": "r.example:5000/ops:0.1.0"},
    ),
    (
        {"tls_certificate": "/nonexistent.pem"},
        "tls_private_key",
        dict.fromkeys(("tls_certificate", "tls_private_key", "tls_ca_certificate"), __file__),
    ),
    ({"tuning_processes": 0}, "tuning_processes must be 1 or more", {"tuning_processes": 2}),
    (
        {"tuning_sysctl": {"net.ipv4.ip_forward": 0}},
        "Not so: net.ipv4.ip_forward.",
        {"tuning_sysctl": {"vm.swappiness": 1}},
    ),
    (
        {"access_passwords": {"occupancy_app": "short", "nobody": "long-enough-for-anyone"}},
        "Not so: nobody, occupancy_app.",
        {"access_passwords": {"occupancy_app": "long-enough-for-anyone"}},
    ),
    (
        {"access_passwords": {"occupancy_app": "a line\nand another line"}},
        "on one line",
        {"access_passwords": {"occupancy_app": "a line with #, $ and '"}},
    ),
    ({"backup_keep_last": 0}, "they are 24, 7, 5, 12, 0.", {"backup_keep_last": 1}),
    ({"backup_keep_hourly": 1001}, "between 0 and 1000", {"backup_keep_hourly": 0}),
    ({"backup_schedule": "@daily"}, "Not so: @daily.", {"backup_schedule": "0,30 1-5 * */2 0"}),
    ({"backup_schedule": "60 * * * *"}, "Not so: 60 * * * *.", {"backup_schedule": ""}),
    ({**OFFSITE, "backup_offsite_remote": "store:a b"}, "must be remote:path", OFFSITE),
    ({**OFFSITE, "backup_offsite_config": "[other]"}, "with the section [store]", OFFSITE),
    (
        {**OFFSITE, "backup_offsite_age_recipients": []},
        "one to eight public keys of age",
        {**OFFSITE, "backup_offsite_age_recipients": [AGE] * 8},
    ),
    (
        {**OFFSITE, "backup_offsite_keep": 0},
        "backup_offsite_keep must be between 1 and 10000",
        {**OFFSITE, "backup_offsite_keep": 1},
    ),
    ({"monitoring_listen_address": "::1"}, "one IPv4 address, and is ::1", {}),
    ({"monitoring_node_port": 9187}, "and are 9187 and 9187.", {"monitoring_node_port": 9101}),
    ({"retention_months": 0}, "between 1 and 1200, and are 0, 24, 12.", {"retention_months": 1200}),
    ({"retention_months_ahead": 25}, "between 1 and 24, and is 25.", {"retention_months_ahead": 24}),
    ({"retention_months_back": 121}, "between 0 and 120, and is 121.", {"retention_months_back": 0}),
    (
        {"occupancy_application_idle_in_transaction": "15 minutes"},
        "must be a time as PostgreSQL writes it, like 15min, or 0, and is '15 minutes'.",
        {"occupancy_application_idle_in_transaction": "2h"},
    ),
    (
        {"retention_cleanup_schedule": "5 3 * * sun"},
        "Not so: 5 3 * * sun.",
        {"retention_cleanup_schedule": "5 3 * * 7"},
    ),
]


@pytest.mark.parametrize(("bad", "says", "good"), VARIABLES)
def test_variables_are_refused_or_accepted(bad: dict[str, Any], says: str, good: dict[str, Any]) -> None:
    (said,) = problems(**bad)
    assert says in said
    assert problems(**good) == []


def test_all_problems_are_reported_at_once() -> None:
    said = problems(
        host={"memory_mb": 1}, occupancy_port=70_000, retention_months=0, tls_certificate="/nonexistent.pem"
    )
    assert len(said) == 4


# Variables of the command line are strings


@pytest.mark.parametrize(
    "values",
    [
        {"occupancy_port": "5544"},
        {"occupancy_cpus": "1.5", "occupancy_memory_mb": "1024", "tuning_processes": "2"},
        {"container_images_refresh": "false", "tuning_huge_pages": "yes"},
        {"retention_months": "6", "backup_keep_hourly": "12", "tls_days": "30"},
    ],
)
def test_strings_of_the_command_line_are_converted(values: dict[str, Any]) -> None:
    assert problems(**values) == []


def test_the_value_of_a_converted_string_is_checked() -> None:
    (said,) = problems(occupancy_port="70000")
    assert "70000, which is no port" in said


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"occupancy_port": "many"}, "occupancy_port"),
        ({"occupancy_environment": "staging"}, "occupancy_environment"),
        ({"occupancy_users": [{"name": "x", "role": "superuser"}]}, "superuser"),
        ({"tls_days": "soon"}, "tls_days"),
        ({"occupancy_extra_databases": [{"name": "a", "connections": "many"}]}, "connections"),
        ({"occupancy_extra_databases": [{"name": "a", "cidrs": []}]}, "cidrs"),
        ({"container_images_source": "floppy"}, "container_images_source"),
        ({"occupancy_allowed_cidrs": '["10.0.0.0/8"]'}, """-e '{"occupancy_allowed_cidrs": ["…"]}'"""),
        ({"postgres_settings": "work_mem=16MB"}, "postgres_settings must be a dict, and is a string"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(values: dict[str, Any], says: str) -> None:
    (said,) = problems(**values)
    assert says in said


def test_values_of_the_wrong_type_do_not_hide_the_problems_of_other_roles() -> None:
    said = " ".join(problems(tls_days="soon", retention_months=0))
    assert "tls_days" in said
    assert "retention_months" in said


# Names


@pytest.mark.parametrize("role", CHECKED)
def test_preflight_gets_all_variables_of_each_role(role: str) -> None:
    variables = yaml.safe_load((ROLES / role / "vars/main.yml").read_text())
    handed: dict[str, str] = variables[
        "__occupancy_preflight" if role == "occupancy" else f"{role}_preflight"
    ]
    assert handed == {name: f"{{{{ {name} }}}}" for name in handed}
    # The playbooks set the others.
    assert set(load_specs()[role]) - set(handed) <= {*WIRING, "occupancy_jobs"}


def test_the_variables_of_every_role_are_checked() -> None:
    # The playbook of role uninstall checks its variable.
    assert set(CHECKED) == {role for role, options in load_specs().items() if options} - {"uninstall"}
