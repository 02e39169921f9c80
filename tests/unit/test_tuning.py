"""The tuning formula: for every machine and every override, the plan fits into the memory or is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_db.pool import Pool, pool
from occupancy_db.server import tuning
from occupancy_db.server.tuning import (
    BudgetError,
    Client,
    Disk,
    Request,
    Setting,
    WalCompression,
    Workload,
)
from occupancy_db.settings import Environment as Kind

GIB = 1024


def value(plan: tuning.Plan, name: str) -> Any:
    (found,) = [setting for setting in plan.settings if setting.name == name]
    return found.value


def megabytes(plan: tuning.Plan, name: str) -> float:
    """Return a setting in MB, parsed as PostgreSQL does and not by the formula's code."""
    (setting,) = [setting for setting in plan.settings if setting.name == name]
    number, unit = (
        str(setting),
        dict.fromkeys(("shared_buffers", "wal_buffers", "temp_buffers"), "8kB").get(name, "kB"),
    )
    for suffix in ("kB", "MB", "GB"):
        if number.endswith(suffix):
            number, unit = number.removesuffix(suffix), suffix
    return float(number) * {"8kB": 8 / 1024, "kB": 1 / 1024, "MB": 1, "GB": 1024}[unit]


def check(request: Request) -> tuning.Plan:
    """Check the memory, connections and sizes of a plan, calculated from its rendered settings."""
    plan = tuning.plan(request)
    shared = megabytes(plan, "shared_buffers")
    sessions = int(value(plan, "max_connections")) + int(value(plan, "max_parallel_workers"))
    maintenance = megabytes(plan, "maintenance_work_mem")
    autovacuum = megabytes(plan, "autovacuum_work_mem")
    given = {
        name: megabytes(plan, name) for name in ("wal_buffers", "temp_buffers") if name in request.overrides
    }
    hashes = float(request.overrides.get("hash_mem_multiplier", 2))  # type: ignore[arg-type]
    worst = (
        shared
        + (24 + shared / 16 + max(0, given.get("wal_buffers", 0)))
        + sessions
        * (
            (4 + shared / 512 + given.get("temp_buffers", 0))
            + (1 + max(1, hashes)) / 2 * megabytes(plan, "work_mem")
        )
        + maintenance
        + int(value(plan, "autovacuum_max_workers")) * (4 + (maintenance if autovacuum < 0 else autovacuum))
    )
    assert worst <= request.memory + 0.01
    # Pools and users
    assert plan.pool.size >= 1
    assert plan.pool.overflow >= 0
    for name, client in request.clients.items():
        assert plan.connections[name] == client.connections + client.pools * plan.pool.most
    reserved = int(request.overrides.get("superuser_reserved_connections", 3))  # type: ignore[call-overload]
    reserved += int(request.overrides.get("reserved_connections", 0))  # type: ignore[call-overload]
    assert sum(plan.connections.values()) + reserved <= int(value(plan, "max_connections"))
    # /dev/shm and the WAL
    (shm,) = [setting for setting in plan.container if setting.name == "shm_size"]
    assert 64 <= shm.value < request.memory  # type: ignore[operator]
    if request.disk_size is not None:
        assert megabytes(plan, "max_wal_size") <= max(512, request.disk_size / 10)
    assert 2 * 16 <= megabytes(plan, "min_wal_size") <= megabytes(plan, "max_wal_size")
    # Reasons and sources
    for setting in (*plan.settings, *plan.container, *plan.host, *plan.application):
        assert setting.reason
        assert setting.source
    return plan


memories = st.integers(512, 256 * GIB)
cores = st.integers(1, 64) | st.floats(0.1, 64)
machines = st.builds(
    Request,
    cores=cores,
    memory=memories,
    disk=st.sampled_from(Disk),
    disk_size=st.none() | st.integers(2048, 8 * GIB * GIB),
    workload=st.sampled_from(Workload),
    environment=st.sampled_from(Kind),
    wal_compression=st.sampled_from(WalCompression),
    huge_pages=st.booleans(),
)


