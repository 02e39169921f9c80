"""Filters of role tls."""

from typing import Any

from provisioning import convergence


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {"tls_certificate_names": convergence.certificate_names}
