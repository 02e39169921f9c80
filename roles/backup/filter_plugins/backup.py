"""Filters of the role backup: provisioning.signing_keys, from a playbook."""

from __future__ import annotations

from typing import Any

from provisioning import signing_keys


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {"backup_public_keys": signing_keys.merge}
