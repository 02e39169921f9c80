"""Preflight's checks of the roles backup and retention: numbers to keep, and schedules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from provisioning.request import Problems, Request

SET_ID = r"-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
"""The part of a backup set's ID after the name of the database."""

_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY = (
    r"[0-5]?[0-9]", r"[01]?[0-9]|2[0-3]", r"0?[1-9]|[12][0-9]|3[01]", r"0?[1-9]|1[0-2]", r"[0-7]",
)  # fmt: skip


def _field(value: str) -> str:
    part = rf"(({value})|(\*|({value})-({value}))(/[1-9][0-9]?)?)"
    return rf"{part}(,{part})*"


SCHEDULE = re.compile(" +".join(_field(value) for value in (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)))
"""Five fields of crontab(5) in numbers. A field that cron cannot read makes it skip the whole file."""


def _wrong_schedules(request: Request, names: Iterable[str]) -> list[str]:
    return [request[name] for name in names if request[name] and not SCHEDULE.fullmatch(request[name])]


def check_backup(request: Request) -> list[str]:
    """The numbers of sets to keep, the schedules, copies to a remote, and the variables of a restore."""
    problem = Problems()
    keep = [request[f"backup_keep_{name}"] for name in ("hourly", "daily", "weekly", "monthly", "last")]
    problem(
        not all(0 <= number <= 1000 for number in keep) or keep[-1] == 0,
        "backup_keep_hourly, backup_keep_daily, backup_keep_weekly and backup_keep_monthly must be "
        "between 0 and 1000, "
        f"backup_keep_last between 1 and 1000; they are {', '.join(map(str, keep))}.",
    )
    names = [f"backup_{name}schedule" for name in ("", "verify_", "cleanup_", "check_", "offsite_")]
    wrong = _wrong_schedules(request, names)
    problem(
        wrong,
        f"{', '.join(names[:-1])} and {names[-1]} accept five fields of crontab(5) in numbers, or "
        "nothing. Not so: "
        f"{', '.join(wrong)}.",
    )
    if request["backup_offsite_remote"]:
        _check_offsite(request, problem)
    _check_restore(request, problem)
    return problem.found


def _check_offsite(request: Request, problem: Callable[[object, str], None]) -> None:
    remote, keep = request["backup_offsite_remote"], request["backup_offsite_keep"]
    # The remote is written to a crontab, where a space or % would end it.
    problem(
        not re.fullmatch(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_./-]+/[A-Za-z0-9_.-]+", f"{remote}/{request.hostname}"),
        "backup_offsite_remote must be remote:path, of letters, digits and _.-/ (the host's inventory "
        "name is added to it), "
        f"and is {remote}.",
    )
    section = f"[{remote.split(':')[0]}]"
    problem(
        section not in request["backup_offsite_config"].splitlines(),
        f"backup_offsite_config must be an rclone.conf with the section {section}.",
    )
    recipients = request["backup_offsite_age_recipients"]
    problem(
        not 1 <= len(recipients) <= 8
        or not all(re.fullmatch(r"age1[0-9a-z]{58}", each) for each in recipients),
        "Copies are encrypted: backup_offsite_age_recipients must hold one to eight public keys of age "
        "(age1…), as "
        "age-keygen prints them beside the private key, which stays with you.",
    )
    problem(not 1 <= keep <= 10000, f"backup_offsite_keep must be between 1 and 10000, and is {keep}.")


def _check_restore(request: Request, problem: Callable[[object, str], None]) -> None:
    database, given = request["occupancy_database"], request.variables.get("restore_confirm")
    if given in [one["name"] for one in request["occupancy_extra_databases"]]:
        database = given  # what is confirmed is what is restored
    chosen = str(request.variables.get("restore_set") or "")
    none = f" ('{chosen}' is none)" if chosen else ""
    problem(
        "restore" in request.tags and not re.fullmatch(rf"latest|{re.escape(database)}{SET_ID}", chosen),
        f"Which set is to be restored? Add -e restore_set=latest, or the ID of a set of {database} as "
        "'sudo occupancy-db "
        f"backup list' on the host shows them{none}.",
    )
    if not {"restore", "restore-rollback"} & set(request.tags):
        return
    problem(
        given != database,
        f"The database {database} is going to be replaced: confirm it with -e restore_confirm={database}.",
    )
    problem(
        len(request.hosts) > 1,
        f"It would be done on {len(request.hosts)} hosts: choose one, with --limit {request.hostname}.",
    )


def check_retention(request: Request) -> list[str]:
    """The months to keep, and the schedules."""
    problem = Problems()
    months = [request[f"retention_{name}months"] for name in ("", "transitions_", "predictions_")]
    problem(
        not all(1 <= number <= 1200 for number in months),
        "retention_months, retention_transitions_months and retention_predictions_months must be between "
        "1 and 1200, and "
        f"are {', '.join(map(str, months))}.",
    )
    ahead = request["retention_months_ahead"]
    problem(not 1 <= ahead <= 24, f"retention_months_ahead must be between 1 and 24, and is {ahead}.")
    back = request["retention_months_back"]
    problem(not 0 <= back <= 120, f"retention_months_back must be between 0 and 120, and is {back}.")
    names = ["retention_maintain_schedule", "retention_cleanup_schedule"]
    wrong = _wrong_schedules(request, names)
    problem(
        wrong,
        f"{' and '.join(names)} accept five fields of crontab(5) in numbers, or nothing. Not so: "
        f"{', '.join(wrong)}.",
    )
    return problem.found
