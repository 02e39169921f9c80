"""Clock

Intent: a clock that is wrong removes nothing and breaks no view. Checks of the clock are recorded, and retention is refused while
    the clock contradicts them. The watermark of the hourly sums returns when the clock was ahead, and closing hours marks only
    months that have readings. The views of the present leave out readings until they are due.
Locks: ACCESS SHARE on sensor_readings, for milliseconds; readers of latest_readings and room_occupancy_status wait for as long. No row
    of clients is read or rewritten.
Reversible: only without the confirmations of the clock.
Phase: expand.
Release: 0.2.0

docs/internals/clock.md describes the checks.

Revision ID: 009_clock
Revises: 008_table_locks
Create Date: 2026-11-26 20:45:00+00:00
"""

from alembic import op

revision = "009_clock"
down_revision = "008_table_locks"
branch_labels = None
depends_on = None

lost = {"confirmations of the clock": "SELECT count(*) FROM hourly.clock WHERE confirmed_by IS NOT NULL"}

# What retention keeps longer than it was told to, and the longest silence that no one has to explain: a clock that is ahead by
# less removes nothing early. The same number is occupancy_db.months.MARGIN.
MARGIN = "interval '2 days'"

# Clocks are adjusted all the time.
TOLERANCE = "interval '5 minutes'"

# A clock that says an earlier time was never set. The same time is occupancy_db.months.EARLIEST.
EARLIEST = "timestamptz '2010-01-01 00:00+00'"

# Few enough that the views can count the readings of their hours.
FEW_SUMS = 2000

HOUR = "date_bin('1 hour', {}, 'epoch')"

# The last check and the confirmations. The number gives their order, which a clock cannot change.
CLOCK = """
CREATE TABLE hourly.clock (
    number integer NOT NULL,
    checked_at timestamptz NOT NULL,
    job text NOT NULL,
    confirmed_by text,
    CONSTRAINT pk_clock PRIMARY KEY (number)
)
"""

# What the clock is compared with, and the contradiction, or NULL. The walk goes from the last check to the newest reading that
# follows without a silence of more than the margin; it ends at once where the last check is recent. Without any check it begins
# with the newest reading before the last two days, which a clock that has just jumped did not write.
STATE = f"""
CREATE VIEW hourly.clock_state AS
WITH RECURSIVE last AS (
    SELECT checked_at, job FROM hourly.clock ORDER BY number DESC LIMIT 1
),
confirmed AS (
    SELECT checked_at AS confirmed_at, confirmed_by
    FROM hourly.clock WHERE confirmed_by IS NOT NULL ORDER BY number DESC LIMIT 1
),
walk AS (
    SELECT coalesce(
        (SELECT checked_at FROM last),
        (
            SELECT timestamp FROM public.sensor_readings
            WHERE timestamp >= {EARLIEST} AND timestamp <= now() - {MARGIN} ORDER BY timestamp DESC LIMIT 1
        )
    ) AS reached
    UNION ALL
    SELECT following.timestamp
    FROM walk
    CROSS JOIN LATERAL (
        SELECT timestamp
        FROM public.sensor_readings
        WHERE timestamp > walk.reached AND timestamp <= least(walk.reached + {MARGIN}, now())
        ORDER BY timestamp DESC
        LIMIT 1
    ) AS following
    WHERE walk.reached < now() - {MARGIN}
)
SELECT
    now() AS now,
    last.checked_at,
    last.job,
    confirmed.confirmed_at,
    confirmed.confirmed_by,
    walked.reached,
    CASE
        WHEN now() < {EARLIEST} THEN format('the clock of the server says %s UTC: it was not set', shown.now)
        WHEN last.checked_at > now() + {TOLERANCE} THEN format(
            'the clock of the server says %s UTC, and %s checked it at %s UTC', shown.now, last.job, shown.checked_at)
        WHEN walked.reached < now() - {MARGIN} THEN format(
            'the clock of the server says %s UTC, and there is neither a reading nor a check of the clock after %s UTC',
            shown.now, shown.reached)
    END AS contradiction
FROM (SELECT max(reached) AS reached FROM walk) AS walked
LEFT JOIN last ON true
LEFT JOIN confirmed ON true
CROSS JOIN LATERAL (
    SELECT
        to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS now,
        to_char(last.checked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS checked_at,
        to_char(walked.reached AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS reached
) AS shown
"""

