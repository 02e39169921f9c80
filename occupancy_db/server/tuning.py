"""One formula for the server's settings, the container's limits, the host and the pools: they fit together.

Pure arithmetic, but for :func:`probe`. The role ``tuning`` renders what it says, ``occupancy-db tune`` prints
it, :mod:`occupancy_db.connection` takes the pools from it. Memory is in MB of 1,048,576 bytes. Sources that
are numbers are sections of the manual of PostgreSQL 16.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from occupancy_db.pool import Pool, pool
from occupancy_db.settings import Environment


class Disk(StrEnum):
    """What the data are on."""

    SSD = "ssd"
    HDD = "hdd"


class Workload(StrEnum):
    """What the server mostly does."""

    MIXED = "mixed"
    INGEST = "ingest"
    DASHBOARDS = "dashboards"


class WalCompression(StrEnum):
    """How pages in the WAL can be compressed, as the server's build has it; the best one first.

    lz4 takes the least of the processor, which is what two cores have least of. pglz is in every build, and
    takes so much of it that it is for slow disks only: measured with pgbench (TPC-B-like) on two cores and an
    SSD, a seventh of the transactions.
    """

    LZ4 = "lz4"
    ZSTD = "zstd"
    PGLZ = "pglz"


class BudgetError(ValueError):
    """What was asked for does not fit; the text shows the arithmetic."""


@dataclass(frozen=True)
class Machine:
    """What :func:`probe` found.

    Attributes:
        cores: That this process may use.
        memory: Of the whole machine, whatever this process may have of it.
        disk: What the data are on.
        disk_size: Of the file system.
    """

    cores: int
    memory: int
    disk: Disk
    disk_size: int


@dataclass(frozen=True)
class Client:
    """Who connects with one user's name.

    Attributes:
        connections: How many, pools aside.
        pools: How many processes of the application use this name, each with a pool.
    """

    connections: int
    pools: int = 0


def clients(processes: int = 1) -> Mapping[str, Client]:
    """The product's users where nobody lists them; a host's are ``occupancy_roles`` in roles/occupancy.

    Args:
        processes: Of the application.
    """
    return {"occupancy": Client(5, 1), "occupancy_app": Client(5, processes), "all others": Client(22)}


@dataclass(frozen=True)
class Request:
    """What the formula starts from.

    Attributes:
        cores: That the container may use; parts of one count.
        memory: The container's limit.
        disk: What the data are on.
        disk_size: Of the file system that they are on; None if it is not known.
        workload: What the server mostly does.
        environment: Which pools the application has.
        clients: By the user's name, everybody who connects; the superuser apart.
        wal_compression: The best that the server's build has.
        huge_pages: Whether the host is to keep huge pages for the shared memory.
        overrides: Settings of the operator's, by PostgreSQL's names: taken as they are; the rest is worked
            out from what they leave.
    """

    cores: float
    memory: int
    disk: Disk = Disk.SSD
    disk_size: int | None = None
    workload: Workload = Workload.MIXED
    environment: Environment = Environment.PRODUCTION
    clients: Mapping[str, Client] = field(default_factory=clients)
    wal_compression: WalCompression = WalCompression.PGLZ
    huge_pages: bool = False
    overrides: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """One value and why it is what it is.

    Attributes:
        name: PostgreSQL's, the kernel's or Docker's.
        value: In ``unit``.
        unit: As PostgreSQL writes it; empty for a number or a word.
        reason: For a person.
        source: Where the rule comes from.
    """

    name: str
    value: object
    unit: str
    reason: str
    source: str

    def __str__(self) -> str:
        """As it stands in a file."""
        return f"{self.value}{self.unit}"


@dataclass(frozen=True)
class Budget:
    """What the server may take at worst, in MB.

    Attributes:
        limit: Of the container.
        shared: ``shared_buffers``.
        sessions: Connections and parallel workers.
        work: ``work_mem``.
        maintenance: ``maintenance_work_mem``.
        autovacuum_workers: How many.
        autovacuum: ``autovacuum_work_mem``.
        factor: How often a session takes ``work_mem``: between a sort's once and a hash's multiplier.
        wal: ``wal_buffers``, where the operator has set them.
        temp: ``temp_buffers``, where the operator has set them: nothing here uses temporary tables.
        locks: For each session, where the operator has set max_locks_per_transaction.
    """

    limit: float
    shared: float
    sessions: int
    work: float
    maintenance: float
    autovacuum_workers: int
    autovacuum: float
    factor: float = 1.5
    wal: float = 0.0
    temp: float = 0.0
    locks: float = 0.0

    @property
    def overhead(self) -> float:
        """The server's own processes; locks, WAL buffers, statistics and the heads of the buffers."""
        return OWN + self.shared / 16 + self.wal + _BACKGROUND * self.locks

    @property
    def session(self) -> float:
        """One session without its work memory: its caches, and the page table for the shared buffers."""
        return SESSION + self.shared / 512 + self.temp + self.locks

    @property
    def fixed(self) -> float:
        """Everything but the sessions."""
        return (
            self.shared
            + self.overhead
            + self.maintenance
            + self.autovacuum_workers * (SESSION + self.autovacuum)
        )

    @property
    def total(self) -> float:
        """All of it."""
        return self.fixed + self.sessions * (self.session + self.factor * self.work)

    def __str__(self) -> str:
        """The arithmetic."""
        return (
            f"shared_buffers {self.shared:.0f} + the server itself {self.overhead:.0f}"
            f" + {self.sessions} sessions x ({self.session:.2f} + {self.factor:g} x work_mem {self.work:.2f})"
            f" + maintenance_work_mem {self.maintenance:.0f} + {self.autovacuum_workers} autovacuum workers"
            f" x ({SESSION} + {self.autovacuum:.0f}) = {self.total:.0f} MB of {self.limit:.0f} MB"
        )


