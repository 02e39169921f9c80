"""Occupied time

Intent: give the time for which each zone and room was occupied, by hours and days. Gaps, in which a sensor says nothing, end a state.
Locks: SHARE ROW EXCLUSIVE on hourly.watermark, which waits for the writers that run, and ACCESS EXCLUSIVE on sensors, both for
    milliseconds. No reading is read: `occupancy-db partitions maintain` computes the hours, and the views do until then.
Reversible: only without gaps and the occupied time of readings that retention has removed.
Phase: expand.
Release: 0.2.0

docs/internals/occupied-time.md describes how the sums stay exact.

Revision ID: 014_occupied_time
Revises: 013_silent_sensors
Create Date: 2026-11-27 09:45:00+00:00
"""

from alembic import op

revision = "014_occupied_time"
down_revision = "013_silent_sensors"
branch_labels = None
depends_on = None

# The docstring names the locks and their duration.
allowed = {"prefer-bigint-over-smallint": "a minute of an hour"}

lost = {
    "gaps": "SELECT count(*) FROM public.sensor_gaps",
    "occupied time of removed readings": "SELECT count(*) FROM hourly.occupied_history",
}

HOUR = "date_bin('1 hour', {}, 'epoch')"
SUMS = """
    count(*) AS reading_count,
    sum(confidence) AS confidence_sum,
    min(timestamp) AS first_reading,
    max(timestamp) AS last_reading
"""
SUMMED = "reading_count, confidence_sum, first_reading, last_reading"

# A state holds for the sensor's longest time, and for this one where none is set. In seconds: the length of a day or a month would
# depend on the time zone of the session.
HOLD = 24 * 3600
LONGEST_HOLD = f"(SELECT make_interval(secs => greatest({HOLD}, max(extract(epoch FROM hold)))::float8) FROM public.sensors)"

TABLES = [
    # When a sensor said that it does not know: its state ends.
    """
    CREATE TABLE sensor_gaps (
        timestamp timestamptz NOT NULL,
        room text NOT NULL,
        zone varchar(50) NOT NULL,
        source_entity varchar(100) NOT NULL,
        CONSTRAINT pk_sensor_gaps PRIMARY KEY (timestamp, room, zone, source_entity),
        CONSTRAINT ck_sensor_gaps_room CHECK (room::room_type IS NOT NULL),
        CONSTRAINT ck_sensor_gaps_timestamp CHECK (isfinite(timestamp))
    )
    """,
    # When each zone was occupied in a closed hour. Hours of hourly.occupied_marks are computed when they are asked for.
    """
    CREATE TABLE hourly.occupied (
        hour timestamptz NOT NULL,
        room text NOT NULL,
        zone varchar(50) NOT NULL,
        spans tstzmultirange NOT NULL,
        CONSTRAINT pk_occupied PRIMARY KEY (hour, room, zone)
    )
    """,
    # Append-only, as hourly.marks; a mark has all hours that a change may affect.
    "CREATE TABLE hourly.occupied_marks (since timestamptz NOT NULL, until timestamptz NOT NULL)",
    # Of times whose readings retention has removed: the seconds of zones and, without a zone, of rooms. `minute` as in
    # hourly.history.
    """
    CREATE TABLE hourly.occupied_history (
        hour timestamptz NOT NULL,
        seconds double precision NOT NULL,
        minute smallint NOT NULL,
        room text NOT NULL,
        zone varchar(50),
        CONSTRAINT uq_occupied_history UNIQUE NULLS NOT DISTINCT (hour, minute, room, zone)
    )
    """,
    # These times. The history alone answers for them.
    "CREATE TABLE hourly.forgotten (times tstzmultirange NOT NULL)",
    "INSERT INTO hourly.forgotten VALUES ('{}')",
    "CREATE UNIQUE INDEX ON hourly.forgotten ((true))",
    # The last event of a zone that retention has removed. Its state goes on.
    """
    CREATE TABLE hourly.carried (
        timestamp timestamptz NOT NULL,
        state boolean,
        room text NOT NULL,
        zone varchar(50) NOT NULL,
        source_entity varchar(100) NOT NULL,
        CONSTRAINT pk_carried PRIMARY KEY (room, zone)
    )
    """,
]

