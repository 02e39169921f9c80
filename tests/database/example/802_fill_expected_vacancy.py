"""Fill expected_vacancy

Intent: existing rows get their interval, and an index finds long ones.
Locks: SHARE UPDATE EXCLUSIVE on predictions, which does not block readers and writers.
Reversible: yes: only the index is removed.
Phase: data.
Release: 0.2.0

Revision ID: 802_fill_expected_vacancy
Revises: 801_add_expected_vacancy
Create Date: 2026-11-23 00:01:00+00:00
"""

from occupancy_db.schema import migration_ops

revision = "802_fill_expected_vacancy"
down_revision = "801_add_expected_vacancy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migration_ops.backfill(
        "predictions",
        "expected_vacancy = expected_vacancy_minutes * interval '1 minute'",
        "expected_vacancy IS NULL AND expected_vacancy_minutes IS NOT NULL",
    )
    migration_ops.create_index(
        "ix_predictions_expected_vacancy",
        "predictions",
        "(room, expected_vacancy) WHERE expected_vacancy IS NOT NULL",
    )


def downgrade() -> None:
    migration_ops.drop_index("ix_predictions_expected_vacancy")