@dataclass(frozen=True)
class Plan:
    """What the formula comes to.

    Attributes:
        settings: For postgresql.conf.
        container: Its limits.
        host: For sysctl.
        application: Variables of its environment.
        pool: Of each process of the application.
        connections: Limits by user.
        budget: The memory at worst.
    """

    settings: tuple[Setting, ...]
    container: tuple[Setting, ...]
    host: tuple[Setting, ...]
    application: tuple[Setting, ...]
    pool: Pool
    connections: Mapping[str, int]
    budget: Budget


# Measured on PostgreSQL 16, in MB: a session that has run the product's queries over 16 months keeps 6 of its
# own, one that has only connected 1.7. Of many sessions, some are the one and some the other.
SESSION = 4
OWN = 24
HASH_MEM_MULTIPLIER = 2.0
"""PostgreSQL's own."""
LEAST_WORK = 1.0
MOST_WORK = 256.0
RESERVED = 3
"""Connections that only the superuser gets: PostgreSQL's superuser_reserved_connections."""
STEP = 25
LEAST_MEMORY = 512
LEAST_WAL = 32
"""With less PostgreSQL does not start."""
LOCKS = 128
LOCK = 384 / 2**20
"""Of the shared memory, for each that max_locks_per_transaction allows a session: a lock and two holders."""
_BACKGROUND = 20
SYSTEM = 512
MOST_BY_DEFAULT = 4096
CORES_BY_DEFAULT = 2
"""Of the server's container where nobody says: the role's occupancy_cpus."""
_ROUND = 64

