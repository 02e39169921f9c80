"""Hourly sums

Intent: make the two views read hourly sums, plus the raw readings of hours that are not summed yet, so that their cost does
    not grow with the history; and keep the sums of readings that retention removes.
Locks: ACCESS EXCLUSIVE on the partitions of sensor_readings, one after the other, for their defaults and triggers,
    and SHARE ROW EXCLUSIVE on the parent table; for milliseconds. No reading is read: `occupancy-db partitions maintain` sums
    the hours, and the views count the readings of an hour until then.
Reversible: only without the sums of readings that retention has removed.
Phase: expand.
Release: 0.1.0

docs/internals/hourly-sums.md describes how the sums stay exact.

Revision ID: 004_hourly_sums
Revises: 003_time_ordered_readings
Create Date: 2026-11-22 21:10:00+00:00
"""

from alembic import op

revision = "004_hourly_sums"
down_revision = "003_time_ordered_readings"
branch_labels = None
depends_on = None

lost = {"hourly sums of removed readings": "SELECT count(*) FROM hourly.history"}

HOUR = "date_bin('1 hour', timestamp, 'epoch')"

# The only definition of the sums.
SUMS = """
    count(*) AS reading_count,
    sum(confidence) AS confidence_sum,
    min(timestamp) AS first_reading,
    max(timestamp) AS last_reading
"""

# "occhours" in ASCII. Writers hold this advisory lock in shared mode until they commit; hourly.close() takes it exclusively.
LOCK = int.from_bytes(b"occhours")

COLUMNS = """
    hour timestamptz NOT NULL,
    first_reading timestamptz NOT NULL,
    last_reading timestamptz NOT NULL,
    confidence_sum double precision NOT NULL,
    reading_count bigint NOT NULL,
    room room_type NOT NULL,
    zone varchar(50) NOT NULL
"""

TABLES = [
    "CREATE SCHEMA hourly",
    # Sums of the stored readings. For an hour without a mark, a row equals a recount of its readings.
    f"CREATE TABLE hourly.sums ({COLUMNS}, CONSTRAINT pk_sums PRIMARY KEY (hour, room, zone))",
    # The latest hour of each zone, for room_occupancy_status.
    "CREATE INDEX ix_sums_room_zone_hour ON hourly.sums (room, zone, hour)",
    # Sums of readings that retention has removed. These are the only record of those readings.
    f"CREATE TABLE hourly.history ({COLUMNS}, CONSTRAINT pk_history PRIMARY KEY (hour, room, zone))",
    # Closed hours whose readings have changed since they were summed. Append-only: two writers that mark the same hour do
    # not conflict, and hourly.refresh() removes only the marks that its snapshot contains.
    "CREATE TABLE hourly.marks (hour timestamptz NOT NULL)",
    # Hours before closed_before are closed: they are summed or marked. The views count later hours from the readings, and
    # writers do not mark them.
    "CREATE TABLE hourly.watermark (closed_before timestamptz NOT NULL)",
    "INSERT INTO hourly.watermark VALUES ('-infinity')",
    "CREATE UNIQUE INDEX ON hourly.watermark ((true))",
]

# The hours that hourly.sums does not cover: open hours and marked hours. The upper bound makes the condition a range, which
# the planner estimates as selective; for ">=" alone with an unknown value it expects a third of the table and reads all of it.
OPEN = f"""
CREATE VIEW hourly.open AS
SELECT {HOUR} AS hour, room, zone, {SUMS}
FROM public.sensor_readings
WHERE timestamp >= (SELECT closed_before FROM hourly.watermark) AND timestamp <= 'infinity'
GROUP BY {HOUR}, room, zone
UNION ALL
SELECT marked.hour, recount.*
FROM (
    SELECT DISTINCT hour FROM hourly.marks WHERE hour < (SELECT closed_before FROM hourly.watermark)
) AS marked
CROSS JOIN LATERAL (
    SELECT room, zone, {SUMS}
    FROM public.sensor_readings
    WHERE timestamp >= marked.hour AND timestamp < marked.hour + interval '1 hour'
    GROUP BY room, zone
) AS recount
"""