# Records a check of the clock, or with a name its confirmation, in the place of the check before.
RECORD = """
CREATE FUNCTION hourly.record_clock(by_job text, by_name text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    LOCK TABLE hourly.clock IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM hourly.clock WHERE confirmed_by IS NULL;
    INSERT INTO hourly.clock (number, checked_at, job, confirmed_by)
    SELECT coalesce(max(number), 0) + 1, now(), by_job, by_name FROM hourly.clock;
END
$$
"""

# A new database has no reading that contradicts the clock. A database in use keeps no check where one does.
FIRST_CHECK = "SELECT hourly.record_clock('migrate') FROM hourly.clock_state WHERE contradiction IS NULL"

CUTOFF = """
CREATE OR REPLACE FUNCTION retention_cutoff(months_to_keep integer) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF months_to_keep IS NULL OR months_to_keep NOT BETWEEN 1 AND 1200 THEN
        RAISE EXCEPTION 'months_to_keep must be between 1 and 1200, not %', months_to_keep
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN ({now} AT TIME ZONE 'UTC' - make_interval(months => months_to_keep)) AT TIME ZONE 'UTC';
END
$$
"""
NEW_CUTOFF = CUTOFF.replace("{now}", f"(now() - {MARGIN})")
OLD_CUTOFF = CUTOFF.replace("{now}", "now()")

CLEANUP = """
CREATE OR REPLACE FUNCTION cleanup_old_sensor_readings(months_to_keep integer DEFAULT 6) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    problem text := (SELECT contradiction FROM hourly.clock_state);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Nothing was removed. If the clock is right now: occupancy-db clock confirm.';
    END IF;
    PERFORM hourly.record_clock('cleanup_old_sensor_readings');
    RETURN hourly.forget('-infinity', retention_cutoff(months_to_keep));
END
$$
"""
OLD_CLEANUP = """
CREATE OR REPLACE FUNCTION cleanup_old_sensor_readings(months_to_keep integer DEFAULT 6) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RETURN hourly.forget('-infinity', retention_cutoff(months_to_keep));
END
$$
"""

# Closes the hours before a point in time: from then on, writers mark them. When the lock is held, every transaction that
# may have written to these hours without a mark has ended. A watermark that is later than that point, because the clock was
# ahead, returns to it; where the sums after the point are many, the clock is behind, and the watermark stays.
CLOSE = f"""
CREATE OR REPLACE FUNCTION hourly.close(moment timestamptz) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    until timestamptz := {HOUR.format("moment")};
    since timestamptz := (SELECT closed_before FROM hourly.watermark);
    first timestamptz;
    last timestamptz;
    month_end timestamptz;
BEGIN
    IF until = since
        OR until < since AND (SELECT count(*) FROM (SELECT FROM hourly.sums WHERE hour >= until LIMIT {FEW_SUMS + 1}) AS sums) > {FEW_SUMS}
    THEN
        RETURN since;
    END IF;
    LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
    SELECT closed_before INTO since FROM hourly.watermark;
    DELETE FROM hourly.sums WHERE hour >= until AND until < since;
    DELETE FROM hourly.marks WHERE hour >= until AND until < since;
    -- Only hours of months that have readings: after a century without any, there is nothing to mark.
    WHILE since < until LOOP
        SELECT timestamp INTO first FROM sensor_readings
        WHERE timestamp >= since AND timestamp < until ORDER BY timestamp LIMIT 1;
        EXIT WHEN NOT FOUND;
        month_end := least(until, (date_trunc('month', first AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
        SELECT timestamp INTO last FROM sensor_readings
        WHERE timestamp >= first AND timestamp < month_end ORDER BY timestamp DESC LIMIT 1;
        INSERT INTO hourly.marks SELECT generate_series({HOUR.format("first")}, {HOUR.format("last")}, '1 hour');
        since := month_end;
    END LOOP;
    UPDATE hourly.watermark SET closed_before = until;
    RETURN until;
END
$$
"""

# The definition of the revision before, for the downgrade.
OLD_CLOSE = f"""
CREATE OR REPLACE FUNCTION hourly.close(moment timestamptz) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    until timestamptz := {HOUR.format("moment")};
    since timestamptz;
    first timestamptz;
BEGIN
    IF until <= (SELECT closed_before FROM hourly.watermark) THEN
        RETURN (SELECT closed_before FROM hourly.watermark);
    END IF;
    LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
    SELECT closed_before INTO since FROM hourly.watermark;
    SELECT {HOUR.format("timestamp")} INTO first FROM sensor_readings WHERE timestamp >= since ORDER BY timestamp LIMIT 1;
    INSERT INTO hourly.marks SELECT generate_series(first, until - interval '1 hour', '1 hour');
    UPDATE hourly.watermark SET closed_before = until;
    RETURN until;
END
$$
"""

