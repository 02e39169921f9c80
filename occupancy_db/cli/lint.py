"""``occupancy-db lint``."""

from dataclasses import asdict

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.errors import ExitCode
from occupancy_db.schema import lint as linting
from occupancy_db.schema.runner import alembic_config, script_directory


def lint(json: Json = False) -> None:
    """Check the migrations for statements that block or break a running system.

    The command needs squawk, and connects to no server.
    """
    findings = linting.lint(alembic_config())
    count = len(list(script_directory().walk_revisions()))
    out.result(
        {"revisions": count, "findings": [asdict(finding) for finding in findings]},
        *(f"{finding.revision}: {finding.rule}: {finding.what}" for finding in findings),
        f"{len(findings)} findings in {count} revisions",
    )
    if findings:
        raise typer.Exit(ExitCode.FAILED)
