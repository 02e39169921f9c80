"""Output of the commands: lines and tables for people, JSON for programs."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from occupancy_db.cli.table import Table

if TYPE_CHECKING:
    from occupancy_db.errors import DatabaseError

# The command in a hint. After a quotation mark it is the application_name of a session.
_HINT = re.compile(r'(?<!")\boccupancy-db (?=[a-z])')


class Output:
    """Results go to standard output, errors to standard error; with ``--json`` each is one JSON object."""

    def __init__(self) -> None:
        """Print for people until ``--json`` is read."""
        self.json = False

    def result(self, data: dict[str, Any], *lines: str | Table) -> None:
        """Print a result.

        Args:
            data: The complete result, for programs.
            lines: The same for people.
        """
        if self.json:
            self._print(json.dumps(data, default=str))
            return
        # Lines of a pipe are not wrapped.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in lines:
            for text in line.render(width) if isinstance(line, Table) else [line]:
                self._print(text)

    def step(self, line: str) -> None:
        """Report the progress of a long command; not with ``--json``."""
        if not self.json:
            self._print(line)

    def error(self, error: "DatabaseError") -> None:
        """Print a failure on one line for any width of the terminal."""
        hint = with_program(error.hint)
        if not self.json:
            print(f"error: {error.what}. {hint}", file=sys.stderr)
            return
        failure = {
            "exit_code": int(error.code),
            "reason": error.code.label,
            "what": error.what,
            "hint": hint,
            **error.details,
        }
        print(json.dumps({"error": failure}), file=sys.stderr)

    def _print(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # The reader has ended, as head does; the command continues to its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


out = Output()


def program() -> str:
    """The command as it was called, to be pasted into a shell."""
    if command := os.environ.get("OCCUPANCY_COMMAND"):  # set in the ops image: the command of the host
        return command
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{_found(Path(sys.executable))} -m occupancy_db"
    if script.suffix == ".py":
        return f"{_found(Path(sys.executable))} {_relative(script)}"
    return _found(script) if script.name == "occupancy-db" else "occupancy-db"


def _found(path: Path) -> str:
    """The name of a program if the shell finds it by that, otherwise its path."""
    found = shutil.which(path.name)
    if path.parent == Path() or (found and path.exists() and Path(found).samefile(path)):
        return path.name
    return _relative(path)


def _relative(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def with_program(text: str) -> str:
    """Replace ``occupancy-db`` in the commands of a hint with the command as it was called."""
    command = program()
    return _HINT.sub(lambda _: f"{command} ", text)


def size(count: int) -> str:
    """A number of bytes in decimal units, as in 1.5 GB."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    value, units = float(count), iter(("kB", "MB", "GB", "TB", "PB"))
    unit = "bytes"
    while value >= 1000 and (following := next(units, None)):
        value, unit = value / 1000, following
    return f"{value:,.1f} {unit}"


def _use_json(value: bool) -> bool:
    out.json = out.json or value
    return value


Json = Annotated[bool, typer.Option("--json", callback=_use_json, help="Print JSON.")]
