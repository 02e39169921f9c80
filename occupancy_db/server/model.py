"""Data classes of the tuning formula: its input, its output and the memory budget.

Memory and disk sizes are in MB of 1,048,576 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from occupancy_db.environment import Environment
from occupancy_db.pool import Pool

SESSION_MEMORY = 4
"""MB of private memory of an average session, without ``work_mem``.

Measured on PostgreSQL 16: a session that has run the product's queries over 16 months of readings keeps 6 MB,
a session that has only connected keeps 1.7 MB.
"""

SERVER_MEMORY = 24
"""Memory of the server's own processes, in MB."""

BACKGROUND_PROCESSES = 20
"""Number of processes besides the sessions for which PostgreSQL reserves entries in the lock table."""


class Disk(StrEnum):
    """Kind of disk that holds the data directory."""

    SSD = "ssd"
    HDD = "hdd"


class Workload(StrEnum):
    """Main use of the server."""

    MIXED = "mixed"
    INGEST = "ingest"
    DASHBOARDS = "dashboards"


class WalCompression(StrEnum):
    """Compression methods for full-page images in the WAL, the preferred one first.

    lz4 needs the least CPU time. Every build has pglz, but it needs so much CPU time that it is useful
    on slow disks only: with pgbench (TPC-B-like) on two cores and an SSD, it reduces the transaction rate by
    a seventh.
    """

    LZ4 = "lz4"
    ZSTD = "zstd"
    PGLZ = "pglz"


class BudgetError(ValueError):
    """The requested settings exceed the memory or the disk; the text shows the calculation."""


@dataclass(frozen=True)
class Machine:
    """Hardware as :func:`occupancy_db.server.host.probe` finds it.

    Attributes:
        cores: Cores that this process may use.
        memory: Memory of the whole machine in MB; a limit of this process is ignored.
        disk: Kind of disk that holds the data.
        disk_size: Size of the file system that holds the data, in MB.
    """

    cores: int
    memory: int
    disk: Disk
    disk_size: int


@dataclass(frozen=True)
class Client:
    """Connections of one database user.

    Attributes:
        connections: Number of connections outside of pools.
        pools: Number of application processes that connect as this user, each with a connection pool.
    """

    connections: int
    pools: int = 0


def clients(processes: int = 1) -> Mapping[str, Client]:
    """Return the default connections by user; a host's own list is ``occupancy_roles`` in roles/occupancy.

    Args:
        processes: Number of application processes.
    """
    return {"occupancy": Client(6, 1), "occupancy_app": Client(5, processes), "all others": Client(22)}


@dataclass(frozen=True)
class Request:
    """Input of the formula.

    Attributes:
        cores: Cores that the container may use; fractions are allowed.
        memory: Memory limit of the container in MB.
        disk: Kind of disk that holds the data.
        disk_size: Size of the file system that holds the data, in MB; None if unknown.
        workload: Main use of the server.
        environment: Selects the size of the application's pools.
        clients: All database users except the superuser, by name.
        wal_compression: Best compression method that the server's build supports.
        huge_pages: Whether the host reserves huge pages for the shared memory.
        overrides: Settings that the operator has chosen, by PostgreSQL's names. They are not changed; the
            other values are calculated from the memory that they leave.
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
    """A value with its reason.

    Attributes:
        name: PostgreSQL's, the kernel's or Docker's name.
        value: The value in ``unit``.
        unit: Unit as PostgreSQL writes it; empty for a number or a word.
        reason: Why the value was chosen, for the operator.
        source: Source of the rule; numbers are sections of the manual of PostgreSQL 16.
    """

    name: str
    value: object
    unit: str
    reason: str
    source: str

    def __str__(self) -> str:
        """Return the value with its unit, as it is written to a file."""
        return f"{self.value}{self.unit}"


@dataclass(frozen=True)
class Budget:
    """Memory that the server may use in the worst case, in MB.

    Attributes:
        limit: Memory limit of the container.
        shared: ``shared_buffers``.
        sessions: Number of connections and parallel workers.
        work: ``work_mem``.
        maintenance: ``maintenance_work_mem``.
        autovacuum_workers: Number of autovacuum workers.
        autovacuum: ``autovacuum_work_mem``.
        factor: How many times ``work_mem`` an average session uses: the mean of one sort (1) and one hash
            (``hash_mem_multiplier``).
        wal: ``wal_buffers`` if the operator has set it, else 0.
        temp: ``temp_buffers`` if the operator has set it, else 0: the product uses no temporary tables.
        locks: Additional lock table memory of each session if the operator has set
            ``max_locks_per_transaction``, else 0.
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
        """The server's own processes, the lock table, WAL buffers, statistics and buffer headers."""
        return SERVER_MEMORY + self.shared / 16 + self.wal + BACKGROUND_PROCESSES * self.locks

    @property
    def session(self) -> float:
        """One session without ``work_mem``: its caches, and its page table for the shared buffers."""
        return SESSION_MEMORY + self.shared / 512 + self.temp + self.locks

    @property
    def fixed(self) -> float:
        """The memory of everything except the sessions."""
        return (
            self.shared
            + self.overhead
            + self.maintenance
            + self.autovacuum_workers * (SESSION_MEMORY + self.autovacuum)
        )

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.fixed + self.sessions * (self.session + self.factor * self.work)

    def __str__(self) -> str:
        """Return the calculation for the operator."""
        return (
            f"shared_buffers {self.shared:.0f} + the server itself {self.overhead:.0f}"
            f" + {self.sessions} sessions x ({self.session:.2f} + {self.factor:g} x work_mem {self.work:.2f})"
            f" + maintenance_work_mem {self.maintenance:.0f} + {self.autovacuum_workers} autovacuum workers"
            f" x ({SESSION_MEMORY} + {self.autovacuum:.0f}) = {self.total:.0f} MB of {self.limit:.0f} MB"
        )


@dataclass(frozen=True)
class Plan:
    """Output of the formula.

    Attributes:
        settings: Settings for postgresql.conf.
        container: Limits of the container.
        host: Kernel parameters for sysctl.
        application: Environment variables of the application.
        pool: Connection pool of each application process.
        connections: Connection limit of each user.
        budget: Memory in the worst case.
    """

    settings: tuple[Setting, ...]
    container: tuple[Setting, ...]
    host: tuple[Setting, ...]
    application: tuple[Setting, ...]
    pool: Pool
    connections: Mapping[str, int]
    budget: Budget
