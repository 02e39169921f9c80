"""Text rooms

Intent: let every client write and filter rooms as text, list the rooms of a home in an enum that can grow, and find the newest
    reading of each zone in one view. The columns of rooms become text that the enum checks: this revision adds the new
    columns, which triggers fill, and the next two revisions complete and rename them.
Locks: ACCESS EXCLUSIVE on the tables of clients, for milliseconds: none of their rows is read or rewritten. Readers of
    the views, not writers, wait while the hourly sums are rewritten, about a second per million sums.
Reversible: only without the labels of rooms and the dates of their retirement.
Phase: expand.
Release: 0.2.0

Revision ID: 005_text_rooms
Revises: 004_hourly_sums
Create Date: 2026-11-26 17:00:00+00:00
"""

from alembic import op

revision = "005_text_rooms"
down_revision = "004_hourly_sums"
branch_labels = None
depends_on = None

# The docstring names the locks and their duration.
allowed = {
    "ban-drop-view": "the type of a view's column cannot be changed: the same transaction creates the view again",
    "ban-drop-constraint": "the new constraint accepts what the previous one accepted",
    "changing-column-type": "only the hourly sums are rewritten, which writers do not read",
}

lost = {
    "labels of rooms": "SELECT count(*) FROM public.rooms WHERE label IS NOT NULL",
    "retired rooms": "SELECT count(*) FROM public.rooms WHERE retired_at IS NOT NULL",
}

# Column, enum, whether it is NOT NULL.
COLUMNS = {
    "sensor_readings": [("room", "room_type", True)],
    "room_transitions": [("from_room", "room_type", False), ("to_room", "room_type", True)],
    "predictions": [("room", "room_type", True), ("prediction_type", "prediction_type", True)],
}

COMPLETENESS = {
    "occupancy_complete": (
        "prediction_type_text <> 'occupancy' OR (horizon_minutes IS NOT NULL AND probability IS NOT NULL)"
    ),
    "vacancy_complete": "prediction_type_text <> 'vacancy' OR expected_vacancy_minutes IS NOT NULL",
}

# Parameters of clients that map rooms as an enum have the type of the enum. The functions are inlined, so that an
# index on the text column serves the comparison.
OPERATORS = [
    statement
    for enum in ("room_type", "prediction_type")
    for left, right in (("text", enum), (enum, "text"))
    for statement in (
        f"CREATE FUNCTION enum_text_eq({left}, {right}) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE "
        "RETURN $1::text = $2::text",
        f"CREATE FUNCTION enum_text_ne({left}, {right}) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE "
        "RETURN $1::text <> $2::text",
        f"CREATE OPERATOR = (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = enum_text_eq, COMMUTATOR = =, NEGATOR = <>, "
        "RESTRICT = eqsel, JOIN = eqjoinsel)",
        f"CREATE OPERATOR <> (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = enum_text_ne, COMMUTATOR = <>, NEGATOR = =, "
        "RESTRICT = neqsel, JOIN = neqjoinsel)",
    )
]

# What the enum cannot hold. A room without a row has no label and is in use.
ROOMS = """
CREATE TABLE rooms (
    room text NOT NULL,
    label text,
    retired_at timestamptz,
    CONSTRAINT pk_rooms PRIMARY KEY (room),
    CONSTRAINT ck_rooms_room CHECK (room::room_type IS NOT NULL),
    CONSTRAINT ck_rooms_label CHECK (label <> '')
)
"""

# As occupancy_db/schema/privileges.sql, for users that exist already.
PRIVILEGES = """
DO $$
DECLARE
    client name;
    operator regprocedure;
BEGIN
    FOR client IN SELECT rolname FROM pg_roles WHERE rolname IN ('occupancy_app', 'occupancy_readonly') LOOP
        FOR operator IN SELECT oid FROM pg_proc WHERE proname IN ('enum_text_eq', 'enum_text_ne') LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', operator, client);
        END LOOP;
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON rooms FROM %I', client);
    END LOOP;
END
$$
"""