_WIKI = "PostgreSQL wiki, Number Of Database Connections"
# Reason and source. Numbers are sections of the manual.
_WHY = {
    "max_connections": ("the users' limits added up, the superuser's too, and room for users to come", _WIKI),
    "shared_buffers": ("a quarter of the container's memory", "20.4.1"),
    "work_mem": ("what is left, for all sessions sorting or hashing at once", "20.4.1"),
    "maintenance_work_mem": ("a sixteenth of the memory, for one index build at a time", "pgtune"),
    "autovacuum_work_mem": ("each worker may take it; 8 MB are a million dead rows", "20.4.1, 25.1"),
    "effective_cache_size": ("what the planner may hope to find in memory, page cache included", "pgtune"),
    "huge_pages": ("taken where the host keeps some (tuning_huge_pages)", "19.4.5"),
    "max_parallel_workers": ("parallel queries leave cores to the writers", "20.4.6"),
    "max_parallel_workers_per_gather": ("half of the cores for one query", "20.4.6"),
    "max_parallel_maintenance_workers": ("half of the cores for one index build", "20.4.6"),
    "max_locks_per_transaction": ("a statement over years locks every month and its indexes", "20.12"),
    "max_wal_size": ("an import fits between two checkpoints; no more than a tenth of the disk", "30.5"),
    "min_wal_size": ("files of the WAL are used again, not made again", "20.5.2"),
    "checkpoint_timeout": ("after a checkpoint, small inserts write whole pages: fewer of both", "30.5"),
    "wal_compression": (
        "those whole pages, where the build has more than pglz or the disk is slow",
        "20.5.1, measured",
    ),
    "random_page_cost": ("what a jump costs on this kind of disk; lower loses bitmap scans", "measured"),
    "effective_io_concurrency": ("requests that this kind of disk serves at once", "20.4.6"),
    "maintenance_io_concurrency": ("the same for VACUUM", "20.4.6"),
    "jit": ("the product's queries take milliseconds, less than compiling them", "32.2"),
    "autovacuum_max_workers": ("one for this month, one for everything else", "20.10"),
    "autovacuum_vacuum_insert_scale_factor": ("months only grow: frozen and visible in small steps", "20.10"),
    "autovacuum_analyze_scale_factor": ("the planner is to know the last hours of the month", "20.10"),
    "shared_preload_libraries": ("which statements take the time", "F.32"),
    "pg_stat_statements.track_utility": ("ALTER ROLE … PASSWORD would be kept as it was written", "F.32"),
    "track_io_timing": ("whether a slow statement waited for the disk", "20.9.1"),
    "log_min_duration_statement": ("what a person notices", "20.8.2"),
    "log_parameter_max_length": ("parameters may be private", "20.8.3"),
    "client_connection_check_interval": ("what a client that is gone had asked for ends", "20.3.3"),
    "memory": ("everything that the budget adds up", "the budget"),
    "cpus": ("what was asked for, and no more than there are", "occupancy_cpus"),
    "shm_size": ("parallel queries share hashes there, and a parallel VACUUM its dead rows", "19.4.1"),
    "vm.swappiness": ("the page cache goes before the server's memory does", "kernel.org, sysctl/vm"),
    "vm.dirty_background_ratio": (
        "writing begins early: a checkpoint's fsync waits less",
        "kernel.org, sysctl/vm",
    ),
    "vm.dirty_ratio": (
        "nobody's copying fills the memory with what is still to be written",
        "kernel.org, sysctl/vm",
    ),
    "vm.nr_hugepages": ("2 MB each, for the server's shared memory", "19.4.5"),
    "POSTGRES_POOL_SIZE": ("2 x cores + 1 sessions keep the cores busy; the processes share them", _WIKI),
    "POSTGRES_MAX_OVERFLOW": ("one process may have them all while the others are idle", _WIKI),
}

_MEMORY_UNITS = {"B": 1 / 2**20, "kB": 1 / 2**10, "MB": 1.0, "GB": 2.0**10, "TB": 2.0**20}
# The unit of a number without one.
_MEMORY = {
    "shared_buffers": 8 / 2**10,
    "wal_buffers": 8 / 2**10,
    "temp_buffers": 8 / 2**10,
    "max_wal_size": 1.0,
    "min_wal_size": 1.0,
    "work_mem": 1 / 2**10,
    "maintenance_work_mem": 1 / 2**10,
    "autovacuum_work_mem": 1 / 2**10,
}
_COUNTS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_parallel_workers",
    "autovacuum_max_workers",
    "superuser_reserved_connections",
    "reserved_connections",
)
_AUTOMATIC = ("autovacuum_work_mem", "wal_buffers")
"""Where -1 leaves it to PostgreSQL."""