STATS = """
CREATE OR REPLACE VIEW sensor_reading_stats AS
SELECT
    room,
    hour,
    sum(reading_count)::bigint AS reading_count,
    count(DISTINCT zone) AS active_zones,
    sum(confidence_sum) / sum(reading_count) AS avg_confidence,
    min(first_reading) AS first_reading,
    max(last_reading) AS last_reading
FROM (
    SELECT room, zone, hour, reading_count, confidence_sum, first_reading, last_reading
    FROM hourly.sums
    WHERE NOT EXISTS (SELECT FROM hourly.marks WHERE marks.hour = sums.hour)
    UNION ALL
    SELECT room, zone, hour, reading_count, confidence_sum, first_reading, last_reading FROM hourly.open
    UNION ALL
    SELECT room, zone, hour, reading_count, confidence_sum, first_reading, last_reading FROM hourly.history
) AS summed
GROUP BY room, hour
"""

# A loose index scan on hourly.sums that takes the latest hour of each zone, combined with the open hours; then reads one
# reading of each zone. The marks are an array because NOT EXISTS would become a hash join over all hours of a zone.
STATUS = """
CREATE OR REPLACE VIEW room_occupancy_status AS
WITH RECURSIVE zones AS (
    (SELECT room, zone FROM hourly.sums ORDER BY room, zone LIMIT 1)
    UNION ALL
    SELECT following.room, following.zone
    FROM zones
    CROSS JOIN LATERAL (
        SELECT sums.room, sums.zone
        FROM hourly.sums
        WHERE (sums.room, sums.zone) > (zones.room, zones.zone)
        ORDER BY sums.room, sums.zone
        LIMIT 1
    ) AS following
),
newest AS (
    SELECT room, zone, max(last_reading) AS timestamp
    FROM (
        SELECT zones.room, zones.zone, closed.last_reading
        FROM zones
        CROSS JOIN LATERAL (
            SELECT sums.last_reading
            FROM hourly.sums
            WHERE sums.room = zones.room AND sums.zone = zones.zone
              AND sums.hour <> ALL (ARRAY(SELECT DISTINCT hour FROM hourly.marks))
            ORDER BY sums.hour DESC
            LIMIT 1
        ) AS closed
        UNION ALL
        SELECT room, zone, last_reading FROM hourly.open
    ) AS found
    GROUP BY room, zone
)
SELECT
    newest.room,
    count(*) FILTER (WHERE latest.state) AS active_zones,
    count(*) AS total_zones,
    max(newest.timestamp) AS last_update,
    avg(latest.confidence) AS avg_confidence,
    CASE WHEN bool_or(latest.state) THEN 'occupied' ELSE 'vacant' END AS occupancy_status
FROM newest
CROSS JOIN LATERAL (
    SELECT reading.state, reading.confidence
    FROM sensor_readings AS reading
    WHERE reading.timestamp = newest.timestamp AND reading.room = newest.room AND reading.zone = newest.zone
    ORDER BY reading.id DESC
    LIMIT 1
) AS latest
GROUP BY newest.room
"""

# Runs after every statement that writes readings. SECURITY DEFINER: writers need no privileges on the tables above.
MARK = f"""
CREATE FUNCTION hourly.mark() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    closed timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOCK});
    -- Looks after the lock is held, so it sees what was closed before. A transaction with one snapshot for
    -- all would not see it, and marks every hour.
    SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN closed_before ELSE 'infinity' END
    INTO closed FROM hourly.watermark;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        INSERT INTO hourly.marks SELECT DISTINCT {HOUR} FROM written WHERE timestamp < closed;
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        INSERT INTO hourly.marks SELECT DISTINCT {HOUR} FROM gone WHERE timestamp < closed;
    END IF;
    RETURN NULL;
END
$$
"""

# The name of a partition ends with its month.
MARK_TRUNCATED = """
CREATE FUNCTION hourly.mark_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    month timestamptz := to_date(right(TG_TABLE_NAME, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC';
BEGIN
    INSERT INTO hourly.marks
    SELECT DISTINCT hour FROM hourly.sums
    WHERE hour >= month AND hour < (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    RETURN NULL;
END
$$
"""

# A statement on the parent table fires the parent's triggers, a statement on a partition fires the partition's.
WATCH = """
CREATE FUNCTION hourly.watch(readings regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER hourly_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS written '
        'FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark()', readings);
    EXECUTE format('CREATE TRIGGER hourly_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS written OLD TABLE AS gone '
        'FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark()', readings);
    EXECUTE format('CREATE TRIGGER hourly_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS gone '
        'FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark()', readings);
END
$$
"""

