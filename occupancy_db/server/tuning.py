"""The tuning formula: server settings, container limits, kernel parameters and pools that fit together.

The role ``tuning`` renders its result, ``occupancy-db tune`` prints it, and :mod:`occupancy_db.connection`
uses the same pool sizes. The formula only calculates; only :func:`probe` reads this machine. Memory is in
MB of 1,048,576 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from occupancy_db.pool import Pool, pool
from occupancy_db.server import overrides
from occupancy_db.server.host import CORES_BY_DEFAULT, LEAST_MEMORY, default_memory, disk_kind, probe
from occupancy_db.server.model import (
    Budget,
    BudgetError,
    Client,
    Disk,
    Machine,
    Plan,
    Request,
    Setting,
    WalCompression,
    Workload,
    clients,
)
from occupancy_db.server.reasons import explained

__all__ = [
    "CORES_BY_DEFAULT",
    "RESERVED_CONNECTIONS",
    "Budget",
    "BudgetError",
    "Client",
    "Disk",
    "Machine",
    "Plan",
    "Request",
    "Setting",
    "WalCompression",
    "Workload",
    "clients",
    "default_memory",
    "disk_kind",
    "plan",
    "probe",
]

HASH_MEM_MULTIPLIER = 2.0
"""PostgreSQL's default of ``hash_mem_multiplier``."""

LEAST_WORK_MEM = 1.0
MOST_WORK_MEM = 256.0

RESERVED_CONNECTIONS = 3
"""PostgreSQL's default of ``superuser_reserved_connections``."""

CONNECTIONS_STEP = 25
"""``max_connections`` is rounded up to a multiple of this: another value needs a restart of the server."""

LEAST_WAL = 32
"""MB of two WAL segments; PostgreSQL does not start with less."""

LOCKS_PER_TRANSACTION = 128

LOCK_MEMORY = 384 / 2**20
"""Shared memory for each lock of each session, in MB: a lock and two holders."""

_MOST_WAL = {Workload.MIXED: 4096, Workload.INGEST: 8192, Workload.DASHBOARDS: 2048}

Values = dict[str, tuple[object, str]]
"""Value and unit by the name of a setting."""


@dataclass(frozen=True)
class _Shares:
    """The parts of the memory and of the processor that do not depend on the number of connections.

    Attributes:
        memory: Memory limit of the container in MB.
        shared: ``shared_buffers`` in MB.
        maintenance: ``maintenance_work_mem`` in MB.
        autovacuum: ``autovacuum_work_mem`` in MB.
        autovacuum_workers: Number of autovacuum workers.
        hashes: ``hash_mem_multiplier``, at least 1.
        locks: Additional lock table memory of each session in MB.
        wal_buffers: ``wal_buffers`` in MB if the operator has set it, else 0.
        temp_buffers: ``temp_buffers`` in MB if the operator has set it, else 0.
        workers: ``max_parallel_workers``.
        workers_per_query: ``max_parallel_workers_per_gather``.
        reserved: Connections that are reserved for superusers and for ``pg_use_reserved_connections``.
    """

    memory: int
    shared: float
    maintenance: float
    autovacuum: float
    autovacuum_workers: int
    hashes: float
    locks: float
    wal_buffers: float
    temp_buffers: float
    workers: int
    workers_per_query: int
    reserved: int

    @property
    def factor(self) -> float:
        """How many times ``work_mem`` an average session uses: the mean of one sort and one hash."""
        return (1 + self.hashes) / 2

    def budget(self, sessions: int, work: float) -> Budget:
        """Return the memory in the worst case.

        Args:
            sessions: Number of connections and parallel workers.
            work: ``work_mem`` in MB.
        """
        return Budget(
            limit=self.memory,
            shared=self.shared,
            sessions=sessions,
            work=work,
            maintenance=self.maintenance,
            autovacuum_workers=self.autovacuum_workers,
            autovacuum=self.autovacuum,
            factor=self.factor,
            wal=self.wal_buffers,
            temp=self.temp_buffers,
            locks=self.locks,
        )


@dataclass(frozen=True)
class _Connections:
    """The connections of users and pools.

    Attributes:
        pool: Connection pool of each application process.
        limits: Connection limit of each user.
        most: ``max_connections``.
    """

    pool: Pool
    limits: Mapping[str, int]
    most: int


