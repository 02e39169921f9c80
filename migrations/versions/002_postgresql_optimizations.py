"""PostgreSQL optimizations

Intent: enums for rooms and prediction types, indexes for active readings and JSONB, two views, retention.
Locks: ACCESS EXCLUSIVE on each table while its text columns become enums, which rewrites the table and its
    indexes: meant for the day of installation, when they are empty.
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

# All of it while the tables are empty, on the day of installation.
allowed = {
    "ban-drop-constraint": "the enums take their place",
    "changing-column-type": "there is nothing to rewrite",
    "constraint-missing-not-valid": "there is nothing to check",
    "require-concurrent-index-creation": "there is nothing to index",
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

# They compare prediction_type with text, so they cannot stand while its type changes.
COMPLETENESS = {
    "occupancy_complete": (
        "prediction_type <> 'occupancy' OR (horizon_minutes IS NOT NULL AND probability IS NOT NULL)"
    ),
    "vacancy_complete": "prediction_type <> 'vacancy' OR expected_vacancy_minutes IS NOT NULL",
}

# When somebody was last seen in a room: about half of the readings are of no use for it.
# There is no index of "the last 24 hours": now() is not immutable, so PostgreSQL refuses it as an index
# predicate. The monthly partitions and (room, timestamp DESC) serve that window.
ACTIVE_INDEX = "CREATE INDEX ix_sensor_readings_active ON sensor_readings (room, timestamp DESC) WHERE state"

# Which distributions contain a value (@>, @?, @@); jsonb_path_ops is smaller and faster for these.
GIN_INDEX = (
    "CREATE INDEX ix_predictions_probability_distribution "
    "ON predictions USING gin (probability_distribution jsonb_path_ops)"
)

# Hours are those of UTC, so that the same reading is in the same hour for every client.
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

# Walks the index (room, zone, timestamp DESC) from one zone to the next, and reads one row of each: the time
# depends on the number of zones, not of readings, where DISTINCT ON would read them all.
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

# The rule of what is old, once: for the function below and for what `occupancy-db cleanup` announces.
# Both run with the caller's rights, and with a search path that the caller cannot bend.
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
