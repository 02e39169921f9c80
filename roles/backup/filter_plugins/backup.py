"""Filters of the role backup: the keys that sign sets, and what differs on a host."""

from __future__ import annotations

from typing import Any

from provisioning import convergence, signing_keys


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "backup_keep_differing": convergence.keep_differing,
            "backup_public_keys": signing_keys.merge,
        }
