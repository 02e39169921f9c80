"""What is sent, and when: the rules, without files, network or a clock of their own.

A message is written when a check turns bad, once a day while one is bad, and when it is good again. A warning
alone causes none: messages about bad checks list the warnings, and the status shows them at any time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.model import Check, Level, Result, Status
from occupancy_db.notify.state import Message, Problem, State

AGAIN = timedelta(days=1)
"""How often a check that stays bad is reported."""

FRESH = timedelta(minutes=5)
"""How old results may be at least: one and a half intervals. The job makes them immediately before."""

CHECKS_RUN = "checks_run"
"""The name of the check that there are new results."""

LONGEST = 300
"""Characters of one line of a message."""

SHOWN = 15
"""Checks of one kind that a message lists."""

_TITLES: dict[str, Check] = {check.name: check for check in CHECKS}
_RUN = Check(
    name=CHECKS_RUN,
    title="the checks themselves",
    unit="",
    warning=None,
    bad=None,
    reason="",
    action="sudo occupancy-db status",
    page="",
)


@dataclass(frozen=True)
class Report:
    """The results of this run.

    Attributes:
        status: The results; None if there are none that can be used.
        missing: Why there are none, as a sentence for a message.
    """

    status: Status | None
    missing: str = ""


def read(text: str | None, now: datetime) -> Report:
    """Read the document of results, and judge its age.

    Args:
        text: ``status.json``; None if it does not exist.
        now: The present time.
    """
    if text is None:
        return Report(None, "there are no results: the checks have not run")
    try:
        status = Status.from_json(text)
    except ValueError:
        return Report(None, "the results of the checks are damaged")
    if status.time.tzinfo is None:
        status = replace(status, time=status.time.replace(tzinfo=UTC))
    fresh = max(FRESH, timedelta(seconds=1.5 * status.interval))
    if status.time > now + fresh:
        # The checks write a new document when they run: this one is from before the clock was changed.
        set_back = f"since the clock was set back from {moment(status.time)}"
        return Report(None, f"the checks have not run {set_back}")
    if status.time < now - fresh:
        return Report(None, f"the checks have not run since {moment(status.time)}")
    return Report(status)


def decide(state: State, report: Report, now: datetime, receivers: Sequence[str], host: str) -> State:
    """Add the message of this run to the state, if there is one.

    Args:
        state: What the last run has left.
        report: The results of this run.
        now: The present time.
        receivers: The keys of those who get a message.
        host: Name of the host until a document names it.
    """
    state = replace(state, host=report.status.host if report.status else state.host or host)
    results = report.status.results if report.status else ()
    if report.missing:
        results = (*results, Result(CHECKS_RUN, Level.BAD, report.missing))
    bad = [one for one in results if one.level is Level.BAD]
    names = {one.name for one in bad}
    problems, over = _without(state.problems, names, report)
    new = [one for one in bad if one.name not in problems]
    # A time in the future is from before the clock was set back: it must not silence anything.
    due = any(not timedelta() <= now - problems[name].told < AGAIN for name in names & set(problems))
    if not (new or over or due):
        return replace(state, problems=problems)
    still = [one for one in bad if one.name in problems]
    told = {one.name: Problem(now) for one in bad}
    text = _text(state, now, new, still, [_found(name, results) for name in over], results)
    message = Message(now, "failure" if bad else "success", _title(state, bad), text, tuple(receivers))
    dropped = state.dropped if state.queue else 0  # a message that was delivered has said so
    return replace(state, problems=problems | told, dropped=dropped).add(message)


def _without(
    problems: dict[str, Problem], bad: set[str], report: Report
) -> tuple[dict[str, Problem], list[str]]:
    """The problems that go on, and the names of those that are over: not bad in two documents.

    A check that changes at every run would otherwise cause a message at every run.
    """
    kept, over = {}, []
    for name, problem in problems.items():
        if name in bad:
            kept[name] = replace(problem, better=None)
        elif report.status is None or problem.better == report.status.time:
            kept[name] = problem
        elif problem.better is None:
            kept[name] = replace(problem, better=report.status.time)
        else:
            over.append(name)
    return kept, over


def _found(name: str, results: Iterable[Result]) -> Result:
    """The result of a check that is over; the check may be gone."""
    if name == CHECKS_RUN:
        return Result(name, Level.GOOD, "the checks run again")
    return next(
        (one for one in results if one.name == name), Result(name, Level.SKIPPED, "it is no longer checked")
    )


def _title(state: State, bad: Sequence[Result]) -> str:
    if not bad:
        return f"{state.host}: good again"
    return f"{state.host}: {len(bad)} {'check is' if len(bad) == 1 else 'checks are'} bad"


def _text(
    state: State,
    now: datetime,
    new: Sequence[Result],
    still: Sequence[Result],
    over: Sequence[Result],
    results: Iterable[Result],
) -> str:
    named = {one.name for one in over}
    warnings = [one for one in results if one.level is Level.WARNING and one.name not in named]
    lines = [
        *_section("Bad", new, action=True),
        *_section("Still bad", still, action=True),
        *_section("No longer bad", over),
        *_section("Warnings", warnings),
    ]
    if state.dropped:
        lines.append(f"Earlier messages that reached nobody and were dropped: {state.dropped}.")
    lines.append(f"Found on {state.host} at {moment(now)}. All checks: sudo occupancy-db status")
    return "\n".join(lines)


def _section(heading: str, results: Sequence[Result], *, action: bool = False) -> list[str]:
    if not results:
        return []
    lines = [f"{heading}:"]
    for one in results[:SHOWN]:
        check = _RUN if one.name == CHECKS_RUN else _TITLES.get(one.name)
        lines.append(line(f"- {check.title if check else one.name}: {one.summary}"))
        if action and check and check.action:
            lines.append(line(f"  What helps: {check.action}"))
    if len(results) > SHOWN:
        lines.append(f"- and {len(results) - SHOWN} more")
    return [*lines, ""]


def line(text: str) -> str:
    """The text on one line of bounded length, without control characters."""
    kept = "".join(one if one.isprintable() else " " for one in text)
    return kept if len(kept) <= LONGEST else f"{kept[: LONGEST - 1]}…"


def moment(at: datetime) -> str:
    """A time for a message, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
