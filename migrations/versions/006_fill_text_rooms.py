"""Fill text rooms

Intent: fill the text columns of the rows that existed before revision 005, and build the indexes for readers on these columns.
Locks: SHARE UPDATE EXCLUSIVE on the tables of clients, and on one partition after the other: no session waits for it. The rows of a partition
    are rewritten within the partition, which is vacuumed meanwhile: it needs a tenth of a month on disk, and the
    new indexes. At most 40 seconds per million readings on two busy cores.
Reversible: yes: the indexes are dropped.
Phase: data.
Release: 0.2.0

docs/decisions/0030-indexes-for-readers.md has the measurements that led to these indexes.

Revision ID: 006_fill_text_rooms
Revises: 005_text_rooms
Create Date: 2026-11-26 17:10:00+00:00
"""

from alembic import op

from occupancy_db.schema import migration_ops

revision = "006_fill_text_rooms"
down_revision = "005_text_rooms"
branch_labels = None
depends_on = None

CONSTRAINTS = {
    "sensor_readings": ("ck_sensor_readings_room", "sensor_readings_room_filled"),
    "room_transitions": (
        "ck_room_transitions_from_room",
        "ck_room_transitions_to_room",
        "room_transitions_to_room_filled",
    ),
    "predictions": (
        "ck_predictions_horizon_minutes",
        "ck_predictions_room",
        "predictions_room_filled",
        "ck_predictions_prediction_type",
        "predictions_prediction_type_filled",
        "ck_predictions_occupancy_complete_text",
        "ck_predictions_vacancy_complete_text",
    ),
}

INDEXES = {
    # The newest readings of a room, and its readings of a range of time.
    "ix_sensor_readings_room_timestamp": ("sensor_readings", "(room_text, timestamp)"),
    # The same of a zone.
    "ix_sensor_readings_zone_timestamp": ("sensor_readings", "(zone, timestamp) INCLUDE (state)"),
    # One row by id: the ids of a month ascend in the order of its pages.
    "ix_sensor_readings_id": (
        "sensor_readings",
        "USING brin (id) WITH (pages_per_range = 16, autosummarize = on)",
    ),
    # As the indexes of these columns as enums, which revision 007 drops.
    "ix_room_transitions_rooms_text": ("room_transitions", "(from_room_text, to_room_text, timestamp DESC)"),
    "ix_predictions_room_text": (
        "predictions",
        "(room_text, prediction_type_text, prediction_made_at DESC)",
    ),
}


def upgrade() -> None:
    migration_ops.rewrite("sensor_readings", "room_text = room", "room_text IS NULL")
    migration_ops.rewrite(
        "room_transitions",
        "from_room_text = from_room, to_room_text = to_room",
        "to_room_text IS NULL",
    )
    migration_ops.rewrite(
        "predictions",
        "room_text = room, prediction_type_text = prediction_type",
        "room_text IS NULL",
    )
    for name, (table, definition) in INDEXES.items():
        migration_ops.create_index(name, table, definition)
    for table, names in CONSTRAINTS.items():
        for name in names:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
