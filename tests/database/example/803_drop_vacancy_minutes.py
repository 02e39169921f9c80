"""Drop the minutes of vacancy

Intent: one way to say how long a room will be vacant.
Locks: ACCESS EXCLUSIVE on predictions for a moment: nothing is read or rewritten.
Reversible: only without the minutes, which the way back leaves empty.
Phase: contract of 801_add_expected_vacancy.
Release: 0.3.0

Revision ID: 803_drop_vacancy_minutes
Revises: 802_fill_expected_vacancy
Create Date: 2026-11-23 00:02:00+00:00
"""

from alembic import op

revision = "803_drop_vacancy_minutes"
down_revision = "802_fill_expected_vacancy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP TRIGGER keep_vacancy_in_step ON predictions")
    op.execute("DROP FUNCTION keep_vacancy_in_step()")
    op.execute("ALTER TABLE predictions DROP COLUMN expected_vacancy_minutes")  # with its constraints
    op.execute(
        "ALTER TABLE predictions ADD CONSTRAINT ck_predictions_vacancy_complete "
        "CHECK (prediction_type <> 'vacancy' OR expected_vacancy IS NOT NULL) NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE predictions DROP CONSTRAINT ck_predictions_vacancy_complete")
    op.execute("ALTER TABLE predictions ADD COLUMN expected_vacancy_minutes double precision")
