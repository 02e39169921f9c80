"""Table locks

Intent: replace the advisory lock of the hourly sums, which every login may take, by a lock on a table of the owner; and let
    `ingest` store a reading that is sent again only once.
Locks: SHARE ROW EXCLUSIVE on sensor_readings and its partitions, which waits for the writers that run; for milliseconds.
Reversible: yes.
Phase: expand.
Release: 0.2.0

Revision ID: 008_table_locks
Revises: 007_rename_text_rooms
Create Date: 2026-11-26 20:40:00+00:00
"""

from alembic import op

revision = "008_table_locks"
down_revision = "007_rename_text_rooms"
branch_labels = None
depends_on = None

HOUR = "date_bin('1 hour', timestamp, 'epoch')"

# "occhours" in ASCII: the lock of the previous revision.
ADVISORY_LOCK = int.from_bytes(b"occhours")

BEFORE = {
    "lock_of_writers": f"PERFORM pg_advisory_xact_lock_shared({ADVISORY_LOCK})",
    "lock_of_close": f"PERFORM pg_advisory_xact_lock({ADVISORY_LOCK})",
}
# The functions run as the owner, who alone has the privileges for these modes. Neither mode blocks readers of the views,
# pg_dump or VACUUM.
AFTER = {
    "lock_of_writers": "LOCK TABLE hourly.watermark IN ROW EXCLUSIVE MODE",
    "lock_of_close": "LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE",
}

MARK = """
CREATE OR REPLACE FUNCTION hourly.mark() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    closed timestamptz;
    retired public.rooms;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM rooms WHERE retired_at IS NOT NULL) THEN
            SELECT rooms.* INTO retired
            FROM rooms JOIN written ON written.room = rooms.room AND written.timestamp >= rooms.retired_at
            LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'room "%" was retired on %', retired.room, retired.retired_at
                    USING ERRCODE = 'check_violation',
                          HINT = 'To use the room again: occupancy-db rooms retire --undo ROOM.';
            END IF;
        END IF;
    END IF;
    {lock_of_writers};
    -- Looks after the lock is held, so it sees what was closed before. A transaction with one snapshot for
    -- all would not see it, and marks every hour.
    SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN closed_before ELSE 'infinity' END
    INTO closed FROM hourly.watermark;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {hour} FROM written WHERE timestamp < closed;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {hour} FROM gone WHERE timestamp < closed;
    ELSE
        INSERT INTO hourly.marks SELECT DISTINCT {hour}
        FROM (
            (SELECT timestamp, room, zone, confidence FROM written EXCEPT ALL SELECT timestamp, room, zone, confidence FROM gone)
            UNION ALL
            (SELECT timestamp, room, zone, confidence FROM gone EXCEPT ALL SELECT timestamp, room, zone, confidence FROM written)
        ) AS changed
        WHERE timestamp < closed;
    END IF;
    RETURN NULL;
END
$$
"""

CLOSE = """
CREATE OR REPLACE FUNCTION hourly.close(moment timestamptz) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    until timestamptz := date_bin('1 hour', moment, 'epoch');
    since timestamptz;
    first timestamptz;
BEGIN
    IF until <= (SELECT closed_before FROM hourly.watermark) THEN
        RETURN (SELECT closed_before FROM hourly.watermark);
    END IF;
    {lock_of_close};
    SELECT closed_before INTO since FROM hourly.watermark;
    SELECT {hour} INTO first FROM sensor_readings WHERE timestamp >= since ORDER BY timestamp LIMIT 1;
    INSERT INTO hourly.marks SELECT generate_series(first, until - interval '1 hour', '1 hour');
    UPDATE hourly.watermark SET closed_before = until;
    RETURN until;
END
$$
"""

# One transaction at a time may store readings of a slot: the readings whose time in milliseconds has this remainder.
SLOTS = [
    "CREATE TABLE hourly.ingest_slots (slot integer NOT NULL, CONSTRAINT pk_ingest_slots PRIMARY KEY (slot))",
    "INSERT INTO hourly.ingest_slots SELECT generate_series(0, 1023)",
]

# Called by occupancy_db.storage before a transaction compares its readings with those of other transactions. NULL stands for
# all slots; the modes of the two locks conflict.
CLAIM = """
CREATE FUNCTION claim_ingest_slots(claimed integer[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF claimed IS NULL THEN
        LOCK TABLE hourly.ingest_slots IN EXCLUSIVE MODE;
    ELSE
        PERFORM FROM hourly.ingest_slots WHERE slot = ANY (claimed) ORDER BY slot FOR UPDATE;
    END IF;
END
$$
"""

# As occupancy_db/schema/privileges.sql, for users that exist already.
PRIVILEGES = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'occupancy_app') THEN
        GRANT EXECUTE ON FUNCTION claim_ingest_slots TO occupancy_app;
    END IF;
END
$$
"""

# A transaction that has written under the other lock must have ended when hourly.close() takes the new one.
WAIT_FOR_WRITERS = "LOCK TABLE sensor_readings IN SHARE ROW EXCLUSIVE MODE"


def upgrade() -> None:
    _replace_locks(AFTER)
    for statement in [*SLOTS, CLAIM, PRIVILEGES]:
        op.execute(statement)


def downgrade() -> None:
    _replace_locks(BEFORE)
    op.execute("DROP FUNCTION claim_ingest_slots")
    op.execute("DROP TABLE hourly.ingest_slots")


def _replace_locks(locks: dict[str, str]) -> None:
    op.execute(WAIT_FOR_WRITERS)
    for function in (MARK, CLOSE):
        op.execute(function.format(hour=HOUR, **locks))