HOUR = "date_bin('1 hour', timestamp, 'epoch')"

SUMS = """
    count(*) AS reading_count,
    sum(confidence) AS confidence_sum,
    min(timestamp) AS first_reading,
    max(timestamp) AS last_reading
"""

# "occhours" in ASCII.
LOCK = int.from_bytes(b"occhours")

VIEWS = ("room_occupancy_status", "latest_readings", "sensor_reading_stats", "hourly.open")

# {room} is the column as text, or as the enum in the previous revision.
OPEN = f"""
CREATE VIEW hourly.open AS
SELECT {HOUR} AS hour, {{room}} AS room, zone, {SUMS}
FROM public.sensor_readings
WHERE timestamp >= (SELECT closed_before FROM hourly.watermark) AND timestamp <= 'infinity'
GROUP BY {HOUR}, room, zone
UNION ALL
SELECT marked.hour, recount.*
FROM (
    SELECT DISTINCT hour FROM hourly.marks WHERE hour < (SELECT closed_before FROM hourly.watermark)
) AS marked
CROSS JOIN LATERAL (
    SELECT {{room}} AS room, zone, {SUMS}
    FROM public.sensor_readings
    WHERE timestamp >= marked.hour AND timestamp < marked.hour + interval '1 hour'
    GROUP BY sensor_readings.room, zone
) AS recount
"""

STATS = """
CREATE VIEW sensor_reading_stats AS
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

# A loose index scan on hourly.sums that takes the latest hour of each zone, combined with the open hours. The marks are an
# array because NOT EXISTS would become a hash join over all hours of a zone.
NEWEST = """
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
"""

# The newest stored reading of each zone, found by the primary key.
LATEST = f"""
CREATE VIEW latest_readings AS
{NEWEST}
SELECT
    newest.room,
    newest.zone,
    newest.timestamp,
    latest.state,
    latest.confidence,
    latest.source_entity,
    now() - newest.timestamp AS age
FROM newest
CROSS JOIN LATERAL (
    SELECT reading.state, reading.confidence, reading.source_entity
    FROM sensor_readings AS reading
    WHERE reading.timestamp = newest.timestamp AND reading.room = newest.room AND reading.zone = newest.zone
    ORDER BY reading.id DESC
    LIMIT 1
) AS latest
"""

# The evidence for "occupied" is the newest reading of a zone that is active, that for "vacant" the newest reading.
STATUS = """
CREATE VIEW room_occupancy_status AS
SELECT
    room,
    active_zones,
    total_zones,
    last_update,
    avg_confidence,
    CASE WHEN active_zones > 0 THEN 'occupied' ELSE 'vacant' END AS occupancy_status,
    now() - evidence AS evidence_age,
    now() - evidence > interval '24 hours' AS is_stale
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

# An update marks only the hours whose sums change. A room that was retired takes no reading from that time on.
MARK = f"""
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
    PERFORM pg_advisory_xact_lock_shared({LOCK});
    -- Looks after the lock is held, so it sees what was closed before. A transaction with one snapshot for
    -- all would not see it, and marks every hour.
    SELECT CASE current_setting('transaction_isolation') WHEN 'read committed' THEN closed_before ELSE 'infinity' END
    INTO closed FROM hourly.watermark;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {HOUR} FROM written WHERE timestamp < closed;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO hourly.marks SELECT DISTINCT {HOUR} FROM gone WHERE timestamp < closed;
    ELSE
        INSERT INTO hourly.marks SELECT DISTINCT {HOUR}
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

# The definition of revision 004, for the downgrade.
OLD_MARK = f"""
CREATE OR REPLACE FUNCTION hourly.mark() RETURNS trigger
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

# Predictions with another horizon stay, and the constraint stays NOT VALID.
VALIDATE_HORIZONS = """
DO $$
BEGIN
    ALTER TABLE predictions VALIDATE CONSTRAINT ck_predictions_horizon_minutes;
EXCEPTION WHEN check_violation THEN
    RAISE NOTICE 'predictions have other horizons than 15 and 120 minutes';
END
$$
"""

