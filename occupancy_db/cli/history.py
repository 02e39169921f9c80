"""``occupancy-db history``."""

from occupancy_db.cli.output import Json, out
from occupancy_db.cli.table import Column, Table
from occupancy_db.schema.runner import script_directory


def history(json: Json = False) -> None:
    """List the migrations of this release, newest first.

    The command connects to no server.
    """
    revisions = list(script_directory().walk_revisions())
    table = Table([Column("Revision", rank=0), Column("Revises", rank=2), Column("What it does")])
    for revision in revisions:
        table.add(revision.revision, revision.down_revision or "base", revision.doc)
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
