"""The settings and pools that bench.tuning compares."""

from bench import home
from occupancy_db.pool import Pool
from occupancy_db.server import tuning

MEMORY = 2048
"""Of the container, in MB."""

# The settings of pgtune (pgtune.leopard.in.ua) for PostgreSQL 16, Linux, mixed, 2 GB, 2 cores, SSD. pgtune assumes a
# build with lz4; for other builds contenders() replaces it.
PGTUNE = {
    "max_connections": "100",
    "shared_buffers": "512MB",
    "effective_cache_size": "1536MB",
    "maintenance_work_mem": "128MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "4MB",
    "huge_pages": "off",
    "jit": "off",
    "wal_compression": "lz4",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}

SQLALCHEMY = Pool(5, 10)
"""Defaults of create_async_engine's pool_size and max_overflow. pgtune does not recommend a pool."""
AT_ONCE = sum(map(len, home.PLACES.values()))
"""Number of readings of a burst: one of each zone of the home."""
BURSTS = 60
"""Number of bursts in one turn."""
SCALE = 50
"""Scale of pgbench, which is 750 MB."""


def contenders(codec: tuning.WalCompression) -> dict[str, dict[str, str]]:
    """Return the compared settings by their origin.

    Args:
        codec: The best compression method of the server's build.
    """
    ours = tuning.plan(tuning.Request(cores=2, memory=MEMORY, wal_compression=codec))
    lz4 = codec is tuning.WalCompression.LZ4
    return {
        "stock": {},
        "pgtune": PGTUNE | ({} if lz4 else {"wal_compression": str(codec)}),
        "ours": {setting.name: str(setting) for setting in ours.settings},
    }