# What happened in a range of time. Where a zone has two events of one moment, the one with the greatest id counts: a gap ends a
# state, unless there is a reading of that moment.
EVENTS = """
    SELECT room, zone, timestamp, id, state, source_entity FROM {readings} AS reading
    WHERE timestamp >= {since} AND timestamp < {until}
    UNION ALL
    SELECT room, zone, timestamp, -1 AS id, NULL::boolean AS state, source_entity FROM {gaps} AS gap
    WHERE timestamp >= {since} AND timestamp < {until}
    UNION ALL
    SELECT room, zone, timestamp, -2 AS id, state, source_entity FROM hourly.carried
    WHERE timestamp >= {since} AND timestamp < {until}
"""

# When each zone was occupied between two moments, by hour. The state at the first moment is one of an earlier event, which is as old
# as the longest time for which a state holds.
SPANS = """
SELECT hour, room, zone,
       range_agg(tstzrange(greatest(since, hour), least(until, hour + interval '1 hour')))
       - (SELECT times FROM hourly.forgotten) AS spans
FROM (
    SELECT room, zone, greatest(timestamp, {since}) AS since,
           least(following, timestamp + make_interval(secs => coalesce(hold, {hold})::float8), {until}) AS until
    FROM (
        SELECT room, zone, timestamp, state, source_entity,
               lead(timestamp) OVER (PARTITION BY room, zone ORDER BY timestamp, id) AS following
        FROM ({events}) AS event
    ) AS followed
    LEFT JOIN (
        SELECT entity, since AS hold_since, extract(epoch FROM hold) AS hold,
               lead(since, 1, 'infinity') OVER (PARTITION BY entity ORDER BY since) AS hold_until
        FROM public.sensors
    ) AS place ON hold IS NOT NULL AND entity = source_entity AND timestamp >= hold_since AND timestamp < hold_until
    WHERE state
) AS held
CROSS JOIN LATERAL generate_series({hour_of_since}, until - interval '1 microsecond', '1 hour') AS hour
WHERE since < until
GROUP BY hour, room, zone
"""


def events(
    since: str, until: str, readings: str = "public.sensor_readings", gaps: str = "public.sensor_gaps"
) -> str:
    """The events that tell what a state was between two moments, as SQL."""
    return EVENTS.format(readings=readings, gaps=gaps, since=f"({since} - {LONGEST_HOLD})", until=until)


# The zones that have sums; a loose index scan.
ZONES = """
zones AS MATERIALIZED (
    WITH RECURSIVE zones AS (
        (SELECT room, zone FROM hourly.sums ORDER BY room, zone LIMIT 1)
        UNION ALL
        SELECT following.room, following.zone
        FROM zones
        CROSS JOIN LATERAL (
            SELECT sums.room, sums.zone FROM hourly.sums WHERE (sums.room, sums.zone) > (zones.room, zones.zone)
            ORDER BY sums.room, sums.zone LIMIT 1
        ) AS following
    )
    SELECT room, zone FROM zones
)
"""
# Of the readings before a moment, the last one of each zone is enough. A zone is found by its sums; a reading of an hour that is not
# summed up is taken whether it is the last or not.
LAST_READINGS = """(
    SELECT room, zone, timestamp, id, state, source_entity FROM public.sensor_readings
    WHERE timestamp >= {since} AND timestamp < {until}
    UNION ALL
    SELECT last.*
    FROM zones
    CROSS JOIN LATERAL (
        SELECT room, zone, timestamp, id, state, source_entity FROM public.sensor_readings AS reading
        WHERE reading.room = zones.room AND reading.zone = zones.zone
          AND reading.timestamp >= {since} - {longest} AND reading.timestamp < {since}
        ORDER BY reading.timestamp DESC, reading.id DESC
        LIMIT 1
    ) AS last
    UNION ALL
    SELECT counted.*
    FROM (
        SELECT DISTINCT hour, hour + interval '1 hour' AS following FROM hourly.marks
        WHERE hour >= {since} - {longest} - interval '1 hour' AND hour < {since}
        UNION ALL
        SELECT greatest(closed_before, {since} - {longest}) AS hour, timestamptz 'infinity' AS following FROM hourly.watermark
    ) AS unsummed
    CROSS JOIN LATERAL (
        SELECT room, zone, timestamp, id, state, source_entity FROM public.sensor_readings
        WHERE timestamp >= unsummed.hour AND timestamp < least(unsummed.following, {since})
    ) AS counted
)"""


