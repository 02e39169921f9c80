"""The built wheel, installed outside the checkout: as a client, and with the command line."""

import tomllib
from pathlib import Path

import pytest

from occupancy_db.errors import ExitCode
from occupancy_db.schema.runner import script_directory
from tests.installation import ROOT, Installation, build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("client"), str(wheel))


@pytest.fixture(scope="module")
def tools(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("tools"), f"occupancy-db[tools] @ {wheel.as_uri()}")


def test_client_imports_without_the_tools(client: Installation) -> None:
    script = (
        "import importlib.util, occupancy_db.connection, occupancy_db.models, occupancy_db.readings\n"
        "import occupancy_db.settings, pathlib\n"
        "print(occupancy_db.settings.Settings().where)\n"
        "print(*[name for name in ('alembic', 'rich', 'typer') if importlib.util.find_spec(name)])\n"
        "print((pathlib.Path(occupancy_db.__file__).parent / 'py.typed').exists())\n"
    )
    result = client.run("python", "-c", script)
    assert result.stdout.splitlines() == ["localhost:5432/occupancy_dev as occupancy", "", "True"], (
        result.stderr
    )


@pytest.mark.parametrize("arguments", [["--help"], ["current"], ["--version"]])
def test_command_line_without_the_tools_says_how_to_install_them(
    client: Installation, arguments: list[str]
) -> None:
    result = client.run("occupancy-db", *arguments)
    assert result.returncode == ExitCode.UNSUITABLE
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "pip install 'occupancy-db[tools]'" in line


def test_command_line_knows_its_version_and_its_migrations(tools: Installation) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tools.run("occupancy-db", "--version").stdout == f"occupancy-db {version}\n"
    assert "create-migration" in tools.run("occupancy-db", "--help").stdout
    revisions = [one["revision"] for one in tools.answer("history")["revisions"]]
    assert revisions == [script.revision for script in script_directory().walk_revisions()]


def test_installed_migrations_are_executable_without_the_checkout(tools: Installation) -> None:
    """All SQL of all revisions, as ``alembic upgrade --sql`` writes it: env.py and its imports included."""
    script = (
        "from occupancy_db.schema import revisions, runner\n"
        "for script in runner.script_directory().walk_revisions():\n"
        "    print(script.path, len(revisions.upgrade_sql(runner.alembic_config(), script)))\n"
    )
    result = tools.run("python", "-c", script)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        path, length = line.rsplit(" ", 1)
        assert not Path(path).is_relative_to(ROOT)
        assert int(length) > 100


def test_a_missing_server_is_reported_in_one_line(tools: Installation) -> None:
    (tools.directory / ".env").write_text(f"POSTGRES_HOST={tools.directory}\n")
    result = tools.run("occupancy-db", "current")
    assert result.returncode == ExitCode.UNREACHABLE
    assert len(result.stderr.splitlines()) == 1
