"""The command line without a server."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from occupancy_db.cli import output
from occupancy_db.cli.app import COMMANDS as SUMMARIES
from occupancy_db.cli.app import app
from occupancy_db.cli.check_tables import EXPECTED
from occupancy_db.cli.create_migration import next_revision_id
from occupancy_db.errors import ExitCode
from occupancy_db.maintenance import LOCK_KEY
from occupancy_db.models import Base
from occupancy_db.schema import position
from occupancy_db.schema.runner import script_directory

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

COMMANDS = {
    "init", "migrate", "rollback", "current", "history", "create-migration", "test-connection",
    "check-tables", "cleanup", "seed", "reset", "import", "partitions", "rooms", "clock", "tune",
    "lint",
}  # fmt: skip


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, arguments)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the output before each test, as in a new process."""
    monkeypatch.setattr(output.out, "json", False)


def test_help_lists_every_command_and_every_exit_code() -> None:
    code, text = run("--help")
    assert code == 0
    assert set(re.findall(r"^  ([a-z-]+)  ", text, re.MULTILINE)) >= COMMANDS
    words = " ".join(text.split())
    for exit_code in ExitCode:
        assert f"{exit_code.value} {exit_code.label}" in words


@pytest.mark.parametrize(
    "command",
    sorted(
        COMMANDS - {"partitions", "rooms", "clock"}
        | {"clock status", "clock confirm"}
        | {"partitions status", "partitions maintain"}
        | {"rooms list", "rooms add", "rooms label", "rooms retire"}
    ),
)
def test_each_command_has_help_and_the_option_json(command: str) -> None:
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
def test_usage_errors_have_their_own_exit_code(arguments: list[str]) -> None:
    code, text = run(*arguments)
    assert code == ExitCode.USAGE
    assert "Traceback" not in text


def test_revision_ids_fit_into_alembics_table_and_have_a_description() -> None:
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


def first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def test_help_shows_the_first_sentences_of_the_commands() -> None:
    group: Any = get_command(app)
    assert {name: first_sentence(group.commands[name].help) for name in SUMMARIES} == {
        name: summary for name, (_, _, summary) in SUMMARIES.items()
    }


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version") == (0, f"occupancy-db {project['version']}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "nonsense"], "nonsense"),
        (["--json", "cleanup", "--months", "0"], "--months"),
        (["cleanup", "--months", "0", "--json"], "--months"),
        (["cleanup", "--json", "--nonsense"], "--nonsense"),
        (["restore", "--json"], "SET"),
        (["backup", "verify", "--older-than", "x", "--json"], "--older-than"),
        (["--json", "backup"], "No command is given"),
        (["tune", "--set", "work_mem", "--json"], "NAME=VALUE"),
    ],
)
def test_usage_errors_are_json_with_the_option_json(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert (error["exit_code"], error["reason"]) == (2, "wrong usage")
    assert words in error["what"]
    assert "--help" in error["hint"]


def test_reset_with_json_does_not_ask_for_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "/nowhere")
    result = CliRunner().invoke(app, ["--json", "reset"], input="y\n")
    assert result.exit_code == ExitCode.REFUSED
    assert result.stdout == ""
    assert "--yes" in json.loads(result.stderr)["error"]["hint"]


def test_completion_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        environment = {
            "PATH": f"{BIN}{os.pathsep}{os.defpath}",
            "_OCCUPANCY_DB_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        result = subprocess.run(
            [BIN / "occupancy-db"], env=environment, capture_output=True, text=True, check=False
        )
        assert result.stderr == ""
        return result.stdout.split()

    assert completed("occupancy-db part") == ["partitions"]
    assert completed("occupancy-db partitions ma") == ["maintain"]
    assert completed("occupancy-db cleanup --mo") == ["--months"]


def test_refused_overrides_are_shown_with_the_calculated_values() -> None:
    code, text = run("tune", "--explain", "--cores", "2", "--memory", "1024", "--set", "work_mem=16MB")
    assert code == ExitCode.CONFIGURATION
    assert re.search(r"work_mem +\d+kB", text)
    assert "16.00" in text
    assert "of 1024 MB" in text