def spans(since: str, until: str, of: str = "") -> str:
    """When each zone was occupied between two moments, by hour, as SQL."""
    return SPANS.format(
        since=since,
        until=until,
        events=of or events(since, until),
        hold=HOLD,
        hour_of_since=HOUR.format("since"),
    )


# The times that hourly.occupied does not cover: marked hours, and hours that are not closed, until now. The present hour is one of
# them even where the clock was ahead and the hour is closed.
UNCOVERED = f"""
CREATE VIEW hourly.uncovered AS
SELECT
    closed_before,
    tstzmultirange(tstzrange('-infinity', closed_before))
    * coalesce((SELECT range_agg(tstzrange(since, until)) FROM hourly.occupied_marks WHERE since < closed_before), '{{}}')
    + tstzmultirange(tstzrange(closed_before, statement_timestamp())) AS times
FROM (
    SELECT least(closed_before, {HOUR.format("statement_timestamp()")}) AS closed_before FROM hourly.watermark
) AS closed
"""

# What is stored and what is computed between two moments.
PARTS = """
SELECT occupied.hour, occupied.room, occupied.zone, occupied.spans
FROM hourly.occupied
WHERE occupied.hour >= {first_hour} AND occupied.hour < {until} AND occupied.hour < uncovered.closed_before
  AND NOT uncovered.times @> occupied.hour
UNION ALL
SELECT computed.*
FROM unnest(uncovered.times * tstzmultirange(tstzrange({since}, {until}))) AS island
CROSS JOIN LATERAL ({spans}) AS computed
"""
COMPUTED = spans(
    "lower(island)",
    "upper(island)",
    events(
        "lower(island)",
        "upper(island)",
        LAST_READINGS.format(since="lower(island)", until="upper(island)", longest=LONGEST_HOLD),
    ),
)
LIVE_HOURS = PARTS.format(first_hour="'-infinity'", since="'-infinity'", until="'infinity'", spans=COMPUTED)
LIVE_DAYS = PARTS.format(
    first_hour="days.since - interval '59 minutes'", since="days.since", until="days.until", spans=COMPUTED
)

SECONDS = (
    "(SELECT sum(extract(epoch FROM upper(part) - lower(part))) FROM unnest({}) AS part)::double precision"
)

# As in revision 012.
PAST = "({hour} AT TIME ZONE {zone} - date_trunc('hour', {hour} AT TIME ZONE {zone}))"
BEGINNING = f"({{hour}} + CASE WHEN {PAST} = '0' THEN interval '0' ELSE interval '1 hour' - {PAST} END)"


def beginning(hour: str, zone: str = "time_zone") -> str:
    """When the hour of the home begins that begins in an hour of UTC, as SQL."""
    return BEGINNING.format(hour=hour, zone=zone)


def local_hour(moment: str, hour: str) -> str:
    """When the hour of the home began in which a moment is, as SQL; its hour of UTC is the second argument."""
    before = f"({hour} - interval '1 hour')"
    return f"CASE WHEN {moment} >= {beginning(hour)} THEN {beginning(hour)} ELSE {beginning(before)} END"


MIDNIGHT = """(
    day::timestamp AT TIME ZONE time_zone - CASE
        WHEN (day::timestamp AT TIME ZONE time_zone - interval '1 hour') AT TIME ZONE time_zone = day::timestamp
        THEN interval '1 hour' ELSE interval '0'
    END
)"""

# The days of the home from the first event to the present.
DAYS = f"""
CREATE VIEW hourly.occupied_days AS
WITH span AS MATERIALIZED (
    SELECT
        least(
            (SELECT min(timestamp) FROM public.sensor_readings WHERE timestamp > '-infinity'),
            (SELECT min(hour) FROM hourly.occupied_history),
            (SELECT min(timestamp) FROM hourly.carried)
        ) AS first,
        statement_timestamp() AS last
)
SELECT time_zone, day, {MIDNIGHT} AS since, {MIDNIGHT.replace("day::", "(day + 1)::")} AS until
FROM (
    SELECT time_zone, (first AT TIME ZONE time_zone)::date - 1 + number AS day
    FROM hourly.home
    CROSS JOIN span
    CROSS JOIN LATERAL generate_series(
        0, (last AT TIME ZONE time_zone)::date - (first AT TIME ZONE time_zone)::date + 2
    ) AS number
) AS days
"""