@given(machines)
def test_every_machine_gets_a_plan_that_fits(request: Request) -> None:
    plan = check(request)
    assert megabytes(plan, "work_mem") >= 1
    assert plan.pool.most <= (2 * request.cores + 1 if request.environment is Kind.PRODUCTION else 15)


@given(machines, st.integers(1, 64), st.integers(0, 40))
def test_processes_and_users_fit_or_are_refused(request: Request, processes: int, users: int) -> None:
    clients = {**tuning.clients(processes), "users": Client(users)}
    try:
        check(replace(request, clients=clients))
    except BudgetError as error:
        assert "exceed the memory" in str(error) or "is less than" in str(error)
        assert " = " in str(error)


overrides = st.fixed_dictionaries(
    {},
    optional={
        "shared_buffers": st.integers(1, 300 * GIB).map("{}MB".format) | st.integers(16, 2**25),
        "work_mem": st.integers(64, 2**21) | st.integers(1, GIB).map("{}MB".format),
        "maintenance_work_mem": st.integers(1, 4 * GIB).map("{}MB".format),
        "autovacuum_work_mem": st.just(-1) | st.integers(1, GIB).map("{} MB".format),
        "autovacuum_max_workers": st.integers(1, 20),
        "max_connections": st.integers(1, 5000),
        "max_parallel_workers": st.integers(0, 64).map(str),
        "superuser_reserved_connections": st.integers(0, 10),
        "reserved_connections": st.integers(0, 10),
        "wal_buffers": st.just(-1) | st.integers(1, GIB).map("{}MB".format),
        "temp_buffers": st.integers(1, 64).map("{}MB".format),
        "hash_mem_multiplier": st.sampled_from(["1.0", "2", "8.5"]),
    },
)


@given(machines, overrides)
def test_an_override_is_applied_or_refused_with_the_calculation(
    request: Request, overrides: Mapping[str, object]
) -> None:
    try:
        plan = check(replace(request, overrides=overrides))
    except BudgetError as error:
        assert " + " in str(error)
        assert " = " in str(error)
    else:
        for name, wanted in overrides.items():
            if name in {setting.name for setting in plan.settings}:
                assert value(plan, name) == wanted


@given(machines)
def test_more_memory_never_reduces_a_setting(request: Request) -> None:
    small, large = tuning.plan(request), tuning.plan(replace(request, memory=request.memory * 2))
    for name in ("shared_buffers", "maintenance_work_mem", "autovacuum_work_mem", "effective_cache_size"):
        assert megabytes(large, name) >= megabytes(small, name)
    assert large.pool.most >= small.pool.most


def test_a_refusal_shows_the_calculation() -> None:
    with pytest.raises(BudgetError) as refused:
        tuning.plan(Request(2, 1024, overrides={"work_mem": "64MB"}))
    assert str(refused.value).startswith(
        "the settings exceed the memory of the container: shared_buffers 256 + "
    )
    assert "x work_mem 64.00" in str(refused.value)
    assert str(refused.value).endswith(" MB of 1024 MB")
    with pytest.raises(BudgetError, match=r"max_connections 20 .* occupancy_app 6 .* 3 reserved = 38$"):
        tuning.plan(Request(2, 1024, overrides={"max_connections": 20}))


@pytest.mark.parametrize(
    "request_",
    [
        Request(2, 511),
        Request(0, 1024),
        Request(2, 1024, overrides={"work_mem": "plenty"}),
        Request(2, 1024, overrides={"work_mem": "64mb"}),
        Request(2, 1024, overrides={"max_connections": "-1"}),
        Request(2, 1024, overrides={"max_connections": "²"}),
        Request(2, 1024, overrides={"work_mem": "-4MB"}),
        Request(2, 1024, overrides={"work_mem": -1}),
        Request(2, 1024, overrides={"shared_buffers": 0}),
        Request(2, 1024, overrides={"hash_mem_multiplier": "many"}),
        Request(2, 1024, overrides={"Work_Mem": "64MB"}),
        Request(2, 1024, overrides={"wal_buffers": "512MB"}),
        Request(2, 1024, overrides={"temp_buffers": "64MB"}),
        Request(2, 1024, overrides={"reserved_connections": 100}),
        Request(2, 1024, disk_size=20 * GIB, overrides={"max_wal_size": "11GB"}),
        Request(2, 1024, overrides={"max_wal_size": "16MB"}),
        Request(2, 1024, overrides={"min_wal_size": "31MB"}),
        Request(2, 1024, overrides={"max_locks_per_transaction": 20_000}),
        Request(2, 1024, overrides={"max_locks_per_transaction": "64MB"}),
    ],
)
def test_invalid_machines_and_overrides_are_refused(request_: Request) -> None:
    with pytest.raises(BudgetError):
        tuning.plan(request_)


