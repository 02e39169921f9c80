"""The runner of the test stages: what it runs, what it counts, and how it ends."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import run_tests
from scripts.run_tests import Stage, count, main, stages, summary

Use = Callable[..., None]

PYTEST = """\
......s..                                                [100%]
SKIPPED [2] tests/unit/test_a.py:7: no Docker here
=========================== short test summary info ============================
FAILED tests/unit/test_a.py::test_b - assert 1 == 2
1 failed, 5 passed, 2 skipped in 3.21s
"""


def python(name: str, program: str, level: str = "test") -> Stage:
    return Stage(name, f"what {name} checks", (sys.executable, "-c", program), level)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Use:
    """Replace the stages, and keep the logs in a directory of the test."""

    def replace(*stages: Stage) -> None:
        monkeypatch.setattr(run_tests, "STAGES", stages)

    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.setattr(run_tests, "LOGS", tmp_path / "logs")
    return replace


def test_each_level_has_the_stages_of_the_level_below() -> None:
    test, everything, full = ([stage.name for stage in stages(level)] for level in run_tests.LEVELS)
    assert test == [
        "images",
        "lint",
        "unit",
        "database",
        "clients",
        "faults",
        "clocks",
        "hostile",
        "debian13",
    ]
    assert everything == [*test, "debian12", "backup", "fleet", "ssh", "upgrade"]
    assert full == [*everything, "documents"]


def test_every_molecule_scenario_is_a_stage() -> None:
    scenarios = {
        path.parent.name for path in Path(run_tests.__file__).parents[1].glob("molecule/*/molecule.yml")
    }
    assert scenarios == {stage.command[-1] for stage in stages("test-full") if stage.command[0] == "molecule"}


@pytest.mark.parametrize("name", ["faults", "clocks", "hostile"])
def test_test_full_runs_all_cases_and_test_a_sample(name: str) -> None:
    (stage,) = stages("test", name)
    assert "--sample" in stage.command
    assert "--sample" not in stage.full


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        (PYTEST, 1, (5, 1, ["tests/unit/test_a.py:7: no Docker here (2 times)"])),
        ("==== 12 passed in 4.0s ====\nINFO destroy: Executed: Successful\n", 0, (12, 0, [])),
        ("== 3 passed, 2 errors in 1.0s ==\n", 1, (3, 2, [])),
        ("= 1 failed, 9 passed in 62.7s (0:01:02) =\nERROR Molecule: 1 scenario (1 failed)\n", 1, (9, 1, [])),
        ("INFO Executed: Failed\n5 passed, 2 warnings in 0.1s\n", 0, (5, 0, [])),
        (
            "lint: skipped compose: no Compose\n7 passed, 0 failed, 1 skipped\n",
            0,
            (7, 0, ["compose: no Compose"]),
        ),
        ("done\n", 0, (1, 0, [])),
        ("no hosts\n", 2, (0, 1, [])),
        ("12 passed in 4.0s\nthe hosts could not be removed\n", 2, (12, 1, [])),
    ],
)
def test_the_counts_are_those_of_the_output(output: str, code: int, expected: object) -> None:
    assert count(output, code) == expected


def test_a_failed_stage_does_not_hide_the_others(use: Use, capfd: pytest.CaptureFixture[str]) -> None:
    use(
        python("first", "print('2 passed in 1s')"),
        python("second", "print('FAILED a.py::b - 1 == 2\\n1 failed, 3 passed in 1s'); exit(1)"),
        python("third", "print('SKIPPED [1] a.py:1: no engine'); print('4 passed, 1 skipped in 1s')"),
    )
    assert main(["test"]) == 1
    lines = capfd.readouterr().out.splitlines()
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("Stage ")) :]
    assert [line.split()[:2] for line in table[1:4]] == [
        ["first", "passed"],
        ["second", "FAILED"],
        ["third", "passed"],
    ]
    assert "  third: a.py:1: no engine" in table
    log = table.index("  logs/second.log")
    assert table[log + 1] == "    a.py::b - 1 == 2"
    assert table[-1] == "9 passed, 1 failed, 1 skipped"
    assert (run_tests.LOGS / "first.log").read_text() == "2 passed in 1s\n"


def test_one_stage_runs_alone(use: Use, capfd: pytest.CaptureFixture[str]) -> None:
    use(python("first", "raise SystemExit(1)"), python("second", "print('output of the second')"))
    assert main(["test", "second"]) == 0
    shown = capfd.readouterr().out
    assert "output of the second" in shown
    assert shown.splitlines()[-1] == "1 passed, 0 failed"


def test_an_unknown_stage_is_refused_with_the_names(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "upgrade"]) == 2
    assert (
        "images, lint, unit, database, clients, faults, clocks, hostile, debian13" in capfd.readouterr().err
    )


def test_larger_numbers_are_for_test_full_only(use: Use, capfd: pytest.CaptureFixture[str]) -> None:
    show = "import os; print(os.environ.get('ROWS', 'few'), 'rows')"
    use(Stage("first", "rows", (sys.executable, "-c", show), "test", full_environment=(("ROWS", "many"),)))
    for level, expected in (("test", "few rows"), ("test-full", "many rows")):
        assert main([level]) == 0
        assert expected in capfd.readouterr().out.splitlines()


def test_the_summary_names_the_stages_that_did_not_run() -> None:
    first, *others = stages("test")
    text = summary([run_tests.Result(first, 0, 1.0, 1, 0)], others)
    assert [line.split()[0] for line in text.splitlines() if line.endswith("not run")] == [
        one.name for one in others
    ]
