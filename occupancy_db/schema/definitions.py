"""The definitions of all objects of a database, as PostgreSQL writes them, and their comparison."""

import re
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Without oids, owners and privileges, which may be different in a copy. The search path must be pg_catalog
# alone, so that definitions contain the schema of every name. The table of the maintenance lock may be
# missing, because the first command that takes the lock creates it.
OBJECTS = """
    WITH relation AS (
        SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname) AS name
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND c.oid IS DISTINCT FROM to_regclass('public.maintenance_lock')
    ), object (kind, relation, definition) AS (
        SELECT 'columns', r.name, concat_ws(
            ' ', r.name, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            a.attgenerated, pg_get_expr(d.adbin, d.adrelid)
        )
        FROM relation AS r
        JOIN pg_attribute AS a ON a.attrelid = r.oid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE r.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 'indexes', r.name, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid)
        FROM relation AS r JOIN pg_index AS i ON i.indrelid = r.oid
        UNION ALL
        SELECT 'constraints', r.name,
               concat_ws(' ', r.name, c.conname, pg_get_constraintdef(c.oid), c.convalidated)
        FROM relation AS r JOIN pg_constraint AS c ON c.conrelid = r.oid
        UNION ALL
        SELECT 'triggers', r.name, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
        FROM relation AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
        UNION ALL
        SELECT 'views', r.name, concat_ws(' ', r.name, pg_get_viewdef(r.oid))
        FROM relation AS r WHERE r.relkind IN ('v', 'm')
        UNION ALL
        SELECT 'sequences', r.name, r.name FROM relation AS r WHERE r.relkind = 'S'
        UNION ALL
        SELECT 'functions', NULL, pg_get_functiondef(p.oid)
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND p.prokind IN ('f', 'p')
        UNION ALL
        SELECT 'enums', NULL, concat_ws(
            ' ', e.enumtypid::regtype, string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)
        )
        FROM pg_enum AS e GROUP BY e.enumtypid
    )
"""

_TABLES = """
    SELECT 'tables', r.name, concat_ws(
        ' ', CASE WHEN c.relispartition THEN 'partition' ELSE 'table' END, r.name, pg_get_partkeydef(r.oid)
    )
    FROM relation AS r JOIN pg_class AS c USING (oid) WHERE r.relkind IN ('r', 'p')
"""
_EVERYTHING = text(OBJECTS + " SELECT kind, relation, definition FROM object UNION ALL " + _TABLES)  # noqa: S608 - constants
_ROOM_TYPE = "public.room_type"
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_MONTH = re.compile(r"(?P<table>\bpublic\.\w+?)_(?P<month>\d{4}_\d{2})$")


class Definition(NamedTuple):
    """The definition of one object.

    Attributes:
        kind: Kind of the object, as in ``indexes``.
        relation: The table or view that it belongs to; None for functions and types.
        text: Definition as PostgreSQL writes it; for a month without the names of table, indexes and keys.
    """

    kind: str
    relation: str | None
    text: str


class Schema:
    """All definitions of a database.

    Attributes:
        common: The definitions of all objects except the months' tables.
        months: The definitions of each month by its table. All months should have the same definitions.
    """

    def __init__(self, rows: Collection[tuple[str, str | None, str]]) -> None:
        """Args: rows: kind, relation, definition."""
        self.common: set[Definition] = set()
        self.months: defaultdict[str, set[Definition]] = defaultdict(set)
        for kind, relation, definition in rows:
            if relation and (month := _MONTH.match(relation)):
                words = definition.replace(relation, "…").replace(relation.removeprefix("public."), "…")
                if kind == "indexes":
                    words = re.sub(r"INDEX \S+ ON", "INDEX ON", words)
                if "PRIMARY KEY" in words or "UNIQUE" in words:
                    words = re.sub(r"^… \S+ ", "… ", words)
                self.months[relation].add(Definition(kind, month["table"], words))
            else:
                self.common.add(Definition(kind, relation, definition))

    def drift(self, live: "Schema") -> tuple[list[str], list[str]]:
        """Compare the schema of a live database with this one.

        Rooms that the live database has beyond those of this schema are no difference.

        Args:
            live: The schema of the live database.

        Returns:
            The definitions that are missing or different, and additional ones on relations of this schema.
        """
        missing = [
            f"{one.kind}: {one.text}"
            for one in self.common - live.common
            if not any(_has_more_rooms(one, other) for other in live.common)
        ]
        relations = {one.relation for one in self.common} - {None}
        more = [f"{one.kind}: {one.text}" for one in live.common - self.common if one.relation in relations]
        reference = next(iter(self.months.values()), set())
        for name, found in live.months.items():
            if any(one.kind == "tables" and one.text == "partition …" for one in found):
                missing += [f"{one.kind} of {name}: {one.text}" for one in reference - found]
                more += [f"{one.kind} of {name}: {one.text}" for one in found - reference]
        return sorted(missing), sorted(more)


def _has_more_rooms(reference: Definition, live: Definition) -> bool:
    """Whether both are the type of the rooms, and the live one has all rooms of the reference and others.

    Rooms are data: the migrations create the first ones, and operators add more.
    """
    for one in (reference, live):
        if one.kind != "enums" or not one.text.startswith(f"{_ROOM_TYPE} "):
            return False
    return set(_LABEL.findall(reference.text)) <= set(_LABEL.findall(live.text))


async def read(connection: AsyncConnection) -> Schema:
    """Read all definitions of a database.

    Args:
        connection: A connection whose search path is pg_catalog.
    """
    rows = await connection.execute(_EVERYTHING)
    return Schema([(row.kind, row.relation, row.definition) for row in rows])
