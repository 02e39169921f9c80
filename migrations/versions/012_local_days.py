"""Local days

Intent: statistics by the hours and days of the home's time zone, beside those of UTC. The time zone is a row of hourly.home; a change
    of it rewrites nothing.
Locks: ROW EXCLUSIVE on sensor_readings, which no client waits for. Readers of the statistics, not writers, wait while the key of
    hourly.history is built: about a second per million sums.
Reversible: only without the time zone of the home.
Phase: expand.
Release: 0.2.0

docs/internals/hourly-sums.md describes the views.

Revision ID: 012_local_days
Revises: 011_sensors
Create Date: 2026-11-27 04:30:00+00:00
"""

from alembic import op

revision = "012_local_days"
down_revision = "011_sensors"
branch_labels = None
depends_on = None

# The docstring names the locks and their duration.
allowed = {
    "prefer-bigint-over-smallint": "a minute of an hour",
    "ban-drop-constraint": "another key of the same table takes its place in the transaction",
    "constraint-missing-not-valid": "hourly.history is no table of clients",
    "adding-serial-primary-key-field": "only readers of the statistics wait for the key of hourly.history",
}

lost = {"the time zone of the home": "SELECT count(*) FROM hourly.home WHERE time_zone <> 'UTC'"}

HOUR = "date_bin('1 hour', {}, 'epoch')"

SUMS = """
    count(*) AS reading_count,
    sum(confidence) AS confidence_sum,
    min(timestamp) AS first_reading,
    max(timestamp) AS last_reading
"""
SUMMED = "reading_count, confidence_sum, first_reading, last_reading"

# The names that PostgreSQL knows include abbreviations and formulas, whose rules are not those of a place.
HOME = """
CREATE TABLE hourly.home (
    time_zone text NOT NULL,
    CONSTRAINT ck_home_time_zone CHECK (
        time_zone ~ '^(UTC|Etc/GMT[+-][0-9]+|[A-Z][A-Za-z]+(/[A-Z][A-Za-z_-]+)+)$'
        AND timezone(time_zone, timestamptz 'epoch') IS NOT NULL
    )
)
"""

# History of an hour of UTC in which an hour of the home begins has two rows: of the readings before, and of those from this
# minute on.
MINUTE = "ALTER TABLE hourly.history ADD COLUMN minute smallint NOT NULL DEFAULT 0"

# The hour of the home that begins in an hour of UTC. A time zone changes its offset at the beginning of an hour of either kind.
PAST = "({hour} AT TIME ZONE {zone} - date_trunc('hour', {hour} AT TIME ZONE {zone}))"
BEGINNING = f"({{hour}} + CASE WHEN {PAST} = '0' THEN interval '0' ELSE interval '1 hour' - {PAST} END)"


HOUR_BEFORE = "(counted.hour - interval '1 hour')"


def beginning(hour: str, zone: str = "time_zone") -> str:
    """When the hour of the home begins that begins in an hour of UTC, as SQL."""
    return BEGINNING.format(hour=hour, zone=zone)


def local_hour(moment: str, hour: str, zone: str = "time_zone") -> str:
    """When the hour of the home began in which a moment is, as SQL; its hour of UTC is the second argument."""
    before = f"({hour} - interval '1 hour')"
    return f"CASE WHEN {moment} >= {beginning(hour, zone)} THEN {beginning(hour, zone)} ELSE {beginning(before, zone)} END"


