"""The reason and the source of each value that the tuning formula calculates."""

from collections.abc import Mapping

from occupancy_db.server.model import Setting

_WIKI = "PostgreSQL wiki, Number Of Database Connections"
# By setting: the reason and its source. Numbers are sections of the manual of PostgreSQL 16.
_REASONS = {
    "max_connections": ("the sum of the connection limits of all users, rounded up for further users", _WIKI),
    "shared_buffers": ("a quarter of the container's memory limit", "20.4.1"),
    "work_mem": ("the remaining memory, divided among all sessions that sort or hash at once", "20.4.1"),
    "maintenance_work_mem": ("a sixteenth of the memory limit; one index build at a time", "pgtune"),
    "autovacuum_work_mem": (
        "allocated by each worker; 8 MB hold the IDs of a million dead rows",
        "20.4.1, 25.1",
    ),
    "effective_cache_size": ("the planner's estimate of shared_buffers plus the page cache", "pgtune"),
    "huge_pages": ("huge pages are used if the host reserves them (tuning_huge_pages)", "19.4.5"),
    "max_parallel_workers": ("parallel queries leave processor time to sessions that write", "20.4.6"),
    "max_parallel_workers_per_gather": ("at most half of the cores for one query", "20.4.6"),
    "max_parallel_maintenance_workers": ("at most half of the cores for one index build", "20.4.6"),
    "max_locks_per_transaction": ("a query over years locks each partition and its indexes", "20.12"),
    "max_wal_size": ("an import fits between two checkpoints; at most a tenth of the disk", "30.5"),
    "min_wal_size": ("WAL files are recycled instead of removed and created again", "20.5.2"),
    "checkpoint_timeout": ("fewer checkpoints write fewer full-page images to the WAL", "30.5"),
    "wal_compression": (
        "compresses full-page images, if the build has more than pglz or the disk is slow",
        "20.5.1, measured",
    ),
    "random_page_cost": (
        "the cost of random reads from this kind of disk; a lower value prevents bitmap scans",
        "measured",
    ),
    "effective_io_concurrency": ("number of requests that this kind of disk serves at once", "20.4.6"),
    "maintenance_io_concurrency": ("number of requests at once, for VACUUM and other maintenance", "20.4.6"),
    "jit": ("the product's queries take less time than compiling them would", "32.2"),
    "autovacuum_max_workers": ("one worker for the current month, the others for all other tables", "20.10"),
    "autovacuum_vacuum_insert_scale_factor": (
        "partitions receive mostly inserts; small steps freeze the rows and update the visibility map",
        "20.10",
    ),
    "autovacuum_analyze_scale_factor": ("keeps the planner's statistics of recent hours up to date", "20.10"),
    "shared_preload_libraries": ("records the execution time of statements", "F.32"),
    "pg_stat_statements.track_utility": (
        "otherwise ALTER ROLE ... PASSWORD would be stored with its password",
        "F.32",
    ),
    "track_io_timing": ("shows whether a slow statement waited for the disk", "20.9.1"),
    "log_min_duration_statement": ("logs statements that take so long that a user notices", "20.8.2"),
    "log_parameter_max_length": ("parameters may contain private data", "20.8.3"),
    "client_connection_check_interval": ("cancels queries of clients that have disconnected", "20.3.3"),
    "memory": ("the memory limit that the budget is calculated for", "the budget"),
    "cpus": ("the requested number, and at most the number of cores of the host", "occupancy_cpus"),
    "shm_size": ("holds hash tables of parallel queries and the dead row IDs of a parallel VACUUM", "19.4.1"),
    "vm.swappiness": (
        "the kernel reclaims the page cache before it swaps out memory of the server",
        "kernel.org, sysctl/vm",
    ),
    "vm.dirty_background_ratio": (
        "the kernel starts to write early, so that the fsync of a checkpoint takes less time",
        "kernel.org, sysctl/vm",
    ),
    "vm.dirty_ratio": (
        "limits the memory that another process can fill with unwritten data",
        "kernel.org, sysctl/vm",
    ),
    "vm.nr_hugepages": ("number of pages of 2 MB that hold the server's shared memory", "19.4.5"),
    "POSTGRES_POOL_SIZE": ("2 x cores + 1 sessions use all cores; the processes share them", _WIKI),
    "POSTGRES_MAX_OVERFLOW": ("one process may use all sessions while the others are idle", _WIKI),
}


def explained(values: Mapping[str, tuple[object, str]]) -> tuple[Setting, ...]:
    """Return values with the reason and the source of each.

    Args:
        values: Value and unit by the name of the setting.

    Raises:
        KeyError: no reason is known for a name.
    """
    return tuple(Setting(name, value, unit, *_REASONS[name]) for name, (value, unit) in values.items())