ZONES = """
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
"""

# Of each zone the latest closed hour that is over, from its sum, and what is counted: open hours, the present hour where the
# clock was ahead and the hour is closed, and marked hours. The upper bounds make the conditions ranges (see revision 004), and
# statement_timestamp() includes what the same transaction has written before. Open hours are grouped by hour too: for room and zone
# alone the planner starts parallel workers, which takes ten times as long as the query.
NEWEST = f"""
newest AS (
    SELECT room, zone, max(last_reading) AS timestamp
    FROM (
        SELECT zones.room, zones.zone, closed.last_reading
        FROM zones
        CROSS JOIN LATERAL (
            SELECT sums.last_reading
            FROM hourly.sums
            WHERE sums.room = zones.room AND sums.zone = zones.zone
              AND sums.hour <= statement_timestamp() AND sums.last_reading <= statement_timestamp()
              AND sums.hour <> ALL (ARRAY(SELECT DISTINCT hour FROM hourly.marks))
            ORDER BY sums.hour DESC
            LIMIT 1
        ) AS closed
        UNION ALL
        SELECT room, zone, max(timestamp)
        FROM public.sensor_readings
        WHERE timestamp >= least((SELECT closed_before FROM hourly.watermark), {HOUR.format("statement_timestamp()")})
          AND timestamp <= statement_timestamp()
        GROUP BY {HOUR.format("timestamp")}, room, zone
        UNION ALL
        SELECT recount.room, recount.zone, recount.last_reading
        FROM (
            SELECT DISTINCT hour FROM hourly.marks
            WHERE hour < (SELECT closed_before FROM hourly.watermark) AND hour <= statement_timestamp()
        ) AS marked
        CROSS JOIN LATERAL (
            SELECT room, zone, max(timestamp) AS last_reading
            FROM public.sensor_readings
            WHERE timestamp >= marked.hour AND timestamp < marked.hour + interval '1 hour'
              AND timestamp <= statement_timestamp()
            GROUP BY room, zone
        ) AS recount
    ) AS found
    GROUP BY room, zone
)
"""

# The definition of revision 005, for the downgrade.
OLD_NEWEST = """
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
"""

LATEST = """
CREATE OR REPLACE VIEW latest_readings AS
{newest}
SELECT
    newest.room,
    newest.zone,
    newest.timestamp,
    latest.state,
    latest.confidence,
    latest.source_entity,
    {now} - newest.timestamp AS age
FROM newest
CROSS JOIN LATERAL (
    SELECT reading.state, reading.confidence, reading.source_entity
    FROM sensor_readings AS reading
    WHERE reading.timestamp = newest.timestamp AND reading.room = newest.room AND reading.zone = newest.zone
    ORDER BY reading.id DESC
    LIMIT 1
) AS latest
"""

STATUS = """
CREATE OR REPLACE VIEW room_occupancy_status AS
SELECT
    room,
    active_zones,
    total_zones,
    last_update,
    avg_confidence,
    CASE WHEN active_zones > 0 THEN 'occupied' ELSE 'vacant' END AS occupancy_status,
    {now} - evidence AS evidence_age,
    {now} - evidence > interval '24 hours' AS is_stale
FROM (
    SELECT
        room,
        count(*) FILTER (WHERE state) AS active_zones,
        count(*) AS total_zones,
        max(timestamp) AS last_update,
        avg(confidence) AS avg_confidence,
        coalesce(max(timestamp) FILTER (WHERE state), max(timestamp)) AS evidence
    FROM latest_readings
    GROUP BY room
) AS rooms
"""


def upgrade() -> None:
    for statement in [
        CLOCK,
        STATE,
        RECORD,
        FIRST_CHECK,
        NEW_CUTOFF,
        CLEANUP,
        CLOSE,
        LATEST.format(newest=ZONES + NEWEST, now="statement_timestamp()"),
        STATUS.format(now="statement_timestamp()"),
    ]:
        op.execute(statement)


def downgrade() -> None:
    for statement in [
        STATUS.format(now="now()"),
        LATEST.format(newest=ZONES + OLD_NEWEST, now="now()"),
        OLD_CLOSE,
        OLD_CLEANUP,
        OLD_CUTOFF,
        "DROP FUNCTION hourly.record_clock(text, text)",
        "DROP VIEW hourly.clock_state",
        "DROP TABLE hourly.clock",
    ]:
        op.execute(statement)
