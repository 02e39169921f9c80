"""Filters of role access: which users differ, and whether the .env file is current."""

from typing import Any

from provisioning import convergence


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {
            "access_logins": convergence.logins,
            "access_outdated": convergence.outdated_passwords,
            "access_users": convergence.users,
            "access_memberships": convergence.memberships,
            "access_env_password": convergence.env_password,
            "access_env_is_current": convergence.env_is_current,
        }