def test_other_settings_are_calculated_from_the_memory_that_an_override_leaves() -> None:
    usual = tuning.plan(Request(2, 2 * GIB))
    more = tuning.plan(Request(2, 2 * GIB, overrides={"shared_buffers": "1GB", "log_temp_files": "1MB"}))
    assert megabytes(more, "work_mem") < megabytes(usual, "work_mem")
    assert more.settings[-1] == Setting(
        "log_temp_files", "1MB", "", "set by the operator", "postgres_settings"
    )
    (shared,) = [setting for setting in more.settings if setting.name == "shared_buffers"]
    assert shared.reason == "set by the operator; otherwise a quarter of the container's memory limit"
    cost = tuning.plan(Request(2, 2 * GIB, overrides={"random_page_cost": "1.1"})).settings
    (reason,) = [setting.reason for setting in cost if setting.name == "random_page_cost"]
    assert reason.startswith("set by the operator; calculated: 2, the cost of random reads")


def test_min_wal_size_is_at_least_what_the_server_accepts() -> None:
    plan = tuning.plan(Request(2, 1024, overrides={"max_wal_size": "100MB"}))
    assert megabytes(plan, "min_wal_size") == 32


def test_more_locks_reduce_work_mem() -> None:
    usual = tuning.plan(Request(2, 2 * GIB))
    more = tuning.plan(Request(2, 2 * GIB, overrides={"max_locks_per_transaction": 1024}))
    assert 0 < megabytes(usual, "work_mem") - megabytes(more, "work_mem") < 1
    assert more.budget.total <= more.budget.limit


def test_a_larger_hash_mem_multiplier_reduces_work_mem() -> None:
    usual = tuning.plan(Request(2, 2 * GIB))
    more = tuning.plan(Request(2, 2 * GIB, overrides={"Hash_Mem_Multiplier": 4}))
    assert megabytes(more, "work_mem") == pytest.approx(megabytes(usual, "work_mem") * 1.5 / 2.5, rel=0.01)
    assert value(more, "hash_mem_multiplier") == 4


def test_min_wal_size_is_calculated_from_an_override_of_max_wal_size() -> None:
    plan = tuning.plan(Request(2, 2 * GIB, disk_size=20 * GIB, overrides={"max_wal_size": "512MB"}))
    assert (value(plan, "max_wal_size"), value(plan, "min_wal_size")) == ("512MB", 128)


def test_the_smallest_host_has_pools_for_development() -> None:
    plan = check(Request(2, 512, environment=Kind.DEVELOPMENT))
    assert 5 <= plan.pool.most < 15
    assert check(Request(2, 1024, environment=Kind.DEVELOPMENT)).pool == Pool(5, 10)


@pytest.mark.parametrize(
    ("codec", "disk", "expected"),
    [
        (WalCompression.LZ4, Disk.SSD, "lz4"),
        (WalCompression.ZSTD, Disk.HDD, "zstd"),
        (WalCompression.PGLZ, Disk.SSD, "off"),
        (WalCompression.PGLZ, Disk.HDD, "pglz"),
    ],
)
def test_wal_compression_depends_on_the_build_and_the_disk(
    codec: WalCompression, disk: Disk, expected: str
) -> None:
    plan = tuning.plan(Request(2, 1024, disk=disk, wal_compression=codec))
    assert value(plan, "wal_compression") == expected


DURABLE = {"fsync", "full_page_writes", "synchronous_commit", "wal_level", "wal_sync_method", "commit_delay"}


@given(machines)
def test_settings_of_durability_are_not_changed(request: Request) -> None:
    assert DURABLE & {setting.name for setting in tuning.plan(request).settings} == set()


