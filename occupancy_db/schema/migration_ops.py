"""Operations for migrations that do not block clients: concurrent indexes, and changes of rows in batches.

They commit while they run, and can be repeated after an interruption: what is left is completed, or removed
and created again. A revision that uses one must not contain other statements that cannot be repeated.

Released migrations call these functions: their meaning must not change.
"""

import re

from alembic import op

# CREATE INDEX CONCURRENTLY waits for all older transactions, but no session waits for it.
_UNHURRIED = "SET lock_timeout = '10min'"
_BRIEFLY = "SET lock_timeout = '100ms'"

# For each leaf partition that has no part of the index yet: its name, and the name of its index. A table that
# is not partitioned is its own leaf.
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
        -- A row that was updated meanwhile may have moved to a page that was processed before.
        EXIT WHEN changed_in_all = 0;
    END LOOP;
END
$$
"""

_TREE = "(SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass) AS tree"

# Leftovers of an interrupted REINDEX CONCURRENTLY.
_LEFTOVERS = """
    SELECT format('DROP INDEX CONCURRENTLY %s', indexrelid::regclass)
    FROM {tree} JOIN pg_index ON indrelid = relid JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND relname ~ '_cc(new|old)\\d*$'
"""

# For each leaf partition that contains rows, in this order: batches of at most a twentieth of the pages, a
# VACUUM after each twentieth, and one REINDEX.
_REWRITE = """
    SELECT statement
    FROM {tree}
    JOIN pg_class ON pg_class.oid = relid AND relkind = 'r'
    CROSS JOIN LATERAL (
        SELECT pg_relation_size(relid) / current_setting('block_size')::bigint AS pages
    ) AS size
    CROSS JOIN LATERAL (SELECT greatest(1, least({batch}, pages / 20)) AS batch) AS plan
    CROSS JOIN LATERAL (
        SELECT page, 1 AS step, format({update}, relid::regclass, page, page + batch) AS statement
        FROM generate_series(0, pages - 1, batch) AS page
        UNION ALL
        SELECT page, 2, format('VACUUM (TRUNCATE off) %s', relid::regclass)
        FROM generate_series(0, pages - 1, batch) AS page
        WHERE (page / batch + 1) % greatest(1, pages / batch / 20) = 0 OR page + batch >= pages
        UNION ALL
        SELECT pages, 3, format('REINDEX TABLE CONCURRENTLY %s', relid::regclass) WHERE pages > 0
    ) AS work
    ORDER BY relname, page, step
"""


def create_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Create an index without blocking clients; on a partitioned table one partition after the other.

    PostgreSQL refuses CONCURRENTLY on a partitioned table. Therefore the partitions are indexed concurrently,
    then the index of the table is created without them (ON ONLY, which takes no time), then the partitions'
    indexes are attached. The last two steps wait for locks only briefly; the runner tries the revision again.
    An INVALID index of that name is dropped first: an interrupted build leaves one, and IF NOT EXISTS would
    keep it.

    Args:
        name: Name of the index. The names of the partitions' indexes have the suffix of the partition.
        table: Name of the table, in the schema public.
        definition: What follows ON <table>, as in ``(room, timestamp DESC) WHERE state``.
        unique: Whether the index is unique; on a partitioned table it must then contain the partition key.

    Raises:
        ValueError: a name is not a plain identifier of at most 55 characters.
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
        # A table that is not partitioned has its index by now, and IF NOT EXISTS skips it.
        _run(f"CREATE {kind} IF NOT EXISTS {name} ON ONLY {table} {definition}")
        _run_each(
            f"SELECT format('ALTER INDEX {name} ATTACH PARTITION %I', index) FROM ({leaves}) AS leaves "
            f"WHERE index <> '{name}'"
        )
        _run("RESET lock_timeout")


def drop_index(name: str) -> None:
    """Drop an index of a table that is not partitioned, without blocking clients.

    An index of a partitioned table can only be dropped together with those of the partitions, by ``DROP
    INDEX``, which takes ACCESS EXCLUSIVE for a moment.

    Args:
        name: Name of the index.

    Raises:
        ValueError: the name is not a plain identifier of at most 55 characters.
    """
    with op.get_context().autocommit_block():
        _run(_UNHURRIED)
        _run(f"DROP INDEX CONCURRENTLY IF EXISTS {_safe(name)}")
        _run("RESET lock_timeout")


def backfill(table: str, set_: str, where: str, *, pages: int = 100, pause: float = 0.02) -> None:
    """Update rows in batches, a transaction for each batch, until no row matches the condition.

    Args:
        table: Name of the table, in the schema public; of a partitioned table all partitions are updated.
        set_: What follows SET.
        where: Condition of the rows to update. It must be false for updated rows.
        pages: Size of a batch in pages of 8 KiB; a hundred contain some thousand readings.
        pause: Seconds between two transactions that have updated rows.

    Raises:
        ValueError: the name is not a plain identifier of at most 55 characters.
    """
    done = {"set": set_.replace("%", "%%"), "where": where.replace("%", "%%")}
    with op.get_context().autocommit_block():
        _run(_BACKFILL.format(table=_safe(table), pages=pages, pause=pause, **done).strip())


def rewrite(table: str, set_: str, where: str, *, pages: int = 100) -> None:
    """Update most rows of a table, without making the table larger by more than a twentieth.

    Each batch of pages is a transaction. VACUUM makes the space of the old rows free for the next batches;
    the indexes are rebuilt concurrently at the end. Of a partitioned table one partition follows the other.
    A row that is written meanwhile must not need the update: a trigger or a default fills its column.

    Args:
        table: Name of the table, in the schema public.
        set_: What follows SET.
        where: Condition of the rows to update. It must be false for updated rows, so that a repetition
            continues an interrupted run.
        pages: Largest size of a batch in pages of 8 KiB.

    Raises:
        ValueError: the name is not a plain identifier of at most 55 characters.
    """
    tree = _TREE.format(table=_safe(table))
    update = (
        f"UPDATE ONLY %s SET {set_.replace('%', '%%')} "
        f"WHERE ctid >= '(%s,0)' AND ctid < '(%s,0)' AND ({where.replace('%', '%%')})"
    )
    with op.get_context().autocommit_block():
        _run(_UNHURRIED)
        _run_each(_LEFTOVERS.format(tree=tree))
        _run_each(_REWRITE.format(tree=tree, update=_literal(update), batch=pages))
        _run("RESET lock_timeout")


def _run(statement: str) -> None:
    """Run a statement as it is, without parameters."""
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