# Gives a table what it needs before it can be attached as a partition: the parent's indexes and keys (a filled stand-alone
# table is indexed before any lock is taken), the parent's sequence as the default of id, and the triggers.
PREPARE_PARTITION = """
CREATE FUNCTION hourly.prepare_partition(month regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    definition text;
BEGIN
    IF NOT (SELECT relispartition FROM pg_class WHERE oid = month) THEN
        FOR definition IN
            SELECT 'ADD ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = 'sensor_readings'::regclass AND contype IN ('p', 'u')
        LOOP
            EXECUTE format('ALTER TABLE %s %s', month, definition);
        END LOOP;
        FOR definition IN
            SELECT substring(pg_get_indexdef(indexrelid) FROM ' USING .*') FROM pg_index
            WHERE indrelid = 'sensor_readings'::regclass
              AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        LOOP
            EXECUTE format('CREATE INDEX ON %s %s', month, definition);
        END LOOP;
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN id SET DEFAULT nextval(%L)', month,
        pg_get_serial_sequence('sensor_readings', 'id'));
    PERFORM hourly.watch(month);
    EXECUTE format('CREATE TRIGGER hourly_truncate AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark_truncated()', month);
END
$$
"""

# Closes the hours before a point in time: from then on, writers mark them. When the lock is held, every transaction that
# may have written to these hours without a mark has ended.
CLOSE = f"""
CREATE FUNCTION hourly.close(moment timestamptz) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    until timestamptz := {HOUR.replace("timestamp", "moment")};
    since timestamptz;
    first timestamptz;
BEGIN
    IF until <= (SELECT closed_before FROM hourly.watermark) THEN
        RETURN (SELECT closed_before FROM hourly.watermark);
    END IF;
    PERFORM pg_advisory_xact_lock({LOCK});
    SELECT closed_before INTO since FROM hourly.watermark;
    SELECT {HOUR} INTO first FROM sensor_readings WHERE timestamp >= since ORDER BY timestamp LIMIT 1;
    INSERT INTO hourly.marks SELECT generate_series(first, until - interval '1 hour', '1 hour');
    UPDATE hourly.watermark SET closed_before = until;
    RETURN until;
END
$$
"""

# Sums marked hours, oldest first, and returns their number. One statement has one snapshot: it removes exactly the marks of
# the changes that it has counted.
REFRESH = f"""
CREATE FUNCTION hourly.refresh(at_most integer) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
WITH due AS MATERIALIZED (
    SELECT DISTINCT hour FROM hourly.marks
    WHERE hour < (SELECT closed_before FROM hourly.watermark)
    ORDER BY hour LIMIT at_most
),
unmarked AS (
    DELETE FROM hourly.marks USING due WHERE marks.hour = due.hour
),
recount AS MATERIALIZED (
    SELECT due.hour, counted.*
    FROM due
    CROSS JOIN LATERAL (
        SELECT room, zone, {SUMS}
        FROM sensor_readings
        WHERE timestamp >= due.hour AND timestamp < due.hour + interval '1 hour'
        GROUP BY room, zone
    ) AS counted
),
vanished AS (
    DELETE FROM hourly.sums USING due
    WHERE sums.hour = due.hour
      AND NOT EXISTS (SELECT FROM recount WHERE (recount.hour, recount.room, recount.zone) = (sums.hour, sums.room, sums.zone))
),
summed AS (
    INSERT INTO hourly.sums (hour, room, zone, reading_count, confidence_sum, first_reading, last_reading)
    SELECT hour, room, zone, reading_count, confidence_sum, first_reading, last_reading FROM recount
    ON CONFLICT (hour, room, zone) DO UPDATE SET
        reading_count = excluded.reading_count, confidence_sum = excluded.confidence_sum,
        first_reading = excluded.first_reading, last_reading = excluded.last_reading
)
SELECT count(*) FROM due
$$
"""

ADD_TO_HISTORY = """
    ON CONFLICT (hour, room, zone) DO UPDATE SET
        reading_count = history.reading_count + excluded.reading_count,
        confidence_sum = history.confidence_sum + excluded.confidence_sum,
        first_reading = least(history.first_reading, excluded.first_reading),
        last_reading = greatest(history.last_reading, excluded.last_reading)
"""

