"""What commands print: for a person with rich, for a program as JSON."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from occupancy_db.errors import DatabaseError


class Output:
    """Results go to standard output, errors to standard error; with ``--json`` each is one JSON object."""

    def __init__(self) -> None:
        """Start in the form for a person."""
        self.json = False
        # A pipe has no width: do not fold tables to the 80 columns that rich assumes.
        width = None if sys.stdout.isatty() else 160
        # What is printed is data: [a-z] is no style.
        self.console = Console(width=width, highlight=False, markup=False, emoji=False)

    def result(self, data: dict[str, Any], *lines: RenderableType) -> None:
        """Print a result.

        Args:
            data: The whole of it, for a program.
            lines: The same for a person.
        """
        if self.json:
            print(json.dumps(data, default=str))
            return
        for line in lines:
            self.console.print(line, soft_wrap=isinstance(line, str))

    def step(self, line: str) -> None:
        """Say how far a long command is; a program waits for the result."""
        if not self.json:
            print(line, flush=True)

    def error(self, error: DatabaseError) -> None:
        """Print an error: one line, whatever the width of the terminal."""
        if self.json:
            failure = {
                "exit_code": int(error.code),
                "reason": error.code.label,
                "what": error.what,
                "hint": error.hint,
                **error.details,
            }
            print(json.dumps({"error": failure}), file=sys.stderr)
        else:
            print(f"error: {error}", file=sys.stderr)


out = Output()


def _use_json(value: bool) -> bool:
    out.json = out.json or value
    return value


Json = Annotated[bool, typer.Option("--json", callback=_use_json, help="Print JSON for a program.")]
