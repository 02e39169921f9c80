"""The output of the command line: tables, terminals, pipes and hints."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy_db.cli import output
from occupancy_db.cli.output import Output, size
from occupancy_db.cli.table import Column, Table
from occupancy_db.schema.runner import script_directory

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """Run a command with a terminal as standard output and standard error, and return its output."""
    terminal, other_end = pty.openpty()
    with subprocess.Popen(
        [BIN / "occupancy-db", *arguments],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        env={
            "PATH": f"{BIN}{os.pathsep}{os.defpath}",
            "COLUMNS": str(columns),
            "TERM": "xterm",
            **environment,
        },
    ):
        os.close(other_end)
        said = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # on Linux: the other end is closed
                break
            said += part
    os.close(terminal)
    return said.decode().replace("\r\n", "\n")


def test_markup_in_data_is_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "name ~ '^[a-z_]+$'", "[/etc/x] of [worker] :house:")
    assert capsys.readouterr().out.splitlines() == ["name ~ '^[a-z_]+$'", "[/etc/x] of [worker] :house:"]


@pytest.mark.parametrize("arguments", [["--help"], ["history"], ["tune", "--explain"], ["nonsense"]])
def test_no_color_disables_escape_sequences_on_a_terminal(arguments: list[str]) -> None:
    shown = on_a_terminal(*arguments, NO_COLOR="1")
    assert shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("arguments", [["--help"], ["history"], ["tune", "--explain"]])
def test_a_closed_pipe_is_not_an_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [BIN / "occupancy-db", *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert result.stderr == ""


@pytest.mark.parametrize("columns", [80, 60, 30])
def test_revisions_and_settings_are_never_cut_at_any_width(columns: int) -> None:
    history = on_a_terminal("history", columns=columns)
    for script in script_directory().walk_revisions():
        assert f"{script.revision} " in history or f"{script.revision}\n" in history
    assert "autovacuum_vacuum_insert_scale_factor " in on_a_terminal("tune", "--explain", columns=columns)


def test_a_narrow_terminal_is_filled_and_not_exceeded() -> None:
    lines = on_a_terminal("tune", "--explain", columns=100).splitlines()
    assert 90 <= max(map(len, lines[:-4])) <= 100


CELLS = st.text(st.characters(codec="ascii", exclude_categories=["Z", "C"]), min_size=1, max_size=30)


@given(
    rows=st.lists(st.tuples(CELLS, st.text("ab ", max_size=60), CELLS), min_size=1, max_size=5),
    width=st.integers(1, 120),
)
def test_a_table_never_cuts_a_key(rows: list[tuple[str, str, str]], width: int) -> None:
    table = Table([Column("Key", rank=0), Column("Text"), Column("More", rank=2)])
    for row in rows:
        table.add(*row)
    lines = table.render(width)
    body = [line for line in lines[2:] if not line.startswith("(not shown")]
    found = [line.split(" ")[0] for line in body if line and not line.startswith(" ")]
    assert found == [row[0] for row in rows]
    keys = max(len("Key"), *(len(row[0]) for row in rows))
    assert all(len(line) <= max(width, keys) for line in body)


def test_a_row_of_a_table_in_a_pipe_is_one_line() -> None:
    table = Table([Column("Key", rank=0), Column("Text")])
    table.add("one", "word " * 100)
    assert len(table.render(None)) == 3


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_sizes_are_decimal(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("argument", "environment", "command"),
    [
        ("occupancy-db", None, "occupancy-db"),
        ("/app/occupancy_db/__main__.py", "occupancy-db", "occupancy-db"),
        ("bin/occupancy-db", None, "bin/occupancy-db"),
        ("scripts/manage_db.py", None, "{python} scripts/manage_db.py"),
        ("/somewhere/occupancy_db/__main__.py", None, "{python} -m occupancy_db"),
        ("/usr/bin/pytest", None, "occupancy-db"),
    ],
)
def test_hints_name_the_command_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: str, environment: str | None, command: str
) -> None:
    monkeypatch.setattr(sys, "argv", [argument])
    monkeypatch.setenv("PATH", str(tmp_path))
    if environment:
        monkeypatch.setenv("OCCUPANCY_COMMAND", environment)
    else:
        monkeypatch.delenv("OCCUPANCY_COMMAND", raising=False)
    expected = command.format(python=sys.executable)
    assert output.with_program("Run 'occupancy-db migrate'.") == f"Run '{expected} migrate'."
    assert output.with_program('pid 7, "occupancy-db backup", user') == 'pid 7, "occupancy-db backup", user'


def test_a_command_on_the_path_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(BIN / "occupancy-db")])
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.defpath}")
    assert output.program() == "occupancy-db"
    monkeypatch.setenv("PATH", os.defpath)  # another working directory
    assert output.program() == str(BIN / "occupancy-db")
