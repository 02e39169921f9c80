"""The tags that the playbooks know. Ansible runs nothing for an unknown tag and ends with success."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

ROLES: dict[str, str] = {
    "access": "users, passwords, databases, privileges; the CA and the `.env` files on the controller",
    "backup": "keys, schedules, numbers of sets and copies elsewhere; then takes a verified backup",
    "checks": "the interval and thresholds of the checks",
    "docker_engine": "the Docker Engine, if it is missing or stopped",
    "migrations": "the same as `migrate`",
    "monitoring": "the exporters for Prometheus, and its configuration on the controller",
    "notify": "who gets messages about checks, and the heartbeat",
    "postgres": "configuration, container, unit and image of the server, which may restart",
    "retention": "the policy and schedules of the upkeep, which runs once",
    "tls": "the certificate and the schedule of its renewal; the server reloads",
    "tuning": "kernel, the server's settings and limits, connection limits of users; the server may restart",
}
"""What each tag changes that selects a role of playbooks/site.yml."""

JOBS: dict[str, str] = {
    "migrate": "the files of the release on the host, and the schema",
    "restore": "the contents of the database",
    "restore-rollback": "the contents of the database",
    "rotate-passwords": "the generated passwords, in the `.env` files on the controller, too",
    "rotate-signing": "the key that signs backup sets",
    "rotate-tls": "the same as `tls`, with a new certificate in any case",
}
"""What each tag changes that selects a task for an operator."""

IMAGES = frozenset({"all", "migrate", "migrations", "postgres", "tagged", "tuning"})
"""The tags of a run that brings images to the hosts. The others work with what a host has."""

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


def brings_images(tags: Sequence[str]) -> bool:
    """Whether a run brings the images of this release to the hosts.

    Args:
        tags: The tags of --tags.
    """
    return bool(IMAGES & set(tags))


def tunes_alone(tags: Iterable[str]) -> bool:
    """Whether a run changes the server for the tag tuning only.

    Args:
        tags: The tags of --tags.
    """
    return "tuning" in (given := set(tags)) and not given & {"all", "postgres", "tagged"}


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
