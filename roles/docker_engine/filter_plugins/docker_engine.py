"""The filter that judges a host's engine: provisioning.engine, from a playbook."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from provisioning import engine


def judge(lines: list[str], buildx: bool, packages: list[str]) -> dict[str, Any]:
    """The result of provisioning.engine.judge for the role's variables."""
    verdict = engine.judge(lines, buildx=buildx, chosen=bool(packages))
    return {**asdict(verdict), "usable": verdict.usable}


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {"docker_engine_verdict": judge}