# The days of which there are sums: when they begin and end, and whether hours of theirs begin within an hour of UTC. Of a midnight that
# a clock passes twice, the first counts.
MIDNIGHT = """(
    day::timestamp AT TIME ZONE time_zone - CASE
        WHEN (day::timestamp AT TIME ZONE time_zone - interval '1 hour') AT TIME ZONE time_zone = day::timestamp
        THEN interval '1 hour' ELSE interval '0'
    END
)"""
OFF_BEFORE = PAST.format(hour=f"({HOUR.format('since')} - interval '1 hour')", zone="time_zone") + " <> '0'"
OFF_AFTER = PAST.format(hour=HOUR.format("until"), zone="time_zone") + " <> '0'"
DAYS = f"""
CREATE VIEW hourly.days AS
SELECT
    time_zone, day, since, until,
    {OFF_BEFORE} OR {OFF_AFTER} AS split
FROM (
    SELECT time_zone, day, {MIDNIGHT} AS since, {MIDNIGHT.replace("day::", "(day + 1)::")} AS until
    FROM (
        SELECT time_zone, (first AT TIME ZONE time_zone)::date - 1 + number AS day
        FROM hourly.home
        CROSS JOIN (
            SELECT
                least((SELECT min(hour) FROM hourly.sums), (SELECT min(hour) FROM hourly.history)) AS first,
                greatest((SELECT max(hour) FROM hourly.sums), (SELECT max(hour) FROM hourly.history)) AS last
        ) AS span
        CROSS JOIN LATERAL generate_series(
            0, (last AT TIME ZONE time_zone)::date - (first AT TIME ZONE time_zone)::date + 2
        ) AS number
    ) AS numbered
) AS days
"""

# What a period of the home has of each hour of UTC and zone: the sum, where a closed hour is in one period; what is counted of the
# pieces of other closed hours, and of marked and open hours; and the history. A day leads to its hours, and an hour to its pieces, so
# that a condition on the day or the period selects ranges of indexes.
PARTS = """
SELECT days.day, {whole} AS period, room, zone, {summed}
FROM days
JOIN hourly.sums ON sums.hour >= days.since AND sums.hour < days.until
WHERE NOT {split} AND {unmarked}
UNION ALL
SELECT days.day, piece.period, part.*
FROM days
CROSS JOIN LATERAL (
    SELECT DISTINCT sums.hour FROM hourly.sums
    WHERE sums.hour > days.since - interval '1 hour' AND sums.hour < days.until AND {split} AND {unmarked}
) AS counted
CROSS JOIN LATERAL ({pieces}) AS piece (period, since, until)
CROSS JOIN LATERAL ({count}) AS part
WHERE {within}
UNION ALL
SELECT {day}, piece.period, part.*
FROM hourly.home
CROSS JOIN (
    SELECT DISTINCT hour FROM hourly.marks WHERE hour < (SELECT closed_before FROM hourly.watermark)
    UNION ALL
    SELECT DISTINCT {read_hour} AS hour FROM public.sensor_readings
    WHERE timestamp >= (SELECT closed_before FROM hourly.watermark) AND timestamp <= 'infinity'
) AS counted
CROSS JOIN LATERAL ({pieces_of_uncounted}) AS piece (period, since, until)
CROSS JOIN LATERAL ({count}) AS part
UNION ALL
SELECT days.day, {of_history} AS period, room, zone, {summed}
FROM days
JOIN hourly.history ON history.hour > days.since - interval '1 hour' AND history.hour < days.until
WHERE {moment} >= days.since AND {moment} < days.until
"""
MOMENT = "(history.hour + history.minute * interval '1 minute')"
READ_HOUR = HOUR.format("timestamp")
SAME = {
    "summed": SUMMED,
    "unmarked": "NOT EXISTS (SELECT FROM hourly.marks WHERE marks.hour = sums.hour)",
    "read_hour": READ_HOUR,
    "moment": MOMENT,
    "count": f"""
    SELECT room, zone, {SUMS} FROM public.sensor_readings
    WHERE timestamp >= piece.since AND timestamp < piece.until GROUP BY room, zone
""",
}
PIECES = f"""
    SELECT {beginning(HOUR_BEFORE)}, counted.hour, {beginning("counted.hour")}
    UNION ALL SELECT {beginning("counted.hour")}, {beginning("counted.hour")}, counted.hour + interval '1 hour'
"""
HOURS = PARTS.format(
    **SAME,
    whole="sums.hour",
    split="days.split",
    pieces=PIECES,
    pieces_of_uncounted=PIECES,
    within="piece.period >= days.since AND piece.period < days.until",
    day="(piece.period AT TIME ZONE home.time_zone)::date",
    of_history=local_hour(MOMENT, "history.hour", "days.time_zone"),
)
DATE = "(({}) AT TIME ZONE time_zone)::date"
FIRST_DATE, LAST_DATE = (
    DATE.format(f"counted.hour{later}") for later in ("", " + interval '59 minutes 59.999999 seconds'")
)
LATER = f"(({LAST_DATE})::timestamp AT TIME ZONE time_zone)"
DAY_PARTS = PARTS.format(
    **SAME,
    whole="days.day",
    split="(sums.hour < days.since OR sums.hour > days.until - interval '1 hour')",
    pieces="SELECT days.day, greatest(counted.hour, days.since), least(counted.hour + interval '1 hour', days.until)",
    # An hour in two days is one in which the later day begins.
    pieces_of_uncounted=f"""
    SELECT {LAST_DATE}, CASE WHEN {FIRST_DATE} = {LAST_DATE} THEN counted.hour ELSE {LATER} END, counted.hour + interval '1 hour'
    UNION ALL SELECT {FIRST_DATE}, counted.hour, {LATER} WHERE {FIRST_DATE} <> {LAST_DATE}
""",
    within="true",
    day="piece.period",
    of_history="days.day",
)

