#!/usr/bin/env python3
"""Run the test stages of a level and print a summary: run_tests.py {test,test-all,test-full} [STAGE].

`make test`, `make test-all` and `make test-full` call this program. Every stage runs, also after another one
has failed. The output of each stage is shown as it comes, and kept in .cache/test/<stage>.log. The exit code
is 0 if every stage passed, 1 if one failed, 2 if there is no such stage, and 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "test"

LEVELS = ("test", "test-all", "test-full")
"""From the smallest to the largest; each level has the stages of those before it."""

WORKERS = str(max(2, min(4, os.cpu_count() or 2)))
"""Processes of pytest-xdist. Each has its own PostgreSQL server."""
PYTEST = ("pytest", "-q", "-r", "fEs", "--numprocesses", WORKERS, "--dist", "worksteal")


@dataclass(frozen=True)
class Stage:
    """One part of the tests.

    Attributes:
        name: The value of STAGE that selects it.
        checks: What the stage checks, for the summary.
        command: The command of the stage.
        level: The smallest level that has the stage.
        full: The command at the level test-full, where it differs.
        environment: Variables of the command, by level.
    """

    name: str
    checks: str
    command: tuple[str, ...]
    level: str = "test"
    full: tuple[str, ...] = ()
    full_environment: tuple[tuple[str, str], ...] = ()


def _molecule(name: str, checks: str, level: str, scenario: str = "") -> Stage:
    command = ("molecule", "test", "--scenario-name", scenario or name)
    return Stage(name, checks, command, level)


STAGES = (
    Stage(
        "images",
        "the container images can be built or pulled on this machine",
        ("ansible-playbook", "playbooks/images.yml"),
    ),
    Stage("lint", "all linters, type checks and rules for migrations", ("scripts/lint.sh",)),
    Stage("unit", "functions, roles and documents, without a server", (*PYTEST, "tests/unit")),
    Stage(
        "database",
        "schema, tools and client library with a real PostgreSQL server; notifications with real receivers",
        (*PYTEST, "--durations", "15", "tests/database", "tests/notify"),
        full_environment=(("OCCUPANCY_IMPORT_ROWS", "1000000"),),
    ),
    Stage(
        "clients",
        "clients of each kind, as the application, over verified TLS to the server image",
        ("pytest", "-q", "-r", "fEs", "tests/clients"),
    ),
    Stage(
        "faults",
        "damaged backup sets and interrupted commands lose nothing (a sample; all in test-full)",
        (*PYTEST, "--sample", "tests/faults"),
        full=(*PYTEST, "--durations", "15", "tests/faults"),
    ),
    Stage(
        "clocks",
        "a clock that jumps before or during a job loses nothing (a sample; all in test-full)",
        (*PYTEST, "--sample", "tests/clocks"),
        full=(*PYTEST, "--durations", "15", "tests/clocks"),
    ),
    Stage(
        "hostile",
        "no user of the product stops writers, upkeep or backups (a sample; all in test-full)",
        (*PYTEST, "--sample", "tests/hostile"),
        full=(*PYTEST, "--durations", "15", "tests/hostile"),
    ),
    _molecule("debian13", "a new Debian 13 host and every promise of its database", "test", "default"),
    _molecule("debian12", "a new Debian 12 host", "test-all"),
    _molecule("backup", "backups by cron, copies elsewhere, restores, a lost host", "test-all"),
    _molecule("fleet", "a release that comes to three hosts in use", "test-all"),
    _molecule("ssh", "hosts over SSH with a sudo password, images from registries", "test-all"),
    _molecule("upgrade", "a host of release 0.1.0 with data becomes one of this version", "test-all"),
    _molecule("documents", "the commands of the documents, on a provisioned host", "test-full"),
)


@dataclass
class Result:
    """The result of a stage.

    Attributes:
        stage: The stage.
        code: Its exit code.
        seconds: How long it took.
        passed: Checks that passed.
        failed: Checks that failed.
        skipped: What was not checked, each with its reason.
        failures: The tests that failed, each with the first line of its reason.
    """

    stage: Stage
    code: int
    seconds: float
    passed: int
    failed: int
    skipped: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def stages(level: str, only: str = "") -> list[Stage]:
    """The stages of a level in their order, or the one that is named.

    Raises:
        KeyError: There is no such stage at this level.
    """
    included = LEVELS[: LEVELS.index(level) + 1]
    found = [stage for stage in STAGES if stage.level in included and only in ("", stage.name)]
    if not found:
        raise KeyError(only)
    return found


COUNT = re.compile(r"\b(\d+) (passed|failed|skipped|errors?)\b")
# The last line of pytest ("1 failed, 119 passed in 4.2s") or of lint.sh ("7 passed, 0 failed"). Molecule also
# prints lines with counts, of scenarios.
TOTAL = re.compile(r"^=* ?(?:\d+ [a-z]+(?:, )?)+(?: in [\d.]+s.*)?$")
SKIPPED = re.compile(
    r"^(?:SKIPPED \[(?P<count>\d+)\] (?P<test>.+)|lint: skipped (?P<check>.+))$", re.MULTILINE
)

FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+::.+)$", re.MULTILINE)
SHOWN_FAILURES = 20
"""How many failed tests of a stage the summary names; all are in the log."""


def count(output: str, code: int) -> tuple[int, int, list[str]]:
    """Read from a stage's output how many checks passed and failed, and which were skipped and why.

    Args:
        output: All that the stage printed.
        code: Its exit code. A stage without counts is one check.
    """
    numbers: dict[str, int] = {}
    for line in output.splitlines():  # the last line with numbers is the total
        if TOTAL.match(line.strip()) and (found := COUNT.findall(line)):
            numbers = {}
            for number, word in found:
                numbers[word.rstrip("s")] = numbers.get(word.rstrip("s"), 0) + int(number)
    failed = numbers.get("failed", 0) + numbers.get("error", 0)
    if code != 0:
        failed = max(failed, 1)
    passed = numbers.get("passed", 0) if numbers else int(code == 0)
    skipped = [
        match["check"] or f"{match['test']}{f' ({n} times)' if (n := match['count']) != '1' else ''}"
        for match in SKIPPED.finditer(output)
    ]
    return passed, failed, skipped


def run(stage: Stage, level: str, show: Callable[[str], object]) -> Result:
    """Run one stage; its output goes to `show`, line by line, and to its log."""
    full = level == "test-full"
    command = stage.full if full and stage.full else stage.command
    variables = dict(stage.full_environment) if full else {}
    environment = os.environ | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | variables
    LOGS.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    show(f"== {stage.name}: {' '.join(command)}\n")
    lines = []
    with (
        (LOGS / f"{stage.name}.log").open("w") as log,
        subprocess.Popen(  # noqa: S603 - the commands of STAGES
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            show(line)
            log.write(line)
            lines.append(line)
        code = process.wait()
    seconds = time.monotonic() - start
    output = "".join(lines)
    passed, failed, skipped = count(output, code)
    ended = "passed" if code == 0 else f"FAILED with exit code {code}"
    show(f"== {stage.name} {ended} after {seconds:.0f} s\n\n")
    return Result(stage, code, seconds, passed, failed, skipped, FAILURE.findall(output))


def summary(results: Sequence[Result], not_run: Iterable[Stage] = ()) -> str:
    """The table by stage, skipped checks and why, what failed and its logs, and last the totals."""
    width = max(len(stage.name) for stage in STAGES)
    lines = [f"{'Stage':{width}}  Result   Seconds  Passed  Failed  Skipped  What is checked"]
    for one in results:
        word = "passed" if one.code == 0 else "FAILED"
        counts = f"{one.passed:6}  {one.failed:6}  {len(one.skipped):7}"
        lines.append(f"{one.stage.name:{width}}  {word:7}  {one.seconds:7.0f}  {counts}  {one.stage.checks}")
    lines += [f"{stage.name:{width}}  not run" for stage in not_run]
    lines.append(f"{'total':{width}}  {'':7}  {sum(one.seconds for one in results):7.0f}")
    if any(one.skipped for one in results):
        lines += ["", "Skipped, with the reason:"]
        lines += [f"  {one.stage.name}: {reason}" for one in results for reason in one.skipped]
    if failures := [one for one in results if one.code != 0]:
        lines += ["", "The stages that failed, with their output and the first failed tests:"]
        for one in failures:
            lines.append(f"  {(LOGS / one.stage.name).relative_to(ROOT)}.log")
            lines += [f"    {test}" for test in one.failures[:SHOWN_FAILURES]]
    skipped = sum(len(one.skipped) for one in results)
    lines += ["", f"{sum(one.passed for one in results)} passed, {sum(one.failed for one in results)} failed"]
    lines[-1] += f", {skipped} skipped" if skipped else ""
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the stages that the arguments select, print the summary, and return the exit code."""
    parser = argparse.ArgumentParser(description="Run the test stages of a level.")
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("stage", nargs="?", default="", help="run this stage only")
    chosen = parser.parse_args(arguments)
    try:
        selected = stages(chosen.level, chosen.stage)
    except KeyError:
        names = ", ".join(stage.name for stage in stages(chosen.level))
        print(f"make {chosen.level} has no stage {chosen.stage!r}; its stages are: {names}", file=sys.stderr)
        return 2

    def show(text: str) -> None:
        print(text, end="", flush=True)

    results: list[Result] = []
    try:
        for stage in selected:
            results.append(run(stage, chosen.level, show))
    except KeyboardInterrupt:
        print(f"\n{summary(results, selected[len(results) :])}")
        return 130
    print(summary(results))
    return int(any(one.code != 0 for one in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
