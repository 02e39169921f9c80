"""Rename text rooms

Intent: replace the enum columns of rooms and prediction types by the text columns that revision 006 has filled.
Locks: ACCESS EXCLUSIVE on the tables of clients and all partitions, for milliseconds: no row is read or rewritten. A session that
    has prepared a query which returns a room gets one error, "cached plan must not change result type".
Reversible: yes, with the data; every row is rewritten under the lock.
Phase: expand.
Release: 0.2.0

Revision ID: 007_rename_text_rooms
Revises: 006_fill_text_rooms
Create Date: 2026-11-26 17:20:00+00:00
"""

from alembic import op

revision = "007_rename_text_rooms"
down_revision = "006_fill_text_rooms"
branch_labels = None
depends_on = None

allowed = {
    "ban-drop-view": "the type of a view's column cannot be changed: the same transaction creates the view again",
    "ban-drop-column": "the text column takes the name: statements of the previous release work with it",
    "ban-drop-constraint": "NOT NULL takes the place of the constraints",
    "ban-drop-function": "only the triggers of revision 005 call these functions",
    "adding-not-nullable-field": "a validated constraint proves it: no row is read",
    "renaming-object": "clients do not name indexes and constraints",
    "renaming-column": "the text column takes the name of the column that it replaces",
    "require-concurrent-index-deletion": "the zone index of another kind takes its place; dropping takes no time",
}

# Column, enum, whether it is NOT NULL.
COLUMNS = {
    "sensor_readings": [("room", "room_type", True)],
    "room_transitions": [("from_room", "room_type", False), ("to_room", "room_type", True)],
    "predictions": [("room", "room_type", True), ("prediction_type", "prediction_type", True)],
}

# The index on the enum columns that is dropped with them, the one on the text columns, and what both index.
INDEXES = [
    (
        "ix_room_transitions_from_room_to_room_timestamp",
        "ix_room_transitions_rooms_text",
        "room_transitions (from_room, to_room, timestamp DESC)",
    ),
    (
        "ix_predictions_room_prediction_type_prediction_made_at",
        "ix_predictions_room_text",
        "predictions (room, prediction_type, prediction_made_at DESC)",
    ),
]

# On the enum, for the downgrade.
COMPLETENESS = {
    "occupancy_complete": (
        "prediction_type <> 'occupancy'::prediction_type OR (horizon_minutes IS NOT NULL AND probability IS NOT NULL)"
    ),
    "vacancy_complete": "prediction_type <> 'vacancy'::prediction_type OR expected_vacancy_minutes IS NOT NULL",
}

# The views use the column, and a column in use cannot be dropped. After a downgrade they use the text column.
SAVE_VIEWS = """
CREATE TEMPORARY TABLE saved_views ON COMMIT DROP AS
SELECT number, name, pg_get_viewdef(name::regclass) AS definition
FROM unnest(ARRAY['hourly.open', 'sensor_reading_stats', 'latest_readings', 'room_occupancy_status'])
    WITH ORDINALITY AS views (name, number)
"""
DROP_VIEWS = "DROP VIEW room_occupancy_status, latest_readings, sensor_reading_stats, hourly.open"
CREATE_VIEWS = """
DO $$
DECLARE
    saved record;
BEGIN
    FOR saved IN SELECT name, definition FROM saved_views ORDER BY number LOOP
        EXECUTE format('CREATE VIEW %s AS %s', saved.name, replace(saved.definition, 'room_text', 'room'));
    END LOOP;
END
$$
"""

# In a partition that existed before, each row that is inserted from now on stores the dropped column as NULL, for which it needs eight
# bytes. A partition without rows is created again without that column.
RECREATE_EMPTY_PARTITIONS = """
DO $$
DECLARE
    month record;
    filled boolean;
BEGIN
    FOR month IN
        SELECT relname AS name, pg_get_expr(relpartbound, pg_class.oid) AS bounds
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'sensor_readings'::regclass
        ORDER BY relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', month.name) INTO filled;
        IF NOT filled THEN
            EXECUTE format('DROP TABLE %I', month.name);
            EXECUTE format(
                'CREATE TABLE %I (LIKE sensor_readings INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', month.name
            );
            PERFORM hourly.prepare_partition(month.name::regclass);
            EXECUTE format('ALTER TABLE sensor_readings ATTACH PARTITION %I %s', month.name, month.bounds);
        END IF;
    END LOOP;
END
$$
"""


# Dropping a trigger of a partitioned table locks the partitions before the table, and clients lock the table first.
LOCK = "LOCK TABLE sensor_readings, room_transitions, predictions IN ACCESS EXCLUSIVE MODE"


def upgrade() -> None:
    op.execute(LOCK)
    op.execute(SAVE_VIEWS)
    op.execute(DROP_VIEWS)
    for table, columns in COLUMNS.items():
        op.execute(f"DROP TRIGGER keep_in_step ON {table}")
        op.execute(f"DROP FUNCTION keep_{table}_in_step()")
        for column, _, required in columns:
            if required:
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column}_text SET NOT NULL")
                op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_filled")
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")  # with its indexes and constraints
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {column}_text TO {column}")
    for name in COMPLETENESS:
        op.execute(
            f"ALTER TABLE predictions RENAME CONSTRAINT ck_predictions_{name}_text TO ck_predictions_{name}"
        )
    for name, text_index, _ in INDEXES:
        op.execute(f"ALTER INDEX {text_index} RENAME TO {name}")
    op.execute("DROP INDEX ix_sensor_readings_zone")
    op.execute(RECREATE_EMPTY_PARTITIONS)
    op.execute(CREATE_VIEWS)


def downgrade() -> None:
    op.execute(LOCK)
    op.execute("ALTER TABLE sensor_readings DISABLE TRIGGER hourly_update")
    for name in COMPLETENESS:
        op.execute(
            f"ALTER TABLE predictions RENAME CONSTRAINT ck_predictions_{name} TO ck_predictions_{name}_text"
        )
    for name, text_index, _ in INDEXES:
        op.execute(f"ALTER INDEX {name} RENAME TO {text_index}")
    for table, columns in COLUMNS.items():
        for column, enum, _ in columns:
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_text")
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {enum}")
        op.execute(
            f"UPDATE {table} SET "
            + ", ".join(f"{column} = {column}_text::{enum}" for column, enum, _ in columns)
        )
        for column, _, required in columns:
            if required:
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")
                op.execute(
                    f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_filled CHECK ({column}_text IS NOT NULL)"
                )
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column}_text DROP NOT NULL")
        _keep_in_step(table, [column for column, _, _ in columns])
    op.execute("ALTER TABLE sensor_readings ENABLE TRIGGER hourly_update")
    for name, condition in COMPLETENESS.items():
        op.execute(f"ALTER TABLE predictions ADD CONSTRAINT ck_predictions_{name} CHECK ({condition})")
    for name, _, definition in INDEXES:
        op.execute(f"CREATE INDEX {name} ON {definition}")
    op.execute(
        "CREATE INDEX ix_sensor_readings_zone ON sensor_readings USING brin (zone) WITH (pages_per_range = 32)"
    )


def _keep_in_step(table: str, columns: list[str]) -> None:
    """As in revision 005."""
    assignments = " ".join(f"NEW.{column}_text := NEW.{column};" for column in columns)
    op.execute(
        f"CREATE FUNCTION keep_{table}_in_step() RETURNS trigger LANGUAGE plpgsql "
        "SET search_path = pg_catalog, public, pg_temp "
        f"AS $$ BEGIN {assignments} RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER keep_in_step BEFORE INSERT OR UPDATE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION keep_{table}_in_step()"
    )