STATISTICS = """
    sum(reading_count)::bigint AS reading_count,
    count(DISTINCT zone) AS active_zones,
    sum(confidence_sum) / sum(reading_count) AS avg_confidence,
    min(first_reading) AS first_reading,
    max(last_reading) AS last_reading
"""
VIEWS = [
    f"""
    CREATE VIEW local_hour_stats AS
    WITH days AS MATERIALIZED (SELECT * FROM hourly.days)
    SELECT room, day, period AS hour, period AT TIME ZONE (SELECT time_zone FROM hourly.home) AS local_hour, {STATISTICS}
    FROM ({HOURS}) AS parts
    GROUP BY room, day, period
    """,
    f"""
    CREATE VIEW local_day_stats AS
    WITH days AS MATERIALIZED (SELECT * FROM hourly.days)
    SELECT room, day, {STATISTICS}
    FROM ({DAY_PARTS}) AS parts
    GROUP BY room, day
    """,
]

# Readings that are removed leave the sums of the home's hours of that time.
PART = f"""CASE
    WHEN timestamp >= {beginning(READ_HOUR)} THEN extract(minute FROM {beginning(READ_HOUR)} AT TIME ZONE 'UTC')::smallint ELSE 0
END"""

ADD_TO_HISTORY = """
    ON CONFLICT (hour, minute, room, zone) DO UPDATE SET
        reading_count = history.reading_count + excluded.reading_count,
        confidence_sum = history.confidence_sum + excluded.confidence_sum,
        first_reading = least(history.first_reading, excluded.first_reading),
        last_reading = greatest(history.last_reading, excluded.last_reading)
"""

FORGET = f"""
CREATE OR REPLACE FUNCTION hourly.forget(since timestamptz, until timestamptz) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
WITH gone AS (
    DELETE FROM sensor_readings WHERE timestamp >= since AND timestamp < until
    RETURNING timestamp, room, zone, confidence
),
kept AS (
    INSERT INTO hourly.history (hour, minute, room, zone, {SUMMED})
    SELECT {READ_HOUR}, {PART}, room, zone, {SUMS}
    FROM gone CROSS JOIN hourly.home
    GROUP BY 1, 2, room, zone
    {ADD_TO_HISTORY}
)
SELECT count(*) FROM gone
$$
"""

