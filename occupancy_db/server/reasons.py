"""The reason and the source of each value that the tuning formula calculates."""

from collections.abc import Mapping

from occupancy_db.server.model import Setting

_WIKI = "PostgreSQL wiki, Number Of Database Connections"
# By setting: the reason and its source. Numbers are sections of the manual of PostgreSQL 16.
_REASONS = {
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


def explained(values: Mapping[str, tuple[object, str]]) -> tuple[Setting, ...]:
    """Add the reason and the source to values.

    Args:
        values: Value and unit by the name of the setting.

    Raises:
        KeyError: no reason is known for a name.
    """
    return tuple(Setting(name, value, unit, *_REASONS[name]) for name, (value, unit) in values.items())