def plan(request: Request) -> Plan:
    """Calculate all values.

    Args:
        request: The machine, and the operator's choices.

    Raises:
        BudgetError: the values do not fit, or an override is not a number; the text shows the calculation.
    """
    if request.memory < LEAST_MEMORY:
        raise BudgetError(
            f"the container needs at least {LEAST_MEMORY} MB of memory, but has {request.memory} MB"
        )
    if request.cores <= 0:
        raise BudgetError(f"the container needs more than 0 cores, but has {request.cores:g}")
    # PostgreSQL ignores the case of setting names.
    wanted = {name.lower(): value for name, value in request.overrides.items()}
    given = overrides.numeric(wanted)
    shares = _shares(request, given)
    connections = _connections(request, given, shares)
    budget = _budget(given, shares, connections.most + shares.workers)
    values = {
        **_memory_settings(shares, budget, connections.most),
        **_wal_settings(request, *_wal_sizes(request, given)),
        **_fixed_settings(request, shares),
    }
    host: Values = {
        "vm.swappiness": (10, ""),
        "vm.dirty_background_ratio": (3, ""),
        "vm.dirty_ratio": (10, ""),
    }
    if request.huge_pages:
        host["vm.nr_hugepages"] = (int((shares.shared + budget.overhead) // 2) + 1, "")
    sizes = connections.pool
    return Plan(
        settings=overrides.applied(explained(values), wanted),
        container=explained(
            {
                "memory": (request.memory, "m"),
                "cpus": (f"{request.cores:g}", ""),
                "shm_size": (_shm_size(shares, budget.work), "m"),
            }
        ),
        host=explained(host),
        application=explained(
            {"POSTGRES_POOL_SIZE": (sizes.size, ""), "POSTGRES_MAX_OVERFLOW": (sizes.overflow, "")}
        ),
        pool=sizes,
        connections=connections.limits,
        budget=budget,
    )


def _shares(request: Request, given: Mapping[str, float]) -> _Shares:
    cores, memory = request.cores, request.memory
    maintenance = given.get("maintenance_work_mem", min(1024, max(32, memory // 16)))
    autovacuum = given.get("autovacuum_work_mem", min(256, max(8, memory // 64)))
    spare_cores = {Workload.MIXED: int(cores) // 2, Workload.INGEST: 0, Workload.DASHBOARDS: int(cores)}
    workers = int(given.get("max_parallel_workers", min(spare_cores[request.workload], 8, memory // 512)))
    extra_locks = given.get("max_locks_per_transaction", LOCKS_PER_TRANSACTION) - LOCKS_PER_TRANSACTION
    reserved = given.get("superuser_reserved_connections", RESERVED_CONNECTIONS)
    return _Shares(
        memory=memory,
        shared=given.get("shared_buffers", memory // 4),
        maintenance=maintenance,
        # With -1 PostgreSQL takes maintenance_work_mem.
        autovacuum=maintenance if autovacuum < 0 else autovacuum,
        autovacuum_workers=int(given.get("autovacuum_max_workers", 2 if cores < 8 else 3)),
        hashes=max(1, given.get("hash_mem_multiplier", HASH_MEM_MULTIPLIER)),
        locks=max(0, extra_locks) * LOCK_MEMORY,
        wal_buffers=max(0, given.get("wal_buffers", 0)),
        temp_buffers=given.get("temp_buffers", 0),
        workers=workers,
        workers_per_query=min(workers, max(1, int(cores) // 2), 4),
        reserved=int(reserved + given.get("reserved_connections", 0)),
    )


def _connections(request: Request, given: Mapping[str, float], shares: _Shares) -> _Connections:
    """Return the connections of pools and users, as many as the memory allows with the least work_mem."""
    least = shares.budget(0, 0.0)
    least_session = least.session + shares.factor * given.get("work_mem", LEAST_WORK_MEM)
    affordable = int((shares.memory - least.fixed) / least_session)
    pools = sum(client.pools for client in request.clients.values())
    others = sum(client.connections for client in request.clients.values())
    most = int(given.get("max_connections", affordable - shares.workers)) - shares.reserved - others
    processes = max((client.pools for client in request.clients.values()), default=1)
    sizes = pool(request.environment, request.cores, processes, max(most // max(pools, 1), 1))
    limits = {
        name: client.connections + client.pools * sizes.most for name, client in request.clients.items()
    }
    needed = sum(limits.values()) + shares.reserved
    # Leave room for further users, because another value of max_connections needs a restart.
    rounded = min(-(-needed // CONNECTIONS_STEP) * CONNECTIONS_STEP, affordable - shares.workers)
    connections = int(given.get("max_connections", max(needed, rounded)))
    if connections < needed:
        raise BudgetError(
            f"max_connections {connections} is less than the connections of users and pools:"
            f" {' + '.join(f'{name} {limit}' for name, limit in limits.items())}"
            f" + {shares.reserved} reserved = {needed}"
        )
    return _Connections(sizes, limits, connections)


def _budget(given: Mapping[str, float], shares: _Shares, sessions: int) -> Budget:
    """Divide the remaining memory among all sessions as ``work_mem``."""
    remaining = shares.memory - shares.budget(sessions, 0.0).total
    share = remaining / (sessions * shares.factor)
    work = given.get("work_mem", max(LEAST_WORK_MEM, min(MOST_WORK_MEM, int(share * 1024) / 1024)))
    budget = shares.budget(sessions, work)
    if budget.total > shares.memory:
        raise BudgetError(f"the settings exceed the memory of the container: {budget}")
    return budget


def _wal_sizes(request: Request, given: Mapping[str, float]) -> tuple[int, int]:
    """Return ``max_wal_size`` and ``min_wal_size`` in MB."""
    most = _MOST_WAL[request.workload]
    if request.disk_size is not None:
        most = max(512, min(most, request.disk_size // 10 // 64 * 64))
    most = int(given.get("max_wal_size", most))
    if request.disk_size is not None and most > request.disk_size // 2:
        raise BudgetError(
            f"max_wal_size {most} MB is more than half of the disk: {request.disk_size} MB / 2"
            f" = {request.disk_size // 2} MB"
        )
    least = int(given.get("min_wal_size", max(LEAST_WAL, most // 4)))
    for name, size in (("max_wal_size", most), ("min_wal_size", least)):
        if size < LEAST_WAL:
            raise BudgetError(f"{name} {size} MB is less than two WAL segments: 2 x 16 MB = {LEAST_WAL} MB")
    return most, least


def _shm_size(shares: _Shares, work: float) -> int:
    """Return the size of the container's /dev/shm in MB.

    In the worst case each parallel worker belongs to another query, whose two processes share two hashes.
    """
    needed = int(shares.maintenance + shares.workers * 2 * 2 * work * shares.hashes)
    return max(64, min(shares.memory // 2, needed))


def _memory_settings(shares: _Shares, budget: Budget, connections: int) -> Values:
    return {
        "max_connections": (connections, ""),
        "shared_buffers": (_without_fraction(shares.shared), "MB"),
        "work_mem": (int(budget.work * 1024), "kB"),
        "maintenance_work_mem": (_without_fraction(shares.maintenance), "MB"),
        "autovacuum_work_mem": (_without_fraction(shares.autovacuum), "MB"),
        "effective_cache_size": (shares.memory * 3 // 4, "MB"),
        "huge_pages": ("try", ""),
        "max_parallel_workers": (shares.workers, ""),
        "max_parallel_workers_per_gather": (shares.workers_per_query, ""),
        "max_parallel_maintenance_workers": (shares.workers_per_query, ""),
        "max_locks_per_transaction": (LOCKS_PER_TRANSACTION, ""),
    }


def _wal_settings(request: Request, most: int, least: int) -> Values:
    compression = str(request.wal_compression)
    if request.disk is Disk.SSD and request.wal_compression is WalCompression.PGLZ:
        compression = "off"
    return {
        "max_wal_size": (most, "MB"),
        "min_wal_size": (least, "MB"),
        "checkpoint_timeout": (15, "min"),
        "wal_compression": (compression, ""),
    }


def _fixed_settings(request: Request, shares: _Shares) -> Values:
    """Return the settings that depend on the disk and the autovacuum workers only, or that are constant."""
    ssd = request.disk is Disk.SSD
    return {
        "random_page_cost": (2 if ssd else 4, ""),
        "effective_io_concurrency": (200 if ssd else 2, ""),
        "maintenance_io_concurrency": (200 if ssd else 10, ""),
        "jit": ("off", ""),
        "autovacuum_max_workers": (shares.autovacuum_workers, ""),
        "autovacuum_vacuum_insert_scale_factor": (0.05, ""),
        "autovacuum_analyze_scale_factor": (0.02, ""),
        "shared_preload_libraries": ("pg_stat_statements", ""),
        "pg_stat_statements.track_utility": ("off", ""),
        "track_io_timing": ("on", ""),
        "log_min_duration_statement": (1, "s"),
        "log_parameter_max_length": (0, ""),
        "client_connection_check_interval": (10, "s"),
    }


def _without_fraction(megabytes: float) -> float | int:
    return int(megabytes) if megabytes == int(megabytes) else megabytes
