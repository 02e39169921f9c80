"""``occupancy-db check-tables``."""

import asyncio
from typing import Any

import typer
from rich.table import Table
from sqlalchemy import text

from occupancy_db.cli.output import Json, out
from occupancy_db.connection import connect
from occupancy_db.errors import ExitCode
from occupancy_db.models import Base
from occupancy_db.schema.runner import current_revision
from occupancy_db.settings import Settings

EXPECTED = {
    "table": {*Base.metadata.tables, "hourly.history", "hourly.marks", "hourly.sums", "hourly.watermark"},
    "view": {"room_occupancy_status", "sensor_reading_stats"},
    "enum": {"prediction_type", "room_type"},
    "function": {"cleanup_old_sensor_readings", "retention_cutoff"},
}

# A partitioned table holds nothing itself: its figures are the sums over its leaves.
TABLES = text("""
    SELECT concat(nullif(nspname, 'public') || '.', root.relname) AS name,
           count(leaf.oid) FILTER (WHERE leaf.oid <> root.oid) AS partitions,
           sum(greatest(leaf.reltuples, pg_stat_get_live_tuples(leaf.oid)))::bigint AS rows,
           sum(pg_total_relation_size(leaf.oid))::bigint AS bytes,
           pg_size_pretty(sum(pg_total_relation_size(leaf.oid))) AS size
    FROM pg_class AS root
    JOIN pg_namespace ON pg_namespace.oid = root.relnamespace AND nspname IN ('public', 'hourly')
    CROSS JOIN LATERAL (
        SELECT relid FROM pg_partition_tree(root.oid) WHERE isleaf
        UNION SELECT root.oid WHERE root.relkind = 'r'
    ) AS tree
    JOIN pg_class AS leaf ON leaf.oid = tree.relid
    WHERE root.relkind IN ('r', 'p') AND NOT root.relispartition
    GROUP BY nspname, root.relname
    ORDER BY nspname = 'hourly', root.relname
""")

OTHERS = text("""
    SELECT 'view' AS kind, relname AS name, NULL AS detail FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
    UNION ALL
    SELECT 'enum', typname, string_agg(enumlabel, ', ' ORDER BY enumsortorder)
    FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid
    WHERE typnamespace = 'public'::regnamespace
    GROUP BY typname
    UNION ALL
    SELECT 'function', proname, pg_get_function_arguments(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND proname = ANY(:functions)
    ORDER BY kind, name
""")


def check_tables(json: Json = False) -> None:
    """List what the schema holds; fails if something that the models or queries need is missing."""
    if not asyncio.run(_check_tables(Settings())):
        raise typer.Exit(ExitCode.FAILED)


async def _check_tables(settings: Settings) -> bool:
    async with connect(settings, "occupancy-db check-tables") as connection:
        revision = await current_revision(connection)
        tables = [dict(row) for row in (await connection.execute(TABLES)).mappings()]
        others = [
            dict(row)
            for row in (
                await connection.execute(OTHERS, {"functions": sorted(EXPECTED["function"])})
            ).mappings()
        ]

    found: dict[str, set[str]] = {kind: set() for kind in EXPECTED}
    found["table"] = {row["name"] for row in tables}
    for row in others:
        found[row["kind"]].add(row["name"])
    missing = [f"{kind} {name}" for kind in EXPECTED for name in sorted(EXPECTED[kind] - found[kind])]

    data: dict[str, Any] = {
        "database": settings.database,
        "revision": revision,
        "tables": tables,
        "objects": others,
        "missing": missing,
    }
    table_list = Table("Table", "Partitions", "Rows (estimate)", "Size")
    for row in tables:
        table_list.add_row(row["name"], str(row["partitions"] or ""), f"{row['rows']:,}", row["size"])
    object_list = Table("Kind", "Name", "Detail")
    for row in others:
        object_list.add_row(row["kind"], row["name"], row["detail"] or "")
    verdict = (
        f"missing: {', '.join(missing)}; run 'occupancy-db migrate'"
        if missing
        else "everything expected is there"
    )
    out.result(
        data,
        f"{settings.database} at revision {revision or 'none'}",
        table_list,
        object_list,
        verdict,
    )
    return not missing
