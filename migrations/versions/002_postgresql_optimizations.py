"""PostgreSQL optimizations

Intent: create enums for rooms and prediction types, indexes for active readings and JSONB, two views, and the retention function.
Locks: ACCESS EXCLUSIVE on each table while its text columns are converted to enums, which rewrites the table and its
    indexes. The tables are empty when the product is installed.
Reversible: yes, with the data.
Phase: expand.
Release: 0.1.0

Revision ID: 002_postgresql_optimizations
Revises: 001_initial_schema
Create Date: 2026-11-22 17:10:00+00:00
"""

from alembic import op

revision = "002_postgresql_optimizations"
down_revision = "001_initial_schema"
branch_labels = None
depends_on = None

# The tables are empty when this revision runs, at installation.
allowed = {
    "ban-drop-constraint": "the enums replace the check constraints",
    "changing-column-type": "the table is empty: no row is rewritten",
    "constraint-missing-not-valid": "the table is empty: no row is checked",
    "require-concurrent-index-creation": "the table is empty: no row is indexed",
}

ROOMS = "('bedroom', 'bathroom', 'small_bathroom', 'office', 'living_kitchen', 'guest_bedroom')"
PREDICTION_TYPES = "('occupancy', 'vacancy')"

TYPES = {"room_type": ROOMS, "prediction_type": PREDICTION_TYPES}
COLUMNS = [
    ("sensor_readings", "room", "room_type"),
    ("room_transitions", "from_room", "room_type"),
    ("room_transitions", "to_room", "room_type"),
    ("predictions", "room", "room_type"),
    ("predictions", "prediction_type", "prediction_type"),
]

# These constraints compare prediction_type with text: drop them before its type changes, and create them again after it.
COMPLETENESS = {
    "occupancy_complete": (
        "prediction_type <> 'occupancy' OR (horizon_minutes IS NOT NULL AND probability IS NOT NULL)"
    ),
    "vacancy_complete": "prediction_type <> 'vacancy' OR expected_vacancy_minutes IS NOT NULL",
}

# The latest active reading of a room. Partial, because about half of the readings are inactive.
# There is no index on "the last 24 hours": now() is not immutable, so PostgreSQL refuses it as an index
# predicate. The monthly partitions and (room, timestamp DESC) serve that window.
ACTIVE_INDEX = "CREATE INDEX ix_sensor_readings_active ON sensor_readings (room, timestamp DESC) WHERE state"

# Containment queries on distributions (@>, @?, @@); jsonb_path_ops is smaller and faster for these operators.
GIN_INDEX = (
    "CREATE INDEX ix_predictions_probability_distribution "
    "ON predictions USING gin (probability_distribution jsonb_path_ops)"
)

# Hours are UTC hours, so that a reading belongs to the same hour for every client.
SENSOR_READING_STATS = """
CREATE VIEW sensor_reading_stats AS
SELECT
    room,
    date_trunc('hour', timestamp, 'UTC') AS hour,
    count(*) AS reading_count,
    count(DISTINCT zone) FILTER (WHERE state) AS active_zones,
    avg(confidence) AS avg_confidence,
    min(timestamp) AS first_reading,
    max(timestamp) AS last_reading
FROM sensor_readings
GROUP BY room, date_trunc('hour', timestamp, 'UTC')
"""

# A loose index scan on (room, zone, timestamp DESC) that reads one row of each zone: its cost depends on the number of
# zones. DISTINCT ON would read all readings.
ROOM_OCCUPANCY_STATUS = """
CREATE VIEW room_occupancy_status AS
WITH RECURSIVE zones AS (
    (SELECT room, zone FROM sensor_readings ORDER BY room, zone LIMIT 1)
    UNION ALL
    SELECT following.room, following.zone
    FROM zones
    CROSS JOIN LATERAL (
        SELECT reading.room, reading.zone
        FROM sensor_readings AS reading
        WHERE (reading.room, reading.zone) > (zones.room, zones.zone)
        ORDER BY reading.room, reading.zone
        LIMIT 1
    ) AS following
)
SELECT
    zones.room,
    count(*) FILTER (WHERE latest.state) AS active_zones,
    count(*) AS total_zones,
    max(latest.timestamp) AS last_update,
    avg(latest.confidence) AS avg_confidence,
    CASE WHEN bool_or(latest.state) THEN 'occupied' ELSE 'vacant' END AS occupancy_status
FROM zones
CROSS JOIN LATERAL (
    SELECT reading.state, reading.timestamp, reading.confidence
    FROM sensor_readings AS reading
    WHERE reading.room = zones.room AND reading.zone = zones.zone
    ORDER BY reading.timestamp DESC, reading.id DESC
    LIMIT 1
) AS latest
GROUP BY zones.room
"""

# The only definition of the cutoff, used by the function below and by `occupancy-db cleanup`. Both functions run with the
# caller's privileges and a fixed search_path.
RETENTION_CUTOFF = """
CREATE FUNCTION retention_cutoff(months_to_keep integer) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF months_to_keep IS NULL OR months_to_keep NOT BETWEEN 1 AND 1200 THEN
        RAISE EXCEPTION 'months_to_keep must be between 1 and 1200, not %', months_to_keep
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN (now() AT TIME ZONE 'UTC' - make_interval(months => months_to_keep)) AT TIME ZONE 'UTC';
END
$$
"""

CLEANUP_OLD_SENSOR_READINGS = """
CREATE FUNCTION cleanup_old_sensor_readings(months_to_keep integer DEFAULT 6) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    DELETE FROM sensor_readings WHERE timestamp < retention_cutoff(months_to_keep);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$
"""


def upgrade() -> None:
    _drop_completeness()
    for name, values in TYPES.items():
        op.execute(f"CREATE TYPE {name} AS ENUM {values}")
    for table, column, type_name in COLUMNS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{column}")
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_name} USING {column}::{type_name}")
    _add_completeness()
    for statement in [
        ACTIVE_INDEX,
        GIN_INDEX,
        SENSOR_READING_STATS,
        ROOM_OCCUPANCY_STATUS,
        RETENTION_CUTOFF,
        CLEANUP_OLD_SENSOR_READINGS,
    ]:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION cleanup_old_sensor_readings(integer)")
    op.execute("DROP FUNCTION retention_cutoff(integer)")
    op.execute("DROP VIEW room_occupancy_status")
    op.execute("DROP VIEW sensor_reading_stats")
    op.execute("DROP INDEX ix_predictions_probability_distribution")
    op.execute("DROP INDEX ix_sensor_readings_active")
    _drop_completeness()
    for table, column, type_name in COLUMNS:
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar(20) USING {column}::text")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{column} CHECK ({column} IN {TYPES[type_name]})"
        )
    _add_completeness()
    for name in TYPES:
        op.execute(f"DROP TYPE {name}")


def _drop_completeness() -> None:
    for name in COMPLETENESS:
        op.execute(f"ALTER TABLE predictions DROP CONSTRAINT ck_predictions_{name}")


def _add_completeness() -> None:
    for name, condition in COMPLETENESS.items():
        op.execute(f"ALTER TABLE predictions ADD CONSTRAINT ck_predictions_{name} CHECK ({condition})")
