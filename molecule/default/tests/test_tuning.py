"""The server runs with the settings of the formula, within its memory, and the kernel of a container is unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from testinfra.host import Host

from occupancy_db.server import tuning
from tests.hosts import Server

testinfra_hosts = ["ansible://occupancy"]


@pytest.fixture
def plan(host: Host) -> tuning.Plan:
    """The plan of the formula for this host, independent of the role's files."""
    disk_size = host.check_output("df --output=size -BM /var/lib/occupancy | tail -n 1 | tr -dc 0-9")
    cores = host.check_output("nproc")
    return tuning.plan(tuning.Request(cores=min(2, int(cores)), memory=512, disk_size=int(disk_size)))


def test_every_setting_is_in_force_with_its_reason(
    host: Host, superuser: Callable[[str], str], plan: tuning.Plan
) -> None:
    file = host.file("/opt/occupancy/postgresql/postgresql.conf").content_string
    for setting in plan.settings:
        assert f"# {setting.reason} ({setting.source})\n{setting.name} = '{setting}'\n" in file
    assert str(plan.budget) in file
    assert superuser("SELECT count(*) FROM pg_file_settings WHERE NOT applied OR error IS NOT NULL") == "0"
    assert superuser("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert superuser("SHOW shared_buffers") == "128MB"


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"])
def test_durability_stays_on(superuser: Callable[[str], str], name: str) -> None:
    assert superuser(f"SHOW {name}") == "on"


def test_the_container_has_the_limits_of_the_plan(host: Host, plan: tuning.Plan) -> None:
    limits = json.loads(host.check_output("docker inspect occupancy-postgres-1"))[0]["HostConfig"]
    expected = {setting.name: setting.value for setting in plan.container}
    assert limits["Memory"] == 512 * 1024**2
    assert limits["ShmSize"] == int(str(expected["shm_size"])) * 1024**2
    assert limits["NanoCpus"] == float(str(expected["cpus"])) * 1e9


def test_the_users_have_the_limits_of_the_plan(superuser: Callable[[str], str], plan: tuning.Plan) -> None:
    said = superuser("SELECT json_object_agg(rolname, rolconnlimit) FROM pg_roles WHERE rolconnlimit >= 0")
    limits = json.loads(said)
    assert limits["occupancy_app"] == plan.connections["occupancy_app"] == 5 + plan.pool.most
    assert sum(limits.values()) + 3 <= int(superuser("SHOW max_connections"))


def test_statements_are_counted_and_no_password_is_among_them(
    server: Server, superuser: Callable[..., str]
) -> None:
    statements = superuser("SELECT query FROM pg_stat_statements", "postgres")
    assert "pg_file_settings" in statements  # a query of the playbook
    assert [user for user, password in server.passwords.items() if password in statements] == []
    # The user who restores a dump may not create extensions.
    assert superuser("SELECT string_agg(extname, ' ') FROM pg_extension") == "plpgsql"


def test_kernel_settings_are_not_changed_in_a_container(host: Host) -> None:
    assert not host.file("/etc/sysctl.d/60-occupancy.conf").exists
    assert host.check_output("cat /proc/sys/net/ipv4/ip_forward") == "1"


def test_no_process_is_killed_when_all_connections_sort_at_once(host: Host, server: Server) -> None:
    limits = {"occupancy": 10, "occupancy_app": 10, "occupancy_readonly": 8, "occupancy_monitor": 3}
    began = host.check_output("date --utc --iso-8601=seconds")
    sessions = [server.connect(user) for user, limit in limits.items() for _ in range(limit)]

    def sort(number: int) -> int:
        with sessions[number].cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            # The rows exceed work_mem: the sort uses all of it, and writes the rest to disk.
            cursor.execute(
                "SELECT count(*) FROM (SELECT FROM generate_series(1, 100000) AS g ORDER BY md5(g::text) OFFSET 1)"
            )
            (rows,) = cursor.fetchone() or (0,)
        return int(rows)

    try:
        with ThreadPoolExecutor(len(sessions)) as threads:
            assert set(threads.map(sort, range(len(sessions)))) == {99_999}
    finally:
        for session in sessions:
            session.close()
    assert "signal 9" not in host.check_output(f"occupancy-db log --since {began} --level info")