@pytest.mark.parametrize("environment", ["development", "production", None])
def test_pools_are_calculated_for_the_environment_of_the_host(environment: str | None) -> None:
    if environment:
        Path(".env").write_text(f"ENVIRONMENT={environment}\n")
    given = ["--environment", environment or "production"]
    assert run("tune") == run("tune", *given)
    assert run("tune", "--environment", "development") != run("tune", "--environment", "production")


def test_the_chain_of_revisions_is_the_same_as_alembics() -> None:
    assert position.chain() == [script.revision for script in script_directory().walk_revisions()][::-1]


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("b", "a")],
        [("a", None), ("b", "a"), ("c", "a")],
        [("a", None), ("b", None)],
        [("a", None), ("c", "b")],
        [("a", "b"), ("b", "a")],
        [("a", None), ("b", ("a", "a"))],
    ],
)
def test_revisions_that_are_not_one_chain_are_left_to_alembic(
    tmp_path: Path, files: list[tuple[str, Any]]
) -> None:
    for number, (revision, revises) in enumerate(files):
        (tmp_path / f"{number}.py").write_text(f"revision: str = {revision!r}\ndown_revision = {revises!r}\n")
    with pytest.raises(position.UnclearError):
        position.chain(tmp_path)


def test_check_tables_lists_the_tables_of_the_models() -> None:
    assert set(Base.metadata.tables) == {name for name in EXPECTED["table"] if not name.startswith("hourly.")}


INTERFACE = {
    "init": "--drop",
    "migrate": "--plan --backup --no-backup --lock-wait",
    "rollback": "--revision --lose-data --lock-wait",
    "current": "",
    "history": "",
    "lint": "",
    "create-migration": "--autogenerate --no-autogenerate",
    "status": "--watch --scheduled",
    "log": "--since --until --level",
    "test-connection": "",
    "check-tables": "",
    "report": "--output --days",
    "cleanup": ("--months --transitions-months --predictions-months --dry-run --no-dry-run --lock-wait"),
    "partitions status": "--months-ahead --months-back",
    "partitions maintain": "--months-ahead --months-back --dry-run --lock-wait",
    "erase": "--room --zone --entity --from --to --dry-run --from-backups --confirm",
    "export": "--room --zone --entity --from --to --format",
    "clock status": "",
    "clock confirm": "--by",
    "rooms list": "",
    "rooms add": "--label",
    "rooms label": "--remove",
    "rooms retire": "--at --undo",
    "backup create": "--pin --database --all",
    "backup verify": "--older-than --unsigned --database --all",
    "backup sign": "",
    "backup list": "--database",
    "notify test": "--urls",
    "notify send": "--urls --status --directory",
    "sensors list": "",
    "sensors add": "",
    "sensors set": "--room --zone --since --label --hold --max-silence",
    "sensors retire": "--at --undo",
    "sensors discover": "--registries --password-file",
    "sensors remove": "",
    "timezone show": "",
    "timezone set": "",
    "backup show": "--database",
    "backup prune": "--dry-run --database",
    "backup pin": "--database",
    "backup unpin": "--database",
    "restore": "--confirm --without-safety-backup --unsigned",
    "restore-rollback": "--confirm",
    "restore-cleanup": "",
    "import": "--format --column --set --entities --timezone --times --delimiter --decimal-comma --rejects"
    " --password-file --replace-history --dry-run",
    "seed": "--days --seed --until",
    "reset": "--yes",
    "tune": (
        "--cores --memory --disk --workload --environment --processes --wal-compression --huge-pages --set "
        "--explain"
    ),
}


def test_commands_and_options_are_an_interface() -> None:
    """Typer derives options from names of parameters, so that renaming a parameter may rename an option."""

    def leaves(group: Any, prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                found |= leaves(command, f"{prefix}{name} ")
            else:
                found[f"{prefix}{name}"] = command
        return found

    flags = {
        name: {
            flag
            for option in command.params
            for flag in (*option.opts, *option.secondary_opts)
            if flag[0] == "-"
        }
        for name, command in leaves(get_command(app)).items()
    }
    assert flags == {name: {*words.split(), "--json"} for name, words in INTERFACE.items()}
