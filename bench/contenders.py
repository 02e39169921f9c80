"""The settings and pools that bench.tuning compares."""

from bench import home
from occupancy_db.pool import Pool
from occupancy_db.server import tuning

MEMORY = 2048
"""Of the container, in MB."""

# What pgtune (pgtune.leopard.in.ua) says for PostgreSQL 16, Linux, mixed, 2 GB, 2 cores, SSD; it takes it for granted
# that the server was built with lz4, so pglz is put in its place where it was not.
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
"""Of who does not say: create_async_engine's pool_size and max_overflow. pgtune has no word about pools."""
AT_ONCE = sum(map(len, home.PLACES.values()))
"""A zone each: all sensors of the home report."""
BURSTS = 60
"""Of one turn: how often they all do."""
SCALE = 50
"""Of pgbench: 750 MB."""


def contenders(codec: tuning.WalCompression) -> dict[str, dict[str, str]]:
    """Settings by whom they are from.

    Args:
        codec: The best that the server's build has.
    """
    ours = tuning.plan(tuning.Request(cores=2, memory=MEMORY, wal_compression=codec))
    lz4 = codec is tuning.WalCompression.LZ4
    return {
        "stock": {},
        "pgtune": PGTUNE | ({} if lz4 else {"wal_compression": str(codec)}),
        "ours": {setting.name: str(setting) for setting in ours.settings},
    }