MOMENT = "(history.hour + history.minute * interval '1 minute')"
RECENT_DAYS = "days AS MATERIALIZED (SELECT * FROM hourly.occupied_days)"
HISTORY_OF_DAY = f"""
    FROM days
    JOIN hourly.occupied_history AS history ON history.hour > days.since - interval '1 hour' AND history.hour < days.until
    WHERE {MOMENT} >= days.since AND {MOMENT} < days.until AND history.zone IS {{}}
"""
OF_DAY = "part.spans * tstzmultirange(tstzrange(days.since, days.until))"
# The pieces that hours of the home have of an hour of UTC: one, or two where an hour of the home begins within it.
PIECES = f"""
    SELECT {beginning("(part.hour - interval '1 hour')")}, part.hour, {beginning("part.hour")}
    WHERE {beginning("part.hour")} > part.hour
    UNION ALL
    SELECT {beginning("part.hour")}, {beginning("part.hour")}, part.hour + interval '1 hour'
"""
LOCAL = "hour AT TIME ZONE (SELECT time_zone FROM hourly.home) AS local_hour"


def view(name: str, keys: str, columns: str, live: str, history: str, begin: str = "") -> str:
    """A view of seconds, those of the times that are left and those of the times that retention has removed."""
    zone = "NOT NULL" if "zone" in keys else "NULL"
    return f"""
    CREATE VIEW {name} AS
    WITH {", ".join(filter(None, [ZONES, begin]))}
    SELECT {columns}, sum(seconds) AS occupied_seconds
    FROM (
        SELECT {keys}, {SECONDS.format("range_agg(spans)")} AS seconds FROM ({live}) AS live WHERE spans <> '{{}}' GROUP BY {keys}
        UNION ALL
        SELECT {history.format(zone)}
    ) AS parts
    GROUP BY {keys}
    """


def views(kind: str, places: str) -> list[str]:
    """The views of zones or of rooms."""
    return [
        view(
            f"occupied_{kind}_hours",
            f"{places}, hour",
            f"{places}, hour",
            f"SELECT part.* FROM hourly.uncovered CROSS JOIN LATERAL ({LIVE_HOURS}) AS part",
            f"{places}, hour, seconds FROM hourly.occupied_history WHERE zone IS {{}}",
        ),
        view(
            f"occupied_{kind}_local_hours",
            f"{places}, day, hour",
            f"{places}, day, hour, {LOCAL}",
            f"""
            SELECT room, zone, day, piece.period AS hour, {OF_DAY} * tstzmultirange(tstzrange(piece.since, piece.until)) AS spans
            FROM hourly.uncovered
            CROSS JOIN days
            CROSS JOIN LATERAL ({LIVE_DAYS}) AS part
            CROSS JOIN LATERAL ({PIECES}) AS piece (period, since, until)
            """,
            f"{places}, day, {local_hour(MOMENT, 'history.hour')} AS hour, seconds {HISTORY_OF_DAY}",
            RECENT_DAYS,
        ),
        view(
            f"occupied_{kind}_local_days",
            f"{places}, day",
            f"{places}, day",
            f"""
            SELECT room, zone, day, {OF_DAY} AS spans
            FROM hourly.uncovered CROSS JOIN days CROSS JOIN LATERAL ({LIVE_DAYS}) AS part
            """,
            f"{places}, day, seconds {HISTORY_OF_DAY}",
            RECENT_DAYS,
        ),
    ]


VIEWS = {
    f"occupied_{kind}_{period}"
    for kind in ("zone", "room")
    for period in ("hours", "local_hours", "local_days")
}

