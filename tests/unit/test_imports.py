"""Imports go one way, clients stay light, and functions and files stay short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "occupancy_db"

# A module imports modules of its own layer and of the layers before it.
LAYERS: list[list[str]] = [
    [
        "environment", "exit_codes", "settings", "errors", "tls", "months", "rooms", "pool", "driver",
        "retry", "connection", "models", "sensors", "storage", "validation", "readings",
    ],
    ["blockers", "maintenance"],
    ["server"],
    ["schema"],
    ["history"],
    ["backup"],
    ["release"],
    ["checks"],
    ["notify"],
    ["report"],
    ["cli", "__main__"],
]  # fmt: skip
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
CLIENT = LAYERS[0]

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
LONGEST_TASK_FILE = 80


def modules() -> Iterator[tuple[str, Path]]:
    """The top-level name below ``occupancy_db`` that each file belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.name == "__init__.py" and len(relative.parts) == 1:
            continue
        yield relative.parts[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> Iterator[str]:
    """The top-level names below ``occupancy_db`` that a file imports."""
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "occupancy_db" and len(parts) > 1:
            yield parts[1]


def test_every_module_has_a_layer() -> None:
    assert {name for name, _ in modules()} <= set(LAYER_OF)


@pytest.mark.parametrize(
    ("name", "path"),
    [pytest.param(name, path, id=str(path.relative_to(PACKAGE))) for name, path in modules()],
)
def test_imports_go_one_way(name: str, path: Path) -> None:
    against = {found for found in ours(path) if LAYER_OF.get(found, -1) > LAYER_OF[name]}
    assert not against, f"{path.relative_to(ROOT)} belongs to {name} and imports {', '.join(sorted(against))}"


def test_client_modules_import_each_other_in_order() -> None:
    """Within the client's layer, too: each module imports only those before it."""
    for name, path in modules():
        if name in CLIENT:
            known = {found for found in ours(path) if found in CLIENT and found != name}
            assert all(CLIENT.index(found) < CLIENT.index(name) for found in known), path


def test_nothing_outside_the_command_line_imports_typer_or_rich() -> None:
    users = {
        name
        for name, path in modules()
        for module in imports(path)
        if module.split(".")[0] in {"typer", "rich"}
    }
    assert users == {"cli"}


@pytest.mark.parametrize("module", ["settings", "connection", "models", "readings"])
def test_clients_import_no_tools(module: str) -> None:
    tools = {"alembic", "click", "mako", "rich", "typer"}
    script = (
        f"import sys, occupancy_db.{module}\n"
        f"print(*{{name.partition('.')[0] for name in sys.modules}} & {tools})"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []


def test_client_as_a_whole_imports_no_tool_package() -> None:
    script = (
        f"import sys, {', '.join(f'occupancy_db.{name}' for name in CLIENT)}\nprint(*sorted(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.split(".")[1] for name in found.stdout.split() if name.startswith("occupancy_db.")}
    assert loaded <= set(CLIENT)


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], {"alembic", "asyncpg", "pydantic", "rich", "sqlalchemy"}),
        (["--version"], {"alembic", "asyncpg", "pydantic", "rich", "sqlalchemy"}),
        *[
            (words.split(), {"alembic", "rich", "sqlalchemy"})
            for words in [
                "current", "check-tables", "test-connection", "partitions status", "cleanup --dry-run",
                "partitions maintain --dry-run", "migrate --plan", "rooms list", "rooms add kitchen",
                "rooms label kitchen Kitchen", "rooms retire kitchen",
            ]
        ],
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_command_imports_only_what_it_needs(
    arguments: list[str], forbidden: set[str], tmp_path: Path
) -> None:
    """Of the commands that query the server only the imports are looked at: no server listens there."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('IMPORTED', *{name.partition('.')[0] for name in sys.modules}))\n"
        f"sys.argv = ['occupancy-db', *{arguments!r}]\n"
        "from occupancy_db.cli import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"POSTGRES_HOST": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == (4 if len(forbidden) == 3 else 0), result.stderr
    loaded = set(result.stdout.split("IMPORTED")[1].split())
    assert "occupancy_db" in loaded
    assert not loaded & forbidden


def python_files() -> list[Path]:
    places = ["occupancy_db", "provisioning", "scripts", "bench", "tests", "molecule", "playbooks", "roles"]
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_python_files_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in python_files()
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    ]
    assert not long, "\n".join(long)


def test_task_files_are_short() -> None:
    files = [*(ROOT / "roles").glob("*/tasks/**/*.yml"), *(ROOT / "playbooks").glob("**/tasks/**/*.yml")]
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in sorted(files)
        if (lines := len(path.read_text().splitlines())) > LONGEST_TASK_FILE
    ]
    assert not long, "\n".join(long)