# Removes the readings of a time range, adds their sums to the history, and returns their number. Concurrent writes do not
# change this: it adds exactly the rows that it removes.
FORGET = f"""
CREATE FUNCTION hourly.forget(since timestamptz, until timestamptz) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
WITH gone AS (
    DELETE FROM sensor_readings WHERE timestamp >= since AND timestamp < until
    RETURNING timestamp, room, zone, confidence
),
kept AS (
    INSERT INTO hourly.history (hour, room, zone, reading_count, confidence_sum, first_reading, last_reading)
    SELECT {HOUR}, room, zone, {SUMS} FROM gone GROUP BY {HOUR}, room, zone
    {ADD_TO_HISTORY}
)
SELECT count(*) FROM gone
$$
"""

# Drops a detached month, keeps its sums, and returns its number of readings. It uses the existing sums if the caller says
# that the hours were summed before the month was detached, and no hour of the month is marked or open; otherwise it counts
# the month's readings.
FORGET_MONTH = f"""
CREATE FUNCTION hourly.forget_month(detached regclass, summed boolean) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    month timestamp := to_date(right(detached::text, 7), 'YYYY_MM');
    since timestamptz := month AT TIME ZONE 'UTC';
    until timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
    removed bigint;
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', detached);
    IF summed AND until <= (SELECT closed_before FROM hourly.watermark)
        AND NOT EXISTS (SELECT FROM hourly.marks WHERE hour >= since AND hour < until)
    THEN
        SELECT coalesce(sum(reading_count), 0) INTO removed FROM hourly.sums WHERE hour >= since AND hour < until;
        INSERT INTO hourly.history SELECT * FROM hourly.sums WHERE hour >= since AND hour < until
        {ADD_TO_HISTORY};
    ELSE
        EXECUTE format('SELECT count(*) FROM %s', detached) INTO removed;
        EXECUTE format(
            $statement$
            INSERT INTO hourly.history (hour, room, zone, reading_count, confidence_sum, first_reading, last_reading)
            SELECT {HOUR}, room, zone, {SUMS} FROM %s GROUP BY 1, room, zone
            {ADD_TO_HISTORY}
            $statement$, detached);
    END IF;
    DELETE FROM hourly.sums WHERE hour >= since AND hour < until;
    DELETE FROM hourly.marks WHERE hour >= since AND hour < until;
    EXECUTE format('DROP TABLE %s', detached);
    RETURN removed;
END
$$
"""

CLEANUP = """
CREATE OR REPLACE FUNCTION cleanup_old_sensor_readings(months_to_keep integer DEFAULT 6) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN hourly.forget('-infinity', retention_cutoff(months_to_keep));
END
$$
"""

EVERY_PARTITION = """
DO $$
DECLARE
    month regclass;
BEGIN
    PERFORM hourly.watch('sensor_readings');
    FOR month IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sensor_readings'::regclass ORDER BY inhrelid::regclass::text
    LOOP
        PERFORM hourly.prepare_partition(month);
    END LOOP;
END
$$
"""

# The definitions of revision 002, for the downgrade.
OLD_STATS = """
CREATE OR REPLACE VIEW sensor_reading_stats AS
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
OLD_STATUS = """
CREATE OR REPLACE VIEW room_occupancy_status AS
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
OLD_CLEANUP = """
CREATE OR REPLACE FUNCTION cleanup_old_sensor_readings(months_to_keep integer DEFAULT 6) RETURNS integer
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
RELEASE_EVERY_PARTITION = """
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sensor_readings'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN id DROP DEFAULT', month);
    END LOOP;
END
$$
"""


def upgrade() -> None:
    for statement in [
        *TABLES,
        OPEN,
        STATS,
        STATUS,
        MARK,
        MARK_TRUNCATED,
        WATCH,
        PREPARE_PARTITION,
        CLOSE,
        REFRESH,
        FORGET,
        FORGET_MONTH,
        CLEANUP,
        EVERY_PARTITION,
    ]:
        op.execute(statement)


def downgrade() -> None:
    for statement in [
        OLD_STATS,
        OLD_STATUS,
        OLD_CLEANUP,
        RELEASE_EVERY_PARTITION,
        "DROP SCHEMA hourly CASCADE",  # with it the triggers, which call its functions
    ]:
        op.execute(statement)