def default_memory(machine: int) -> int:
    """The container's limit where nobody says: half of what the system leaves.

    The other half is for the jobs' containers beside it (up to 768 MB), Home Assistant and the page cache.
    More than 4 GB is for whoever asks for it: a home's year of readings is 1.5 GB. In steps of 64 MB: another
    kernel leaves some megabytes more or less, and the server need not be made anew for them.

    Args:
        machine: Memory of the machine, in MB.
    """
    return min(MOST_BY_DEFAULT, max(LEAST_MEMORY, (machine - SYSTEM) // 2 // _ROUND * _ROUND))


def disk_kind(device: str, rotational: bool) -> Disk:
    """What a disk is, by what the kernel says.

    Virtual disks call themselves rotating whatever is beneath them, so their word does not count.

    Args:
        device: The kernel's name, like sda or vda1; may be empty.
        rotational: queue/rotational of the device.
    """
    return Disk.HDD if rotational and not device.startswith(("vd", "xvd")) else Disk.SSD


def probe(path: Path = Path("/")) -> Machine:
    """Look at this machine.

    Args:
        path: Where the data are or will be.

    Raises:
        OSError: the path is not there, or this is not Linux.
    """
    memory = re.search(
        r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    if memory is None:
        raise OSError("/proc/meminfo has no MemTotal")
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    # A partition has none: its disk is the directory above it.
    flags = [place / "queue/rotational" for place in (device, device.parent)]
    rotational = next(
        (flag.read_text(encoding="ascii").strip() == "1" for flag in flags if flag.exists()), False
    )
    room = os.statvfs(path)
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory=int(memory[1]) // 1024,
        disk=disk_kind(device.name, rotational),
        disk_size=room.f_blocks * room.f_frsize // 2**20,
    )


def plan(request: Request) -> Plan:
    """Work everything out.

    Args:
        request: What there is, and what is wanted.

    Raises:
        BudgetError: it does not fit, or a number is none; the text shows the arithmetic.
    """
    if request.memory < LEAST_MEMORY:
        raise BudgetError(
            f"the container needs {LEAST_MEMORY} MB of memory at least, and has {request.memory}"
        )
    if request.cores <= 0:
        raise BudgetError(f"the container needs a core or a part of one, and has {request.cores:g}")
    overrides = {
        name.lower(): value for name, value in request.overrides.items()
    }  # as PostgreSQL reads names
    given = _given(overrides)
    cores, memory = request.cores, request.memory

    shared = given.get("shared_buffers", memory // 4)
    maintenance = given.get("maintenance_work_mem", min(1024, max(32, memory // 16)))
    autovacuum = given.get("autovacuum_work_mem", min(256, max(8, memory // 64)))
    if autovacuum < 0:  # PostgreSQL's way to say: as much as maintenance_work_mem
        autovacuum = maintenance
    autovacuum_workers = int(given.get("autovacuum_max_workers", 2 if cores < 8 else 3))
    reserved = int(
        given.get("superuser_reserved_connections", RESERVED) + given.get("reserved_connections", 0)
    )
    hashes = given.get("hash_mem_multiplier", HASH_MEM_MULTIPLIER)
    factor = (1 + max(1, hashes)) / 2
    locks = max(0, given.get("max_locks_per_transaction", LOCKS) - LOCKS) * LOCK
    wal_buffers, temp = max(0, given.get("wal_buffers", 0)), given.get("temp_buffers", 0)
    spare_cores = {Workload.MIXED: int(cores) // 2, Workload.INGEST: 0, Workload.DASHBOARDS: int(cores)}
    workers = int(given.get("max_parallel_workers", min(spare_cores[request.workload], 8, memory // 512)))
    per_query = min(workers, max(1, int(cores) // 2), 4)

    def budget(sessions: int, work: float) -> Budget:
        return Budget(
            memory,
            shared,
            sessions,
            work,
            maintenance,
            autovacuum_workers,
            autovacuum,
            factor,
            wal_buffers,
            temp,
            locks,
        )

    # Connections: what the pools and the users need, as far as there is memory for each at its least
    least = budget(0, 0.0)
    affordable = int((memory - least.fixed) / (least.session + factor * given.get("work_mem", LEAST_WORK)))
    pools = sum(client.pools for client in request.clients.values())
    others = sum(client.connections for client in request.clients.values())
    most = (int(given.get("max_connections", affordable - workers)) - reserved - others) // max(pools, 1)
    processes = max((client.pools for client in request.clients.values()), default=1)
    sizes = pool(request.environment, cores, processes, max(most, 1))
    limits = {
        name: client.connections + client.pools * sizes.most for name, client in request.clients.items()
    }
    needed = sum(limits.values()) + reserved
    # Room for users to come: another number of connections is a restart.
    roomy = min(-(-needed // STEP) * STEP, affordable - workers)
    connections = int(given.get("max_connections", max(needed, roomy)))
    if connections < needed:
        raise BudgetError(
            f"max_connections {connections} is less than what users and pools may open:"
            f" {' + '.join(f'{name} {limit}' for name, limit in limits.items())}"
            f" + {reserved} reserved = {needed}"
        )

    # Work memory: what is left, for all of them at once
    sessions = connections + workers
    left = budget(sessions, 0.0)
    share = (memory - left.total) / (sessions * factor)
    work = given.get("work_mem", min(MOST_WORK, int(share * 1024) / 1024))
    if work < LEAST_WORK and "work_mem" not in given:
        work = LEAST_WORK
    found = budget(sessions, work)
    if found.total > memory:
        raise BudgetError(f"this does not fit into the container: {found}")

    wal_most = {Workload.MIXED: 4096, Workload.INGEST: 8192, Workload.DASHBOARDS: 2048}[request.workload]
    wal = (
        wal_most if request.disk_size is None else max(512, min(wal_most, request.disk_size // 10 // 64 * 64))
    )
    wal = int(given.get("max_wal_size", wal))
    if request.disk_size is not None and wal > request.disk_size // 2:
        raise BudgetError(
            f"max_wal_size {wal} MB is more than half of the disk: {request.disk_size} MB / 2"
            f" = {request.disk_size // 2} MB"
        )
    wal_least = int(given.get("min_wal_size", max(LEAST_WAL, wal // 4)))
    for name, size in (("max_wal_size", wal), ("min_wal_size", wal_least)):
        if size < LEAST_WAL:
            raise BudgetError(
                f"{name} {size} MB is less than two files of the WAL: 2 x 16 MB = {LEAST_WAL} MB"
            )
    fast = request.disk is Disk.SSD
    compression = (
        "off" if fast and request.wal_compression is WalCompression.PGLZ else request.wal_compression
    )
    values: dict[str, tuple[object, str]] = {
        "max_connections": (connections, ""),
        "shared_buffers": (_trim(shared), "MB"),
        "work_mem": (int(work * 1024), "kB"),
        "maintenance_work_mem": (_trim(maintenance), "MB"),
        "autovacuum_work_mem": (_trim(autovacuum), "MB"),
        "effective_cache_size": (memory * 3 // 4, "MB"),
        "huge_pages": ("try", ""),
        "max_parallel_workers": (workers, ""),
        "max_parallel_workers_per_gather": (per_query, ""),
        "max_parallel_maintenance_workers": (per_query, ""),
        "max_locks_per_transaction": (LOCKS, ""),
        "max_wal_size": (wal, "MB"),
        "min_wal_size": (wal_least, "MB"),
        "checkpoint_timeout": (15, "min"),
        "wal_compression": (str(compression), ""),
        "random_page_cost": (2 if fast else 4, ""),
        "effective_io_concurrency": (200 if fast else 2, ""),
        "maintenance_io_concurrency": (200 if fast else 10, ""),
        "jit": ("off", ""),
        "autovacuum_max_workers": (autovacuum_workers, ""),
        "autovacuum_vacuum_insert_scale_factor": (0.05, ""),
        "autovacuum_analyze_scale_factor": (0.02, ""),
        "shared_preload_libraries": ("pg_stat_statements", ""),
        "pg_stat_statements.track_utility": ("off", ""),
        "track_io_timing": ("on", ""),
        "log_min_duration_statement": (1, "s"),
        "log_parameter_max_length": (0, ""),
        "client_connection_check_interval": (10, "s"),
    }
    # At worst each parallel worker belongs to another query, whose two processes share two hashes.
    shm = max(64, min(memory // 2, int(maintenance + workers * 2 * 2 * work * max(1, hashes))))
    host: dict[str, tuple[object, str]] = {
        "vm.swappiness": (10, ""),
        "vm.dirty_background_ratio": (3, ""),
        "vm.dirty_ratio": (10, ""),
    }
    if request.huge_pages:
        host["vm.nr_hugepages"] = (int((shared + found.overhead) // 2) + 1, "")
    return Plan(
        settings=_overridden(_explained(values), overrides),
        container=_explained({"memory": (memory, "m"), "cpus": (f"{cores:g}", ""), "shm_size": (shm, "m")}),
        host=_explained(host),
        application=_explained(
            {"POSTGRES_POOL_SIZE": (sizes.size, ""), "POSTGRES_MAX_OVERFLOW": (sizes.overflow, "")}
        ),
        pool=sizes,
        connections=limits,
        budget=found,
    )


def _explained(values: Mapping[str, tuple[object, str]]) -> tuple[Setting, ...]:
    return tuple(Setting(name, value, unit, *_WHY[name]) for name, (value, unit) in values.items())


def _trim(megabytes: float) -> float | int:
    return int(megabytes) if megabytes == int(megabytes) else megabytes


def _overridden(settings: tuple[Setting, ...], overrides: Mapping[str, object]) -> tuple[Setting, ...]:
    """Where the operator's value stands, and what the formula does not know after the rest."""
    known = [
        Setting(each.name, overrides[each.name], "", f"instead of {each}: {each.reason}", "postgres_settings")
        if each.name in overrides
        else each
        for each in settings
    ]
    names = {each.name for each in settings}
    return (*known, *(
        Setting(name, value, "", "the operator's", "postgres_settings")
        for name, value in overrides.items() if name not in names
    ))  # fmt: skip


def _given(overrides: Mapping[str, object]) -> dict[str, float]:
    """The overrides that the budget depends on: memory in MB, and counts.

    Raises:
        BudgetError: one is no such number.
    """
    found = {}
    for name, value in overrides.items():
        text = str(value).strip()
        if name in _COUNTS:
            if not re.fullmatch(r"[0-9]+", text):
                raise BudgetError(f"{name} is {text!r}, which is no count")
            found[name] = float(text)
        elif name == "hash_mem_multiplier":
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
                raise BudgetError(f"{name} is {text!r}, which is no number")
            found[name] = float(text)
        elif name in _AUTOMATIC and text == "-1":
            found[name] = -1.0
        elif name in _MEMORY:
            parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(B|kB|MB|GB|TB)?", text)
            if parts is None or not float(parts[1]):
                raise BudgetError(f"{name} is {text!r}, which is no amount of memory like 64MB")
            found[name] = float(parts[1]) * (_MEMORY_UNITS[parts[2]] if parts[2] else _MEMORY[name])
    return found
