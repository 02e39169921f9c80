"""Filters of role tls: the operator's own certificate."""

from typing import Any

from provisioning import certificates


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {"tls_offered": certificates.offered, "tls_problems": certificates.find_problems}
