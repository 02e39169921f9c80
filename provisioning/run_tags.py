"""The tags that the playbooks know. Ansible runs nothing for an unknown tag and ends with success."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

ROLES = (
    "access", "backup", "docker_engine", "migrations", "postgres", "retention", "tls", "tuning",
)  # fmt: skip
"""Each selects a role of playbooks/site.yml."""

JOBS = ("migrate", "restore", "restore-rollback", "rotate-passwords", "rotate-signing", "rotate-tls")
"""Each selects a task for an operator."""

SPECIAL = ("all", "always", "never", "tagged", "untagged")
"""Tags of Ansible."""

MOLECULE = ("molecule-idempotence-notest", "molecule-notest", "notest")
"""Molecule passes these to --skip-tags in every run."""

MIGRATIONS = frozenset({"migrate", "migrations"})
"""Alone, they select playbooks/migrate.yml."""


def unknown(tags: Sequence[str]) -> str:
    """Return the problem of unknown tags, with the nearest known ones; empty if all are known.

    Args:
        tags: The tags of --tags and --skip-tags.
    """
    known = (*ROLES, *JOBS, *SPECIAL, *MOLECULE)
    problems = []
    for tag in tags:
        if tag in known:
            continue
        near = difflib.get_close_matches(tag, known, 1)
        problems.append(f"there is no tag {tag}" + (f" (did you mean {near[0]}?)" if near else ""))
    if not problems:
        return ""
    text = "; ".join(problems)
    return f"{text[0].upper()}{text[1:]}. The tags are {', '.join(sorted((*ROLES, *JOBS)))}."


def only_migrations(tags: Sequence[str]) -> bool:
    """Whether a run is for the migrations of a release alone, which go to the hosts in batches.

    Args:
        tags: The tags of --tags.
    """
    return set(tags) <= MIGRATIONS


def migrations_and_others(tags: Sequence[str]) -> bool:
    """Whether a run is for migrations and for something else, which is refused.

    Args:
        tags: The tags of --tags.
    """
    return bool(set(tags) & MIGRATIONS) and not only_migrations(tags)
