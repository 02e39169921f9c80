"""Add expected_vacancy

Intent: how long a room will be vacant as an interval, in place of a number of minutes.
Locks: ACCESS EXCLUSIVE on predictions for a moment: the column is empty.
Reversible: yes: until the minutes go, they say the same.
Phase: expand.
Release: 0.2.0

Revision ID: 801_add_expected_vacancy
Revises: HEAD_OF_THE_RELEASE
Create Date: 2026-11-23 00:00:00+00:00
"""

from alembic import op

revision = "801_add_expected_vacancy"
down_revision = "HEAD_OF_THE_RELEASE"
branch_labels = None
depends_on = None

# The release before writes minutes, this one writes intervals, and both run for a while: each row gets both.
KEEP_IN_STEP = """
CREATE FUNCTION keep_vacancy_in_step() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF NEW.expected_vacancy IS NULL THEN
        NEW.expected_vacancy := NEW.expected_vacancy_minutes * interval '1 minute';
    ELSIF NEW.expected_vacancy_minutes IS NULL THEN
        NEW.expected_vacancy_minutes := extract(epoch FROM NEW.expected_vacancy) / 60;
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE predictions ADD COLUMN expected_vacancy interval")
    op.execute(KEEP_IN_STEP)
    op.execute(
        "CREATE TRIGGER keep_vacancy_in_step BEFORE INSERT ON predictions "
        "FOR EACH ROW EXECUTE FUNCTION keep_vacancy_in_step()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_vacancy_in_step ON predictions")
    op.execute("DROP FUNCTION keep_vacancy_in_step()")
    op.execute("ALTER TABLE predictions DROP COLUMN expected_vacancy")
