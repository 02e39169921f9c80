"""Store readings

Intent: let `ingest` store a few readings with one statement, which is what live clients send.
Locks: none on tables of clients.
Reversible: yes.
Phase: expand.
Release: 0.2.0

Revision ID: 010_store_readings
Revises: 009_clock
Create Date: 2026-11-27 02:05:00+00:00
"""

from alembic import op

revision = "010_store_readings"
down_revision = "009_clock"
branch_labels = None
depends_on = None

# Called by occupancy_db.storage for a few readings: one statement instead of a transaction of four. Each statement of the function
# sees what was committed before it. A partition that is being detached still accepts rows under its name, and they would be lost:
# the lock on the parent table makes a detach wait.
STORE = """
CREATE FUNCTION store_readings(
    timestamps timestamptz[], rooms text[], zones text[], states boolean[], entities text[], confidences double precision[]
) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    month record;
    added integer;
    total integer := 0;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction''s isolation level is %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM public.claim_ingest_slots(
        ARRAY(SELECT DISTINCT (floor(extract(epoch FROM moment) * 1000)::bigint % 1024)::integer FROM unnest(timestamps) AS moment)
    );
    PERFORM FROM ONLY sensor_readings LIMIT 1;
    FOR month IN
        SELECT DISTINCT date_trunc('month', moment, 'UTC') AS since,
            'sensor_readings_' || to_char(moment AT TIME ZONE 'UTC', 'YYYY_MM') AS partition
        FROM unnest(timestamps) AS moment
        ORDER BY since
    LOOP
        PERFORM FROM pg_inherits
        WHERE inhparent = 'public.sensor_readings'::regclass AND inhrelid = to_regclass(month.partition) AND NOT inhdetachpending;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'table "%" is not a partition of sensor_readings', month.partition
                USING ERRCODE = 'undefined_table', DETAIL = (
                    SELECT string_agg(relname, ' ') FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                    WHERE inhparent = 'public.sensor_readings'::regclass AND NOT inhdetachpending
                );
        END IF;
        EXECUTE format(
            'INSERT INTO %1$I (timestamp, room, zone, state, source_entity, confidence) '
            'SELECT * FROM unnest($1, $2, $3, $4, $5, $6) AS new (timestamp, room, zone, state, source_entity, confidence) '
            'WHERE date_trunc(''month'', timestamp, ''UTC'') = $7 AND NOT EXISTS ('
            'SELECT FROM %1$I AS stored WHERE stored.timestamp = new.timestamp AND stored.room = new.room AND stored.zone = new.zone '
            'AND stored.state = new.state AND stored.source_entity = new.source_entity)',
            month.partition
        ) USING timestamps, rooms, zones, states, entities, confidences, month.since;
        GET DIAGNOSTICS added = ROW_COUNT;
        total := total + added;
    END LOOP;
    RETURN total;
END
$$
"""

# As occupancy_db/schema/privileges.sql, for users that exist already.
PRIVILEGES = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'occupancy_app') THEN
        GRANT EXECUTE ON FUNCTION store_readings TO occupancy_app;
    END IF;
END
$$
"""


def upgrade() -> None:
    op.execute(STORE)
    op.execute(PRIVILEGES)


def downgrade() -> None:
    op.execute("DROP FUNCTION store_readings")