FORGET_MONTH = f"""
CREATE OR REPLACE FUNCTION hourly.forget_month(detached regclass, summed boolean) RETURNS bigint
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
        -- The sums are those of the home's hours, too.
        AND NOT EXISTS (
            SELECT FROM hourly.home CROSS JOIN generate_series(since, until - interval '1 hour', '1 hour') AS hour
            WHERE {beginning("hour")} <> hour
        )
    THEN
        SELECT coalesce(sum(reading_count), 0) INTO removed FROM hourly.sums WHERE hour >= since AND hour < until;
        INSERT INTO hourly.history (hour, room, zone, {SUMMED})
        SELECT hour, room, zone, {SUMMED} FROM hourly.sums WHERE hour >= since AND hour < until
        {ADD_TO_HISTORY};
    ELSE
        EXECUTE format('SELECT count(*) FROM %s', detached) INTO removed;
        EXECUTE format(
            $statement$
            INSERT INTO hourly.history (hour, minute, room, zone, {SUMMED})
            SELECT {READ_HOUR}, {PART}, room, zone, {SUMS} FROM %s CROSS JOIN hourly.home GROUP BY 1, 2, room, zone
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

# The definitions of revision 004, for the downgrade.
OLD_ADD_TO_HISTORY = """
    ON CONFLICT (hour, room, zone) DO UPDATE SET
        reading_count = history.reading_count + excluded.reading_count,
        confidence_sum = history.confidence_sum + excluded.confidence_sum,
        first_reading = least(history.first_reading, excluded.first_reading),
        last_reading = greatest(history.last_reading, excluded.last_reading)
"""
OLD_FORGET = f"""
CREATE OR REPLACE FUNCTION hourly.forget(since timestamptz, until timestamptz) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
WITH gone AS (
    DELETE FROM sensor_readings WHERE timestamp >= since AND timestamp < until
    RETURNING timestamp, room, zone, confidence
),
kept AS (
    INSERT INTO hourly.history (hour, room, zone, reading_count, confidence_sum, first_reading, last_reading)
    SELECT {READ_HOUR}, room, zone, {SUMS} FROM gone GROUP BY {READ_HOUR}, room, zone
    {OLD_ADD_TO_HISTORY}
)
SELECT count(*) FROM gone
$$
"""
OLD_FORGET_MONTH = f"""
CREATE OR REPLACE FUNCTION hourly.forget_month(detached regclass, summed boolean) RETURNS bigint
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
        {OLD_ADD_TO_HISTORY};
    ELSE
        EXECUTE format('SELECT count(*) FROM %s', detached) INTO removed;
        EXECUTE format(
            $statement$
            INSERT INTO hourly.history (hour, room, zone, reading_count, confidence_sum, first_reading, last_reading)
            SELECT {READ_HOUR}, room, zone, {SUMS} FROM %s GROUP BY 1, room, zone
            {OLD_ADD_TO_HISTORY}
            $statement$, detached);
    END IF;
    DELETE FROM hourly.sums WHERE hour >= since AND hour < until;
    DELETE FROM hourly.marks WHERE hour >= since AND hour < until;
    EXECUTE format('DROP TABLE %s', detached);
    RETURN removed;
END
$$
"""

KEY = "ALTER TABLE hourly.history DROP CONSTRAINT pk_history, ADD CONSTRAINT pk_history PRIMARY KEY ({})"

MERGE = f"""
WITH later AS (DELETE FROM hourly.history WHERE minute > 0 RETURNING *)
INSERT INTO hourly.history (hour, minute, room, zone, {SUMMED})
SELECT hour, 0, room, zone, sum(reading_count), sum(confidence_sum), min(first_reading), max(last_reading)
FROM later GROUP BY hour, room, zone
{ADD_TO_HISTORY}
"""


def upgrade() -> None:
    for statement in [
        HOME,
        "CREATE UNIQUE INDEX ON hourly.home ((true))",
        "INSERT INTO hourly.home VALUES ('UTC')",
        MINUTE,
        KEY.format("hour, minute, room, zone"),
        DAYS,
        *VIEWS,
        FORGET,
        FORGET_MONTH,
    ]:
        op.execute(statement)


def downgrade() -> None:
    for statement in [
        "DROP VIEW local_day_stats, local_hour_stats, hourly.days",
        MERGE,
        KEY.format("hour, room, zone"),
        "ALTER TABLE hourly.history DROP COLUMN minute",
        "DROP TABLE hourly.home",
        OLD_FORGET,
        OLD_FORGET_MONTH,
    ]:
        op.execute(statement)
