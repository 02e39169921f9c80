"""Sensors

Intent: say in which room and zone each sensor is and was, so that a reading that names its entity alone is stored there.
Locks: none on tables of clients.
Reversible: only without the sensors.
Phase: expand.
Release: 0.2.0

docs/sensors.md describes the table.

Revision ID: 011_sensors
Revises: 010_store_readings
Create Date: 2026-11-27 00:45:00+00:00
"""

from alembic import op

revision = "011_sensors"
down_revision = "010_store_readings"
branch_labels = None
depends_on = None

lost = {"sensors": "SELECT count(DISTINCT entity) FROM public.sensors"}

# A row for each place of a sensor, from a time on; without room and zone, the sensor is retired from then on. No foreign key refers
# to it: a reading that names room and zone needs no sensor.
SENSORS = """
CREATE TABLE sensors (
    entity text NOT NULL,
    since timestamptz NOT NULL,
    room text,
    zone text,
    label text,
    hold interval,
    CONSTRAINT pk_sensors PRIMARY KEY (entity, since),
    CONSTRAINT ck_sensors_entity CHECK (char_length(entity) BETWEEN 1 AND 100),
    CONSTRAINT ck_sensors_place CHECK ((room IS NULL) = (zone IS NULL)),
    CONSTRAINT ck_sensors_room CHECK (room IS NULL OR room::room_type IS NOT NULL),
    CONSTRAINT ck_sensors_zone CHECK (char_length(zone) BETWEEN 1 AND 50),
    CONSTRAINT ck_sensors_label CHECK (label <> ''),
    CONSTRAINT ck_sensors_hold CHECK (hold > interval '0')
)
"""

# As occupancy_db/schema/privileges.sql, for users that exist already.
PRIVILEGES = """
DO $$
DECLARE
    client name;
BEGIN
    FOR client IN SELECT rolname FROM pg_roles WHERE rolname IN ('occupancy_app', 'occupancy_readonly') LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON sensors FROM %I', client);
    END LOOP;
END
$$
"""


def upgrade() -> None:
    op.execute(SENSORS)
    op.execute(PRIVILEGES)


def downgrade() -> None:
    op.execute("DROP TABLE sensors")