OLD_STATUS = f"""
CREATE VIEW room_occupancy_status AS
{NEWEST}
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


def upgrade() -> None:
    for statement in [*OPERATORS, ROOMS, PRIVILEGES]:
        op.execute(statement)
    for view in ("room_occupancy_status", "sensor_reading_stats", "hourly.open"):
        op.execute(f"DROP VIEW {view}")
    _convert_sums("text")
    for statement in [OPEN.format(room="sensor_readings.room::text"), STATS, LATEST, STATUS, MARK]:
        op.execute(statement)
    op.execute("ALTER TABLE predictions DROP CONSTRAINT ck_predictions_horizon_minutes")
    op.execute(
        "ALTER TABLE predictions ADD CONSTRAINT ck_predictions_horizon_minutes CHECK (horizon_minutes > 0) NOT VALID"
    )
    for table, columns in COLUMNS.items():
        for column, _, _ in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column}_text text")
        _keep_in_step(table, [column for column, _, _ in columns])
        for column, enum, required in columns:
            _check(
                table, f"{table}_{column}", f"{column}_text::{enum} IS NOT NULL", required, f"{column}_text"
            )
    for name, condition in COMPLETENESS.items():
        op.execute(
            f"ALTER TABLE predictions ADD CONSTRAINT ck_predictions_{name}_text CHECK ({condition}) NOT VALID"
        )


def downgrade() -> None:
    # Dropping a trigger of a partitioned table locks the partitions before the table, and clients lock the table first.
    op.execute("LOCK TABLE sensor_readings, room_transitions, predictions IN ACCESS EXCLUSIVE MODE")
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table, columns in COLUMNS.items():
        op.execute(f"DROP TRIGGER keep_in_step ON {table}")
        op.execute(f"DROP FUNCTION keep_{table}_in_step()")
        for column, _, _ in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column}_text")
    op.execute("ALTER TABLE predictions DROP CONSTRAINT ck_predictions_horizon_minutes")
    op.execute(
        "ALTER TABLE predictions ADD CONSTRAINT ck_predictions_horizon_minutes CHECK (horizon_minutes IN (15, 120)) NOT VALID"
    )
    op.execute(VALIDATE_HORIZONS)
    op.execute(OLD_MARK)
    op.execute("DROP TABLE rooms")
    _convert_sums("room_type")
    for statement in [OPEN.format(room="sensor_readings.room"), STATS, OLD_STATUS]:
        op.execute(statement)
    for enum in ("room_type", "prediction_type"):
        for arguments in (f"text, {enum}", f"{enum}, text"):
            op.execute(f"DROP OPERATOR = ({arguments})")
            op.execute(f"DROP OPERATOR <> ({arguments})")
            op.execute(f"DROP FUNCTION enum_text_eq({arguments})")
            op.execute(f"DROP FUNCTION enum_text_ne({arguments})")


def _convert_sums(type_name: str) -> None:
    for table in ("sums", "history"):
        op.execute(f"ALTER TABLE hourly.{table} ALTER COLUMN room TYPE {type_name} USING room::{type_name}")


def _keep_in_step(table: str, columns: list[str]) -> None:
    """Fill the new columns of rows that are written from now on."""
    assignments = " ".join(f"NEW.{column}_text := NEW.{column};" for column in columns)
    op.execute(
        f"CREATE FUNCTION keep_{table}_in_step() RETURNS trigger LANGUAGE plpgsql "
        "SET search_path = pg_catalog, public, pg_temp "
        f"AS $$ BEGIN {assignments} RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER keep_in_step BEFORE INSERT OR UPDATE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION keep_{table}_in_step()"
    )


def _check(table: str, name: str, condition: str, required: bool, column: str) -> None:
    """Check new rows; the next revision validates the constraints."""
    if required:
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{name} CHECK ({condition}) NOT VALID")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name}_filled CHECK ({column} IS NOT NULL) NOT VALID")
    else:
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{name} CHECK ({column} IS NULL OR {condition}) NOT VALID"
        )
