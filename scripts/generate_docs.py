#!/usr/bin/env python3
"""Generate the pages of the command line, the exit codes and the checks in docs/reference from the code."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from occupancy_db.checks.catalogue import CHECKS
from occupancy_db.checks.judging import duration
from occupancy_db.cli.app import app
from occupancy_db.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PROGRAM = "occupancy-db"
GENERATED = "<!-- Written by `make docs` from {source}. -->\n\n"


def exit_codes() -> str:
    """The page of the exit codes, from ``ExitCode``."""
    lines = [
        GENERATED.format(source="occupancy_db.errors.ExitCode") + "# Exit codes",
        "",
        "Of `occupancy-db` and `scripts/manage_db.py`:",
        "",
        "| Code | Meaning |",
        "|---|---|",
        *(f"| {code.value} | {code.label} |" for code in ExitCode),
    ]
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """The page of the command line, from the Typer application."""
    root: Any = get_command(app)
    text = GENERATED.format(source="the help of the commands") + "# Command line\n\n" + description(root)
    text += options_table(root)
    return text + "".join(section(command, name) for name, command in commands(root))


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All commands of a group and of its subgroups that are not hidden, in the order of the help.

    Args:
        group: A command group of Typer.
        prefix: The names of the groups around it, with a space at the end.
    """
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if command.hidden:
            continue
        if hasattr(command, "list_commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def section(command: Any, name: str) -> str:
    """One command: its usage, description, arguments and options.

    Args:
        command: The command of Typer.
        name: Its name, with those of its groups.
    """
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    usage = " ".join([PROGRAM, name, "[OPTIONS]", *(metavar(argument) for argument in arguments)])
    text = f"\n## {name}\n\n```text\n{usage}\n```\n\n{description(command)}"
    if arguments:
        rows = [f"| `{metavar(argument)}` | {cell(prose(argument.help))} |" for argument in arguments]
        text += "\n".join(["", "| Argument | Meaning |", "|---|---|", *rows, ""])
    return text + options_table(command)


def options_table(command: Any) -> str:
    """The options of a command as a table, or nothing if it has none.

    Args:
        command: The command of Typer.
    """
    is_root = hasattr(command, "list_commands")  # its --json is that of all commands
    rows = [
        f"| {flags(option)} | {cell(prose(option.help))} | {default(option)} |"
        for option in command.params
        if option.param_type_name == "option" and not option.hidden and (is_root or option.name != "json")
    ]
    return "\n".join(["", "| Option | Meaning | Default |", "|---|---|---|", *rows, ""]) if rows else ""


def description(command: Any) -> str:
    """The help of a command, as Markdown paragraphs.

    Args:
        command: The command of Typer.
    """
    help_text = (command.help or "").split("\f")[0].strip()
    paragraphs = re.split(r"\n\s*\n", help_text)
    return "\n\n".join(prose(paragraph) for paragraph in paragraphs) + "\n"


def flags(option: Any) -> str:
    """An option as it is written, with the type of its value.

    Args:
        option: The option of Typer.
    """
    value = "" if option.is_flag or option.count else f" {metavar(option)}"
    names = [f"{name}{value}" for name in option.opts] + option.secondary_opts
    return ", ".join(f"`{cell(name)}`" for name in names)


def metavar(parameter: Any) -> str:
    """The placeholder of a parameter's value.

    Args:
        parameter: An argument or option of Typer.
    """
    if parameter.metavar:
        text = str(parameter.metavar)
    elif hasattr(parameter.type, "choices"):
        text = (
            "{" + "|".join(str(getattr(choice, "value", choice)) for choice in parameter.type.choices) + "}"
        )
    elif parameter.param_type_name == "argument":
        text = parameter.name.upper()
    else:
        text = str(parameter.type.name).upper().split()[0]
    optional = parameter.param_type_name == "argument" and not parameter.required
    return f"[{text}]" if optional and not text.startswith("[") else text


def default(option: Any) -> str:
    """The default of an option as a table cell; empty for none and for a flag that is not set.

    Args:
        option: The option of Typer.
    """
    value = option.default
    if value is None or value is False or callable(value) or value in ([], ()):
        return ""
    if option.is_flag:
        return f"`{option.opts[0]}`"
    return f"`{getattr(value, 'value', value)}`"


def prose(text: str | None) -> str:
    """Text of the help on one line, options in it as code.

    Args:
        text: A help text.
    """
    return re.sub(r"(?<![\w`])--[a-z][a-z-]*", r"`\g<0>`", " ".join((text or "").split()))


def cell(text: str) -> str:
    """Text in one table cell.

    Args:
        text: Markdown on one line.
    """
    return text.replace("|", "\\|")


def checks() -> str:
    """The page of the checks, from the list."""
    lines = [
        GENERATED.format(source="occupancy_db.checks.catalogue") + "# Checks",
        "",
        "What `occupancy-db status` shows ([Status](../status.md)). Thresholds are in the unit of "
        "the check; seconds are shown as hours or days, too.",
        "",
        "| Check | Warning | Bad | Why | What to do | Page |",
        "|---|---|---|---|---|---|",
    ]
    for check in CHECKS:
        thresholds = [threshold(value, check.unit) for value in (check.warning, check.bad)]
        page = f"[{check.page.split('.')[0]}](../{check.page})"
        what = [cell(check.reason), f"`{cell(check.action)}`", page]
        lines.append(f"| {' | '.join([f'`{check.name}`: {check.title}', *thresholds, *what])} |")
    return "\n".join(lines) + "\n"


def threshold(value: float | None, unit: str) -> str:
    """A threshold with its unit, or nothing if there is none.

    Args:
        value: The threshold.
        unit: The unit of the check.
    """
    if value is None:
        return ""
    if unit == "seconds" and value >= 60:
        return f"{value:g} s ({duration(value)})"
    names = {"percent": "%", "days": "days", "seconds": "s"}
    return f"{value:g} {names.get(unit, '')}".rstrip()


PAGES = {"cli.md": command_line, "exit-codes.md": exit_codes, "checks.md": checks}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
