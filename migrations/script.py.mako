<%!
import tomllib
from pathlib import Path

def release(config):
    """The version that this will be part of."""
    project = Path(config.config_file_name).with_name("pyproject.toml")
    return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "<version>"
%>"""${message}

Intent: <why the schema changes, in one sentence>
Locks: <the strongest lock taken on a table in use, on which, for how long; or none>
Reversible: <yes | only without …, and why | no, and why>
Phase: <expand | data | contract of the revision that expanded>
Release: ${release(config)}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision).replace("'", '"')}
down_revision = ${repr(down_revision).replace("'", '"')}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# The previous release must keep working while this revision runs and after it: see docs/migrations.md. To index a table in
# use, call migration_ops.create_index; to change rows, call migration_ops.backfill (from occupancy_db.schema import migration_ops).


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