@given(machines)
def test_only_vm_parameters_of_the_kernel_are_set(request: Request) -> None:
    names = {setting.name for setting in tuning.plan(request).host}
    assert {name for name in names if not name.startswith("vm.")} == set()
    assert ("vm.nr_hugepages" in names) is request.huge_pages


@pytest.mark.parametrize(
    ("environment", "cores", "processes", "expected"),
    [
        (Kind.PRODUCTION, 2, 1, Pool(5, 0)),
        (Kind.PRODUCTION, 2, 2, Pool(3, 2)),
        (Kind.PRODUCTION, 2, 4, Pool(2, 3)),
        (Kind.PRODUCTION, 1, 8, Pool(2, 1)),
        (Kind.PRODUCTION, 16, 2, Pool(17, 16)),
        (Kind.DEVELOPMENT, 16, 2, Pool(5, 10)),
    ],
)
def test_pools(environment: Kind, cores: float, processes: int, expected: Pool) -> None:
    assert pool(environment, cores, processes) == expected


@pytest.mark.parametrize(
    ("machine", "limit"), [(900, 512), (2048, 768), (2100, 768), (4096, 1792), (8192, 3840), (65536, 4096)]
)
def test_the_default_memory_leaves_memory_for_the_host(machine: int, limit: int) -> None:
    assert tuning.default_memory(machine) == limit


@pytest.mark.parametrize(
    ("device", "rotational", "kind"),
    [
        ("sda1", True, Disk.HDD),
        ("nvme0n1p2", False, Disk.SSD),
        ("vda1", True, Disk.SSD),
        ("", False, Disk.SSD),
    ],
)
def test_the_kind_of_a_disk(device: str, rotational: bool, kind: Disk) -> None:
    assert tuning.disk_kind(device, rotational) is kind


def test_the_hardware_of_this_machine_is_read(tmp_path: Path) -> None:
    machine = tuning.probe(tmp_path)
    assert machine.cores >= 1
    assert machine.memory >= 256
    assert machine.disk_size >= 64
    with pytest.raises(FileNotFoundError):
        tuning.probe(tmp_path / "nowhere")


# Results of pgtune (pgtune.leopard.in.ua) for PostgreSQL 16, Linux, mixed, 2 cores, 100 connections, SSD:
# memory, then shared_buffers, effective_cache_size and maintenance_work_mem in MB, and work_mem in kB.
PGTUNE = [
    (1 * GIB, 256, 768, 64, 4096),
    (2 * GIB, 512, 1536, 128, 4096),
    (4 * GIB, 1024, 3072, 256, 4854),
    (8 * GIB, 2048, 6144, 512, 9709),
    (16 * GIB, 4096, 12288, 1024, 19418),
    (64 * GIB, 16384, 49152, 4096, 77672),
]


@pytest.mark.parametrize(("memory", "shared", "cache", "maintenance", "work"), PGTUNE)
def test_comparison_with_pgtune(memory: int, shared: int, cache: int, maintenance: int, work: int) -> None:
    plan = tuning.plan(Request(2, memory))
    assert megabytes(plan, "shared_buffers") == shared
    assert megabytes(plan, "effective_cache_size") == cache
    # PostgreSQL 16 cannot use more than 1 GB for a VACUUM, and an index build here is of one month.
    assert megabytes(plan, "maintenance_work_mem") == min(maintenance, 1024)
    # Fewer connections than pgtune's 100 leave more memory for each. The least work_mem of pgtune is 4 MB:
    # at 1 GiB, its 100 sessions need 256 + 40 + 100 x (4.5 + 1.5 x 4) + 64 = 1410 MB.
    assert value(plan, "max_connections") < 100
    assert value(plan, "work_mem") > work
    # With pgtune's 1.1 the planner chooses index scans where a bitmap scan of the open hours is faster.
    assert value(plan, "random_page_cost") == 2
    # The disk and the WAL are as in pgtune.
    assert value(plan, "effective_io_concurrency") == 200
    assert (megabytes(plan, "min_wal_size"), megabytes(plan, "max_wal_size")) == (1024, 4096)
    assert value(plan, "jit") == "off"
