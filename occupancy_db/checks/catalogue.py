"""The list of checks."""

from occupancy_db.checks.model import Check

CHECKS: tuple[Check, ...] = (
    Check(
        name="server",
        title="server answers",
        unit="",
        warning=None,
        bad=None,
        reason="nothing is written or read without it",
        action="sudo docker logs --tail 50 occupancy-postgres-1",
        page="troubleshooting.md",
    ),
    Check(
        name="backup_age",
        title="newest verified backup set",
        unit="seconds",
        warning=2 * 3600,
        bad=6 * 3600,
        reason="what is newer is lost with the disk",
        action="sudo occupancy-db backup create",
        page="backup.md",
    ),
)
"""In the order in which equally good results are shown, with the default thresholds."""