# A change of an event affects the time until the following event, at most the longest time for which a state holds. Only closed
# hours are marked.
MARKED_UNTIL = f"least(closed, {HOUR.format(f'hour + {LONGEST_HOLD}')} + interval '2 hours')"
MARK_OCCUPIED = f"INSERT INTO hourly.occupied_marks SELECT hour, {MARKED_UNTIL} FROM "

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
    LOCK TABLE hourly.watermark IN ROW EXCLUSIVE MODE;
    -- Looks after the lock is held, so it sees what was closed before. A transaction with one snapshot for
    -- all would not see it, and marks every hour.
    SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN closed_before ELSE 'infinity' END
    INTO closed FROM hourly.watermark;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {hour} FROM written WHERE timestamp < closed;
        {inserted}
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {hour} FROM gone WHERE timestamp < closed;
        {deleted}
    ELSE
        INSERT INTO hourly.marks SELECT DISTINCT {hour}
        FROM (
            (SELECT timestamp, room, zone, confidence FROM written EXCEPT ALL SELECT timestamp, room, zone, confidence FROM gone)
            UNION ALL
            (SELECT timestamp, room, zone, confidence FROM gone EXCEPT ALL SELECT timestamp, room, zone, confidence FROM written)
        ) AS changed
        WHERE timestamp < closed;
        {updated}
    END IF;
    RETURN NULL;
END
$$
"""
EVENT = "timestamp, room, zone, id, state, source_entity"
HOURS_OF = (
    f"(SELECT DISTINCT {HOUR.format('timestamp')} AS hour FROM {{}} WHERE timestamp < closed) AS changed"
)
CHANGED = """(
    (SELECT {0} FROM written EXCEPT ALL SELECT {0} FROM gone) UNION ALL (SELECT {0} FROM gone EXCEPT ALL SELECT {0} FROM written)
) AS event"""
NEW_MARK = MARK.format(
    hour=HOUR.format("timestamp"),
    inserted=f"IF FOUND THEN {MARK_OCCUPIED} {HOURS_OF.format('written')}; END IF;",
    deleted=f"IF FOUND THEN {MARK_OCCUPIED} {HOURS_OF.format('gone')}; END IF;",
    updated=f"{MARK_OCCUPIED} {HOURS_OF.format(CHANGED.format(EVENT))};",
)
OLD_MARK = "\n".join(
    line
    for line in MARK.format(hour=HOUR.format("timestamp"), inserted="", deleted="", updated="").splitlines()
    if line.strip()
)

MARK_GAPS = f"""
CREATE FUNCTION hourly.mark_gaps() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    closed timestamptz;
BEGIN
    LOCK TABLE hourly.watermark IN ROW EXCLUSIVE MODE;
    SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN closed_before ELSE 'infinity' END
    INTO closed FROM hourly.watermark;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        {MARK_OCCUPIED} {HOURS_OF.format("written")};
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        {MARK_OCCUPIED} {HOURS_OF.format("gone")};
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM hourly.mark_occupied('-infinity');
    END IF;
    RETURN NULL;
END
$$
"""
WATCH_GAPS = [
    f"CREATE TRIGGER hourly_{event} AFTER {event} ON sensor_gaps {tables} "
    "FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark_gaps()"
    for event, tables in {
        "insert": "REFERENCING NEW TABLE AS written",
        "update": "REFERENCING NEW TABLE AS written OLD TABLE AS gone",
        "delete": "REFERENCING OLD TABLE AS gone",
        "truncate": "",
    }.items()
]
# An erasure deletes what retention has carried on.
WATCH_CARRIED = (
    "CREATE TRIGGER hourly_delete AFTER DELETE ON hourly.carried REFERENCING OLD TABLE AS gone "
    "FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark_gaps()"
)

# Marks the closed hours that events of a range of time affect.
MARK_RANGE = f"""
CREATE FUNCTION hourly.mark_occupied(first timestamptz, last timestamptz) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
INSERT INTO hourly.occupied_marks
SELECT since, until
FROM (
    SELECT
        {HOUR.format("first")} AS since,
        least(closed_before, {HOUR.format(f"last + {LONGEST_HOLD}")} + interval '1 hour') AS until
    FROM hourly.watermark
) AS affected
WHERE since < until
$$
"""
# The same of all events since a moment.
MARK_SINCE = """
CREATE FUNCTION hourly.mark_occupied(moment timestamptz) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
SELECT hourly.mark_occupied(greatest(moment, first), 'infinity')
FROM (
    SELECT least(
        (SELECT min(timestamp) FROM sensor_readings WHERE timestamp > '-infinity'),
        (SELECT min(timestamp) FROM hourly.carried),
        (SELECT min(hour) FROM hourly.occupied)
    ) AS first
) AS present
WHERE first IS NOT NULL
$$
"""

# Other holds change the past. The lock makes later writers see the new longest hold, and waits for those who have seen the old one.
MARK_HELD = """
CREATE FUNCTION hourly.mark_held() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
        PERFORM hourly.mark_occupied('-infinity');
    ELSIF TG_OP = 'UPDATE' THEN
        IF (OLD.entity, OLD.since) IS DISTINCT FROM (NEW.entity, NEW.since) OR OLD.hold IS DISTINCT FROM NEW.hold THEN
            LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
            PERFORM hourly.mark_occupied(least(OLD.since, NEW.since));
        END IF;
    ELSIF coalesce(NEW.hold, OLD.hold) IS DISTINCT FROM (
        SELECT hold FROM sensors WHERE entity = coalesce(NEW.entity, OLD.entity) AND since < coalesce(NEW.since, OLD.since)
        ORDER BY since DESC LIMIT 1
    ) THEN
        LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
        PERFORM hourly.mark_occupied(coalesce(NEW.since, OLD.since));
    END IF;
    RETURN NULL;
