"""Filters of role access: which users differ, and which .env files."""

from typing import Any

from provisioning import convergence, env_file, host_checks, other_databases


def misnamed(databases: dict[str, Any], wanted: str, test: str) -> str:
    """What to do where the cluster has the rows under another name than `wanted`; empty where it has not."""
    return host_checks.rename(host_checks.owned(databases, wanted, test), wanted)


class FilterModule:
    """The filters that Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """The functions by filter name."""
        return {
            "access_logins": convergence.logins,
            "access_generated": convergence.generated_passwords,
            "access_misnamed": misnamed,
            "access_limits": convergence.limits,
            "access_left_databases": other_databases.left,
            "access_outdated": convergence.outdated_passwords,
            "access_users": convergence.users,
            "access_memberships": convergence.memberships,
            "access_env": env_file.assign,
            "access_env_with_password": convergence.env_with_password,
            "access_outdated_env_files": convergence.outdated_env_files,
        }
