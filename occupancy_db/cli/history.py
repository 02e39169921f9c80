"""``occupancy-db history``."""

from rich.table import Table

from occupancy_db.cli.output import Json, out
from occupancy_db.schema.runner import script_directory


def history(json: Json = False) -> None:
    """List the migrations of this release, newest first; needs no server."""
    revisions = list(script_directory().walk_revisions())
    table = Table("Revision", "Revises", "What it does")
    for revision in revisions:
        table.add_row(revision.revision, str(revision.down_revision or "base"), revision.doc)
    out.result(
        {
            "revisions": [
                {
                    "revision": revision.revision,
                    "revises": revision.down_revision,
                    "description": revision.doc,
                }
                for revision in revisions
            ]
        },
        table,
    )
