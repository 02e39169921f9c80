"""Filters of role tuning: the plan for a host, and what to do with kernel settings."""

from typing import Any

from provisioning import convergence, tuning_plan


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {"tuning_plan": tuning_plan.plan, "tuning_kernel": convergence.kernel}
