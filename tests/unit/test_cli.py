"""The command line without a server."""

import re

import pytest
from typer.testing import CliRunner

from occupancy_db.cli.app import app
from occupancy_db.cli.create_migration import next_revision_id
from occupancy_db.cli.output import Output
from occupancy_db.errors import ExitCode
from occupancy_db.maintenance import LOCK_KEY
from occupancy_db.schema.runner import script_directory

COMMANDS = {
    "init", "migrate", "rollback", "current", "history", "create-migration", "test-connection",
    "check-tables", "cleanup", "seed", "reset", "import", "partitions", "tune", "lint",
}  # fmt: skip


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, arguments)
    return result.exit_code, result.output


def test_what_is_printed_is_data_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "name ~ '^[a-z_]+$'", "[/etc/x] of [worker] :house:")
    assert capsys.readouterr().out.splitlines() == ["name ~ '^[a-z_]+$'", "[/etc/x] of [worker] :house:"]


def test_help_lists_every_command_and_every_exit_code() -> None:
    code, text = run("--help")
    assert code == 0
    assert set(re.findall(r"^  ([a-z-]+)  ", text, re.MULTILINE)) >= COMMANDS
    words = " ".join(text.split())
    for exit_code in ExitCode:
        assert f"{exit_code.value} {exit_code.label}" in words


@pytest.mark.parametrize(
    "command", sorted(COMMANDS - {"partitions"} | {"partitions status", "partitions maintain"})
)
def test_each_command_explains_itself_and_takes_json(command: str) -> None:
    code, text = run(*command.split(), "--help")
    assert code == 0
    assert "--json" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["cleanup", "--months", "0"],
        ["cleanup", "--months", "-3"],
        ["cleanup", "--months", "many"],
        ["create-migration"],
        ["seed", "--days", "0"],
        ["seed", "--until", "yesterday"],
        ["migrate", "--lock-wait", "-1"],
        ["tune", "--disk", "tape"],
        ["tune", "--set", "work_mem"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_told_apart(arguments: list[str]) -> None:
    code, text = run(*arguments)
    assert code == ExitCode.USAGE
    assert "Traceback" not in text


def test_revisions_fit_their_table_and_say_what_they_do() -> None:
    scripts = list(script_directory().walk_revisions())
    assert len(scripts) >= 2
    for script in scripts:
        assert len(script.revision) <= 32
        for field in ("Intent:", "Locks:", "Reversible:", "Phase:"):
            assert field in script.longdoc


@pytest.mark.parametrize(
    ("message", "slug"),
    [
        ("Add user preferences table", "add_user_preferences_table"),
        ("  Ünïcode & 'quotes'! ", "n_code_quotes"),
        ("x" * 100, "x" * 28),
        ("drop table; --", "drop_table"),
    ],
)
def test_the_next_revision_is_numbered_and_named(message: str, slug: str) -> None:
    assert next_revision_id(message)[3:] == f"_{slug}"
    assert int(next_revision_id(message)[:3]) == len(list(script_directory().walk_revisions())) + 1


def test_the_lock_key_is_a_bigint() -> None:
    assert 0 < LOCK_KEY < 2**63
