"""Filters of role access: which users differ, and which .env files."""

from typing import Any

from provisioning import convergence, env_file, other_databases


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {
            "access_logins": convergence.logins,
            "access_left_databases": other_databases.left,
            "access_outdated": convergence.outdated_passwords,
            "access_users": convergence.users,
            "access_memberships": convergence.memberships,
            "access_env": env_file.assign,
            "access_env_with_password": convergence.env_with_password,
            "access_outdated_env_files": convergence.outdated_env_files,
        }