END
$$
"""
WATCH_SENSORS = [
    "CREATE TRIGGER occupied AFTER INSERT OR UPDATE OR DELETE ON sensors FOR EACH ROW EXECUTE FUNCTION hourly.mark_held()",
    "CREATE TRIGGER occupied_truncate AFTER TRUNCATE ON sensors FOR EACH STATEMENT EXECUTE FUNCTION hourly.mark_held()",
]

MARK_TRUNCATED = """
CREATE OR REPLACE FUNCTION hourly.mark_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    month timestamptz := to_date(right(TG_TABLE_NAME, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC';
BEGIN
    INSERT INTO hourly.marks
    SELECT DISTINCT hour FROM hourly.sums
    WHERE hour >= month AND hour < (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';{}
    RETURN NULL;
END
$$
"""
TRUNCATED = """
    INSERT INTO hourly.occupied_marks SELECT month, closed_before FROM hourly.watermark WHERE month < closed_before;"""

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
        OR until < since AND (SELECT count(*) FROM (SELECT FROM hourly.sums WHERE hour >= until LIMIT 2001) AS sums) > 2000
    THEN
        RETURN since;
    END IF;
    LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE;
    SELECT closed_before INTO since FROM hourly.watermark;
    DELETE FROM hourly.sums WHERE hour >= until AND until < since;
    DELETE FROM hourly.marks WHERE hour >= until AND until < since;{{closed}}
    -- Only hours of months that have readings: after a century without any, there is nothing to mark.
    WHILE since < until LOOP
        SELECT timestamp INTO first FROM sensor_readings
        WHERE timestamp >= since AND timestamp < until ORDER BY timestamp LIMIT 1;
        EXIT WHEN NOT FOUND;
        month_end := least(until, (date_trunc('month', first AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
        SELECT timestamp INTO last FROM sensor_readings
        WHERE timestamp >= first AND timestamp < month_end ORDER BY timestamp DESC LIMIT 1;
        INSERT INTO hourly.marks SELECT generate_series({HOUR.format("first")}, {HOUR.format("last")}, '1 hour');{{marked}}
        since := month_end;
    END LOOP;
    UPDATE hourly.watermark SET closed_before = until;
    RETURN until;
END
$$
"""
# A state that was there before holds on in the hours that are closed now.
CLOSED = f"""
    DELETE FROM hourly.occupied WHERE hour >= until AND until < since;
    INSERT INTO hourly.occupied_marks
    SELECT since, least(until, {HOUR.format(f"since + {LONGEST_HOLD}")} + interval '1 hour') WHERE since > '-infinity' AND since < until;"""
MARKED = f"""
        INSERT INTO hourly.occupied_marks
        SELECT {HOUR.format("first")}, least(until, {HOUR.format(f"last + {LONGEST_HOLD}")} + interval '1 hour');"""

# Computes marked hours, oldest first, and returns their number. As in hourly.refresh(), one snapshot is computed and its marks
# removed. What is left of a mark is marked again.
REFRESH = f"""
CREATE FUNCTION hourly.refresh_occupied(at_most integer) RETURNS integer
LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
AS $$
WITH due AS MATERIALIZED (
    SELECT since, least(since + at_most * interval '1 hour', closed_before, (SELECT max(until) FROM hourly.occupied_marks)) AS until
    FROM hourly.watermark CROSS JOIN (SELECT min(since) AS since FROM hourly.occupied_marks) AS first
    WHERE since < closed_before
),
gone AS (
    DELETE FROM hourly.occupied_marks AS mark USING due WHERE mark.since < due.until RETURNING mark.until
),
rest AS (
    INSERT INTO hourly.occupied_marks SELECT due.until, max(gone.until) FROM due JOIN gone ON gone.until > due.until GROUP BY due.until
),
computed AS MATERIALIZED (
    SELECT found.* FROM due CROSS JOIN LATERAL ({spans("due.since", "due.until")}) AS found WHERE spans <> '{{}}'
),
vanished AS (
    DELETE FROM hourly.occupied USING due
    WHERE occupied.hour >= due.since AND occupied.hour < due.until AND NOT EXISTS (
        SELECT FROM computed
        WHERE (computed.hour, computed.room, computed.zone) = (occupied.hour, occupied.room, occupied.zone)
    )
),
stored AS (
    INSERT INTO hourly.occupied (hour, room, zone, spans) SELECT hour, room, zone, spans FROM computed
    ON CONFLICT (hour, room, zone) DO UPDATE SET spans = excluded.spans WHERE occupied.spans <> excluded.spans
)
SELECT coalesce((SELECT extract(epoch FROM until - since)::integer / 3600 FROM due), 0)
$$
"""

# Readings that are removed leave the sums of the home's hours of that time.
READ_HOUR = HOUR.format("timestamp")
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
ADD_SECONDS = "ON CONFLICT (hour, minute, room, zone) DO UPDATE SET seconds = occupied_history.seconds + excluded.seconds"


def remember(since: str, until: str, readings: str) -> str:
    """The common table expressions that keep the occupied time of the readings and gaps of a range, as SQL."""
    sources = [
        f"(SELECT {EVENT} FROM {readings} UNION ALL SELECT {EVENT} FROM public.sensor_readings WHERE timestamp < {since})",
        "(SELECT timestamp, room, zone, source_entity FROM gone_gaps UNION ALL "
        f"SELECT timestamp, room, zone, source_entity FROM public.sensor_gaps WHERE timestamp < {since})",
    ]
    found = events(since, until, *sources)
    return f"""
gone_gaps AS (
    DELETE FROM public.sensor_gaps WHERE timestamp >= {since} AND timestamp < {until}
    RETURNING timestamp, room, zone, source_entity
),
event AS MATERIALIZED ({found}),
remembered AS (
    INSERT INTO hourly.occupied_history (hour, minute, room, zone, seconds)
    SELECT hour, minute, room, zone, {SECONDS.format("range_agg(spans)")}
    FROM (
        SELECT found.hour, piece.minute, found.room, found.zone, found.spans * tstzmultirange(piece.times) AS spans
        FROM ({spans(since, until, "SELECT * FROM event")}) AS found
        CROSS JOIN hourly.home
        CROSS JOIN LATERAL (SELECT {beginning("found.hour")} AS moment) AS beginning
        CROSS JOIN LATERAL (
            SELECT 0::smallint, tstzrange(found.hour, moment) WHERE moment > found.hour
            UNION ALL
            SELECT extract(minute FROM moment AT TIME ZONE 'UTC')::smallint, tstzrange(moment, found.hour + interval '1 hour')
        ) AS piece (minute, times)
    ) AS pieces
    WHERE spans <> '{{}}'
    GROUP BY GROUPING SETS ((hour, minute, room, zone), (hour, minute, room))
    {ADD_SECONDS}
),
carried AS (
    INSERT INTO hourly.carried (timestamp, state, room, zone, source_entity)
    SELECT DISTINCT ON (room, zone) timestamp, state, room, zone, source_entity FROM event
    ORDER BY room, zone, timestamp DESC, id DESC
    ON CONFLICT (room, zone) DO UPDATE
    SET timestamp = excluded.timestamp, state = excluded.state, source_entity = excluded.source_entity
    WHERE excluded.timestamp >= carried.timestamp
)"""


# What was computed of these times is no longer there; the state at their end goes on.
FORGOTTEN = f"""
    UPDATE hourly.forgotten SET times = times + tstzmultirange(tstzrange(since, until));
    DELETE FROM hourly.carried WHERE timestamp < until - {LONGEST_HOLD};
    INSERT INTO hourly.occupied_marks
    SELECT first, least(closed_before, {HOUR.format(f"until + {LONGEST_HOLD}")} + interval '2 hours')
    FROM hourly.watermark CROSS JOIN (
        SELECT least(
            (SELECT min(hour) FROM hourly.occupied WHERE hour > since - interval '1 hour' AND hour < until),
            {HOUR.format("until")}
        ) AS first
    ) AS affected
    WHERE first < closed_before;"""

FORGET = f"""
CREATE OR REPLACE FUNCTION hourly.forget(since timestamptz, until timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    removed bigint;
BEGIN
    LOCK TABLE hourly.forgotten IN SHARE ROW EXCLUSIVE MODE;
    WITH gone AS (
        DELETE FROM sensor_readings WHERE timestamp >= $1 AND timestamp < $2
        RETURNING {EVENT}, confidence
    ),
    kept AS (
        INSERT INTO hourly.history (hour, minute, room, zone, {SUMMED})
        SELECT {READ_HOUR}, {PART}, room, zone, {SUMS}
        FROM gone CROSS JOIN hourly.home
        GROUP BY 1, 2, room, zone
        {ADD_TO_HISTORY}
    ),
    {remember("$1", "$2", "gone")}
    SELECT count(*) INTO removed FROM gone;
    {FORGOTTEN.replace("since", "$1").replace("until", "$2")}
    RETURN removed;
END
$$
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
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', detached);{{remembered}}
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
REMEMBERED = f"""
    LOCK TABLE hourly.forgotten IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format(
        $statement$
        WITH {remember("$1", "$2", "%s")}
        SELECT
        $statement$, detached) USING since, until;
    {FORGOTTEN}"""

# What there is already is computed by upkeep.
MARK_ALL = "SELECT hourly.mark_occupied('-infinity')"


def upgrade() -> None:
    for statement in [
        *TABLES,
        UNCOVERED,
        DAYS,
        *views("zone", "room, zone"),
        *views("room", "room"),
        MARK_RANGE,
        MARK_SINCE,
        MARK_GAPS,
        *WATCH_GAPS,
        WATCH_CARRIED,
        # A writer that has begun before marks no occupied time.
        "LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE",
        MARK_HELD,
        *WATCH_SENSORS,
        NEW_MARK,
        MARK_TRUNCATED.format(TRUNCATED),
        CLOSE.format(closed=CLOSED, marked=MARKED),
        REFRESH,
        FORGET,
        FORGET_MONTH.format(remembered=REMEMBERED),
        MARK_ALL,
    ]:
        op.execute(statement)


def downgrade() -> None:
    for statement in [
        "LOCK TABLE hourly.watermark IN SHARE ROW EXCLUSIVE MODE",
        OLD_MARK,
        MARK_TRUNCATED.format(""),
        CLOSE.format(closed="", marked=""),
        OLD_FORGET,
        FORGET_MONTH.format(remembered=""),
        f"DROP VIEW {', '.join(sorted(VIEWS))}, hourly.occupied_days, hourly.uncovered",
        "DROP TABLE sensor_gaps",
        "DROP TRIGGER hourly_delete ON hourly.carried",
        "DROP TRIGGER occupied ON sensors",
        "DROP TRIGGER occupied_truncate ON sensors",
        "DROP FUNCTION hourly.mark_held(), hourly.mark_gaps(), hourly.mark_occupied(timestamptz), "
        "hourly.mark_occupied(timestamptz, timestamptz), hourly.refresh_occupied(integer)",
        "DROP TABLE hourly.occupied, hourly.occupied_marks, hourly.occupied_history, hourly.forgotten, hourly.carried",
    ]:
        op.execute(statement)
