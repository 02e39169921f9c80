"""``occupancy-db check-tables``."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import typer

from occupancy_db.cli.output import Json, out, with_program
from occupancy_db.cli.table import Column, Table
from occupancy_db.driver import connect_driver
from occupancy_db.errors import ExitCode
from occupancy_db.months import TABLE, following, month_of, partition_name
from occupancy_db.schema import position
from occupancy_db.settings import Settings

EXPECTED = {
    # The tables of the models by name: importing the models takes longer than the queries. A test compares.
    "table": {
        "predictions",
        "room_transitions",
        "rooms",
        "sensor_gaps",
        "sensor_readings",
        "sensors",
        "hourly.carried",
        "hourly.clock",
        "hourly.forgotten",
        "hourly.history",
        "hourly.home",
        "hourly.ingest_slots",
        "hourly.marks",
        "hourly.occupied",
        "hourly.occupied_history",
        "hourly.occupied_marks",
        "hourly.sums",
        "hourly.watermark",
    },
    "view": {
        "latest_readings",
        "local_day_stats",
        "local_hour_stats",
        "occupied_room_hours",
        "occupied_room_local_days",
        "occupied_room_local_hours",
        "occupied_zone_hours",
        "occupied_zone_local_days",
        "occupied_zone_local_hours",
        "room_occupancy_status",
        "sensor_reading_stats",
        "silent_sensors",
    },
    "enum": {"prediction_type", "room_type"},
    "function": {"claim_ingest_slots", "cleanup_old_sensor_readings", "retention_cutoff", "store_readings"},
}

# A partitioned table holds no rows itself: its figures are the sums over its leaf partitions.
TABLES = """
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
"""

PARTITIONS = f"""
    SELECT inhrelid::regclass::text AS name FROM pg_inherits
    WHERE inhparent = to_regclass('public.{TABLE}') AND NOT inhdetachpending
"""  # noqa: S608 - a constant

OTHERS = """
    SELECT 'view' AS kind, relname::text AS name, NULL AS detail FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
    UNION ALL
    SELECT 'enum', typname, string_agg(enumlabel, ', ' ORDER BY enumsortorder)
    FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid
    WHERE typnamespace = 'public'::regnamespace
    GROUP BY typname
    UNION ALL
    SELECT 'function', proname, pg_get_function_arguments(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND proname = ANY($1::text[])
    ORDER BY kind, name
"""


def check_tables(json: Json = False) -> None:
    """List the objects of the schema, and what is missing or different.

    The exit code is 1 if an object that the models or the queries of clients need is missing, or the
    partition of the present month or the next. Where the programs of PostgreSQL and the directories of
    backups are, all definitions and privileges are compared with those that the migrations create in a
    temporary server; the exit code of a difference is 13, that of an unknown revision 15.
    """
    if code := asyncio.run(_check_tables(Settings())):
        raise typer.Exit(code)


async def _check_tables(settings: Settings) -> ExitCode:
    async with connect_driver(settings, "occupancy-db check-tables") as connection:
        revisions, _ = await position.applied(connection)
        tables = [dict(row) for row in await connection.fetch(TABLES)]
        others = [dict(row) for row in await connection.fetch(OTHERS, sorted(EXPECTED["function"]))]
        partitions = {row["name"] for row in await connection.fetch(PARTITIONS)}

    found: dict[str, set[str]] = {kind: set() for kind in EXPECTED}
    found["table"] = {row["name"] for row in tables}
    for row in others:
        found[row["kind"]].add(row["name"])
    missing = [f"{kind} {name}" for kind in EXPECTED for name in sorted(EXPECTED[kind] - found[kind])]
    months = _missing_months(tables, partitions)
    revision = ", ".join(revisions) or None
    compared = await _compare(settings, revisions)

    data: dict[str, Any] = {
        "database": settings.database,
        "revision": revision,
        "tables": tables,
        "objects": others,
        "missing": missing + months,
        "differences": compared.differences,
        "additional": compared.additional,
        "not_compared": compared.skipped,
    }
    table_list = Table(
        [
            Column("Table", rank=0),
            Column("Partitions", rank=2, right=True),
            Column("Rows (estimate)", right=True),
            Column("Size", right=True),
        ]
    )
    for row in tables:
        table_list.add(row["name"], row["partitions"] or "", f"{row['rows']:,}", row["size"])
    object_list = Table([Column("Kind", rank=0), Column("Name", rank=0), Column("Detail")])
    for row in others:
        object_list.add(row["kind"], row["name"], row["detail"])
    verdict = [
        with_program(f"missing: {', '.join(names)}; run 'occupancy-db {command}'")
        for names, command in ((missing, "migrate"), (months, "partitions maintain"))
        if names
    ]
    out.result(
        data,
        f"{settings.database} at revision {revision or 'none'}",
        table_list,
        "",
        object_list,
        "",
        *(verdict or ["no object is missing"]),
        *compared.lines(),
    )
    return ExitCode.FAILED if missing or months else compared.code


@dataclass(frozen=True)
class _Comparison:
    """The comparison of the definitions with those of the release.

    Attributes:
        skipped: Why nothing was compared; None if it was.
        differences: What is missing, different, or changes what the release does.
        additional: What the operator has added beside the release.
        code: Exit code.
    """

    skipped: str | None = None
    differences: list[str] = field(default_factory=list)
    additional: list[str] = field(default_factory=list)
    code: ExitCode = ExitCode.OK

    def lines(self) -> list[str]:
        """The result for people."""
        if self.skipped:
            return [f"definitions were not compared: {self.skipped}"]
        return [
            *(f"different: {one}" for one in self.differences),
            *(f"not part of the release: {one}" for one in self.additional),
            *([] if self.differences else ["definitions and privileges are those of the release"]),
        ]


async def _compare(settings: Settings, applied: list[str]) -> _Comparison:
    if not applied:
        return _Comparison("no migration was applied")
    if len(applied) > 1 or applied[0] not in position.chain():
        what = f"this release does not know the revision {', '.join(applied)}"
        async with connect_driver(settings, "occupancy-db check-tables") as connection:
            known = (await position.find(connection)).known if len(applied) == 1 else False
        return _Comparison(what, code=ExitCode.OK if known else ExitCode.UNSUITABLE)
    from occupancy_db.backup.configuration import BackupSettings
    from occupancy_db.release import drift

    if reason := await drift.not_comparable(backup := BackupSettings()):
        return _Comparison(reason)
    found = await drift.find_drift(settings, backup, applied[0])
    differences = [*found.missing, *found.changing]
    return _Comparison(
        None,
        differences,
        [*found.more, *found.others],
        ExitCode.DIFFERENT if differences else ExitCode.OK,
    )


def _missing_months(tables: list[dict[str, Any]], partitions: set[str]) -> list[str]:
    """The present month and the next if they have no partition, in a database with a table of readings."""
    if TABLE not in {row["name"] for row in tables}:
        return []
    present = month_of(datetime.now(UTC))
    wanted = [partition_name(following(present, n)) for n in (0, 1)]
    return [f"partition {name}" for name in wanted if name not in partitions]
