"""Silent sensors

Intent: show the sensors that have been silent for longer than expected. What is expected is set for a sensor, or learnt from its
    readings.
Locks: ACCESS EXCLUSIVE on sensors, for milliseconds.
Reversible: only without the silences that are set.
Phase: expand.
Release: 0.2.0

docs/sensors.md describes the view.

Revision ID: 013_silent_sensors
Revises: 012_local_days
Create Date: 2026-11-27 09:30:00+00:00
"""

from alembic import op

revision = "013_silent_sensors"
down_revision = "012_local_days"
branch_labels = None
depends_on = None

# The docstring names the lock and its duration.
allowed = {"constraint-missing-not-valid": "the table has a row for each place of a sensor"}

lost = {
    "silences that are set for sensors": "SELECT count(*) FROM public.sensors WHERE max_silence IS NOT NULL"
}

COLUMN = """
ALTER TABLE sensors
    ADD COLUMN max_silence interval,
    ADD CONSTRAINT ck_sensors_max_silence CHECK (max_silence > interval '0')
"""

# From how long ago on readings are learnt from. Two weekends are in it.
LEARNT_FROM = "statement_timestamp() - interval '14 days'"

# The longest silence may have been a failure, the second longest was not one alone. Few readings teach nothing.
ENOUGH = 20
SHORTEST = "interval '1 hour'"
UNKNOWN = "interval '24 hours'"

# A sensor without a reading in that time is found by the newest reading of its zone, if that is its own.
SILENT = f"""
CREATE VIEW silent_sensors AS
WITH recent AS (
    SELECT source_entity AS entity, room, zone, timestamp,
           timestamp - lag(timestamp) OVER (PARTITION BY source_entity ORDER BY timestamp) AS silence
    FROM sensor_readings
    WHERE timestamp > {LEARNT_FROM} AND timestamp <= statement_timestamp()
),
learnt AS (
    SELECT
        entity,
        (array_agg(room ORDER BY timestamp DESC))[1] AS room,
        (array_agg(zone ORDER BY timestamp DESC))[1] AS zone,
        max(timestamp) AS last_reading,
        CASE WHEN count(*) >= {ENOUGH} THEN (array_agg(silence ORDER BY silence DESC NULLS LAST))[2] END AS silence
    FROM recent
    GROUP BY entity
),
placed AS (
    SELECT DISTINCT ON (entity) entity, room, zone, label, max_silence, since
    FROM sensors
    WHERE since <= statement_timestamp()
    ORDER BY entity, since DESC
)
SELECT
    entity,
    coalesce(placed.room, learnt.room) AS room,
    coalesce(placed.zone, learnt.zone) AS zone,
    placed.label,
    found.last_reading,
    statement_timestamp() - found.last_reading AS silence,
    found.expected,
    found.basis
FROM placed
FULL JOIN learnt USING (entity)
LEFT JOIN latest_readings AS latest
    ON latest.room = placed.room AND latest.zone = placed.zone AND latest.source_entity = placed.entity
CROSS JOIN LATERAL (
    SELECT
        coalesce(learnt.last_reading, latest.timestamp) AS last_reading,
        coalesce(
            placed.max_silence,
            CASE WHEN learnt.silence IS NOT NULL THEN greatest(2 * learnt.silence, {SHORTEST}) END,
            {UNKNOWN}
        ) AS expected,
        CASE
            WHEN placed.max_silence IS NOT NULL THEN 'set'
            WHEN learnt.silence IS NOT NULL THEN 'learnt'
            ELSE 'default'
        END AS basis
) AS found
WHERE (placed.entity IS NULL OR placed.room IS NOT NULL)
  AND (found.last_reading < statement_timestamp() - found.expected OR found.last_reading IS NULL)
"""


def upgrade() -> None:
    op.execute(COLUMN)
    op.execute(SILENT)


def downgrade() -> None:
    op.execute("DROP VIEW silent_sensors")
    op.execute("ALTER TABLE sensors DROP COLUMN max_silence")
