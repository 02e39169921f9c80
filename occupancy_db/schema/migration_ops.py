"""For migrations: indexes and changes of rows beside writers who must not notice.

They commit as they go, and can be run again: what an interruption left is taken up, or taken away and made
anew. A revision that uses one holds nothing else that could not be run twice.

What stands here is called by migrations that have been shipped: their meaning must stay.
"""

import re

from alembic import op

# A concurrent index waits for everybody who was there before it, and nobody waits for it.
_UNHURRIED = "SET lock_timeout = '10min'"
_BRIEFLY = "SET lock_timeout = '100ms'"

# Of each leaf of a table that has no part in the index yet: its name, and what its own index is called. A
# plain table is a leaf of its own.
_LEAVES = """
    SELECT relid::regclass AS leaf, '{name}' || regexp_replace(relname, '^{table}', '') AS index
    FROM (SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass) AS tree
    JOIN pg_class ON pg_class.oid = relid
    WHERE relkind = 'r' AND NOT EXISTS (
        SELECT FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
        WHERE inhparent = to_regclass('{name}') AND indrelid = relid
    )
    ORDER BY relname
"""

_BACKFILL = """
DO $$
DECLARE
    leaf regclass;
    pages bigint;
    page bigint;
    changed bigint;
    changed_in_all bigint;
BEGIN
    LOOP
        changed_in_all := 0;
        FOR leaf IN
            SELECT relid
            FROM (SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass) AS tree
            JOIN pg_class ON pg_class.oid = relid
            WHERE relkind = 'r'
            ORDER BY relname
        LOOP
            pages := pg_relation_size(leaf) / current_setting('block_size')::bigint;
            page := 0;
            WHILE page < pages LOOP
                EXECUTE format(
                    $statement$
                    UPDATE ONLY %s SET {set} WHERE ctid >= '(%s,0)' AND ctid < '(%s,0)' AND ({where})
                    $statement$, leaf, page, page + {pages});
                GET DIAGNOSTICS changed = ROW_COUNT;
                changed_in_all := changed_in_all + changed;
                COMMIT;
                PERFORM pg_sleep(CASE WHEN changed > 0 THEN {pause} ELSE 0 END);
                page := page + {pages};
            END LOOP;
        END LOOP;
        -- A row that somebody changed meanwhile has moved behind where this had been.
        EXIT WHEN changed_in_all = 0;
    END LOOP;
END
$$
"""


def create_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Build an index while everybody reads and writes; on a partitioned table one partition after the other.

    PostgreSQL refuses CONCURRENTLY on a partitioned table. So the partitions are indexed concurrently, then
    the table itself without them (ON ONLY, which takes no time), then the indexes are attached. That waits
    for locks briefly; who runs the migration tries again. An INVALID index of that name, which an interrupted
    build leaves and IF NOT EXISTS would keep, is dropped first.

    Args:
        name: The index; a partition's is called the same and ends as the partition's own name does.
        table: The table, in the schema public.
        definition: What follows ON <table>, as in ``(room, timestamp DESC) WHERE state``.
        unique: Whether it is unique; of a partitioned table it must contain the partition key.
    """
    kind = "UNIQUE INDEX" if unique else "INDEX"
    leaves = _LEAVES.format(name=_safe(name), table=_safe(table))
    build = f"CREATE {kind} CONCURRENTLY IF NOT EXISTS %I ON %s {definition.replace('%', '%%')}"
    with op.get_context().autocommit_block():
        _run(_UNHURRIED)
        _run_each(
            f"SELECT format('DROP INDEX CONCURRENTLY %I', index) FROM ({leaves}) AS leaves "
            "JOIN pg_index ON indexrelid = to_regclass(index) WHERE NOT indisvalid"
        )
        _run_each(f"SELECT format({_literal(build)}, index, leaf) FROM ({leaves}) AS leaves")
        _run(_BRIEFLY)
        # A plain table has its index by now: this passes it by.
        _run(f"CREATE {kind} IF NOT EXISTS {name} ON ONLY {table} {definition}")
        _run_each(
            f"SELECT format('ALTER INDEX {name} ATTACH PARTITION %I', index) FROM ({leaves}) AS leaves "
            f"WHERE index <> '{name}'"
        )
        _run("RESET lock_timeout")


def drop_index(name: str) -> None:
    """Drop an index of a table that is not partitioned while everybody reads and writes.

    That of a partitioned table PostgreSQL drops only together with its partitions' (``DROP INDEX``), under
    ACCESS EXCLUSIVE and in no time.
    """
    with op.get_context().autocommit_block():
        _run(_UNHURRIED)
        _run(f"DROP INDEX CONCURRENTLY IF EXISTS {_safe(name)}")
        _run("RESET lock_timeout")


def backfill(table: str, set_: str, where: str, *, pages: int = 100, pause: float = 0.02) -> None:
    """Change the rows that need it, a few pages a transaction, until none does.

    Args:
        table: The table, in the schema public; of a partitioned one each partition.
        set_: What follows SET.
        where: Which rows still need it. It must be false once they are changed.
        pages: Of 8 KiB, a transaction: a hundred hold some thousand readings.
        pause: Seconds between two transactions that changed something.
    """
    done = {"set": set_.replace("%", "%%"), "where": where.replace("%", "%%")}
    with op.get_context().autocommit_block():
        _run(_BACKFILL.format(table=_safe(table), pages=pages, pause=pause, **done).strip())


def _run(statement: str) -> None:
    """As it stands: what looks like a parameter is none."""
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(f"{statement};\n")
    else:
        op.get_bind().exec_driver_sql(statement)


def _run_each(query: str) -> None:
    """Run the statements that a query returns."""
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(f"{query.strip()} \\gexec\n")
    else:
        for statement in op.get_bind().exec_driver_sql(query).scalars().all():
            _run(statement)


def _safe(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,54}", name):
        raise ValueError(f"{name!r} is no plain name of at most 55 letters, digits and underscores")
    return name


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
