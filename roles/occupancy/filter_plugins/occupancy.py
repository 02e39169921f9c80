"""Filters of role occupancy: preflight, and what differs on a host."""

from typing import Any

from provisioning import accounts, convergence, other_databases, preflight, project, restarts, run_tags
from provisioning.variables import load_specs


def problems(request: dict[str, Any]) -> list[str]:
    """The problems that preflight finds; see provisioning.preflight.problems."""
    return preflight.problems(request, load_specs())


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {
            "occupancy_problems": problems,
            "occupancy_foreign_accounts": accounts.foreign,
            "occupancy_missing_accounts": accounts.missing,
            "occupancy_former": project.former,
            "occupancy_tunes_alone": run_tags.tunes_alone,
            "occupancy_tuned": convergence.tuned,
            "occupancy_differing": convergence.differing,
            "occupancy_restart_reasons": restarts.reasons,
            "occupancy_other_databases": other_databases.complete,
            "occupancy_other_owners": other_databases.owners,
        }
