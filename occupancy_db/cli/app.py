"""The Typer application: its commands are imported when they are called."""

import gc
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from occupancy_db.cli.output import Json, out, program
from occupancy_db.exit_codes import ExitCode

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {code.label}" for code in ExitCode) + "."
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

# Name, module and attribute of each command, and the first sentence of its help: --help imports no command.
COMMANDS = {
    "init": ("init", "init", "Create the database if it is missing, and migrate it to this release."),
    "migrate": ("migrate", "migrate", "Migrate the schema to this release: check, back up, apply, verify."),
    "rollback": ("rollback", "rollback", "Revert one migration, or all down to a revision."),
    "current": ("current", "current", "Show the revision of the database."),
    "history": ("history", "history", "List the migrations of this release, newest first."),
    "lint": ("lint", "lint", "Check the migrations for statements that block or break a running system."),
    "create-migration": ("create_migration", "create_migration", "Write the file of the next migration."),
    "status": ("status", "status", "Show the results of all checks, the worst first."),
    "log": ("log", "log", "Show what server, jobs and deployments have logged, in order of time."),
    "report": ("report", "report", "Write a page that shows the state of the database and of the home."),
    "test-connection": (
        "test_connection",
        "test_connection",
        "Connect, and show the server, the encryption and the latency.",
    ),
    "check-tables": (
        "check_tables",
        "check_tables",
        "List the objects of the schema, and what is missing or different.",
    ),
    "cleanup": ("cleanup", "cleanup", "Remove old sensor readings, and keep their hourly statistics."),
    "partitions": ("partitions", "app", "Maintain the monthly partitions and the hourly sums."),
    "clock": ("clock", "app", "Compare the clock with what is recorded, and confirm it."),
    "rooms": ("rooms", "app", "List, add, label and retire rooms."),
    "sensors": ("sensors", "app", "List, add, move and retire sensors."),
    "timezone": ("timezone", "app", "Show and set the time zone of the home."),
    "backup": ("backup", "app", "Create, verify and list backup sets."),
    "restore": ("restore", "restore", "Replace the live database by a verified backup set."),
    "restore-rollback": ("restore", "restore_rollback", "Undo the last restore by exchanging the databases."),
    "restore-cleanup": ("restore", "restore_cleanup", "Drop databases that a restore replaced or left."),
    "notify": ("notify", "app", "Send messages about checks that turn bad and good again."),
    "erase": ("erase", "erase", "Remove all data of a room, a zone or a sensor."),
    "export": ("export", "export", "Write all data of a room, a zone or a sensor as a ZIP archive."),
    "import": ("import_readings", "import_readings", "Import sensor readings from files."),
    "seed": ("seed", "seed", "Fill a development database with generated data."),
    "reset": ("reset", "reset", "Drop everything that the migrations created, and create it again."),
    "tune": ("tune", "tune", "Calculate server settings, memory limits and pool sizes for a machine."),
}  # fmt: skip

# What every usage error is; the name of its module differs between versions of Typer.
UsageError: Any = typer.BadParameter.__base__


class Commands(MutableMapping[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __init__(self) -> None:
        """Import nothing yet."""
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Import a command."""
        if name not in self._loaded:
            module, attribute, _ = COMMANDS[name]
            self._loaded[name] = _click_command(import_module(f"occupancy_db.cli.{module}"), attribute, name)
            # main() has disabled it for the imports. What they created stays to the end.
            gc.freeze()
            gc.enable()
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        """Replace a command."""
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        """Refuse: the commands are fixed."""
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the help."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """The number of commands."""
        return len(COMMANDS)


def _click_command(module: ModuleType, attribute: str, name: str) -> Any:
    found = getattr(module, attribute)
    if not isinstance(found, typer.Typer):
        application = typer.Typer(add_completion=False, rich_markup_mode=None)
        application.command(name)(found)
        found = application
    command = typer.main.get_command(found)
    command.name = name
    return command


class Group(TyperGroup):
    """The top-level command. It translates failures to a line and an exit code."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands = Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in the help without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the command. An exception that is not a known failure keeps its traceback."""
        try:
            return super().invoke(ctx)
        except (ModuleNotFoundError, UsageError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            from occupancy_db.errors import explain

            known = explain(error)
            if known is None:
                raise
            out.error(known)
            raise typer.Exit(known.code) from None

    def main(
        self, args: Sequence[str] | None = None, *others: Any, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """As in Typer; with ``--json`` usage errors are JSON too."""
        extra["standalone_mode"] = False
        if not standalone_mode:
            return super().main(args, *others, **extra)
        try:
            code = super().main(args, *others, **extra)
        except UsageError as error:
            _usage_error(error, sys.argv[1:] if args is None else args)
        except typer.Abort:
            print("Aborted.", file=sys.stderr)
            sys.exit(ExitCode.FAILED)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _usage_error(error: Any, args: Sequence[str]) -> NoReturn:
    """Print a usage error. It may precede the option ``--json`` on the command line."""
    if out.json or "--json" in args:
        from occupancy_db.errors import DatabaseError

        out.json = True
        path = error.ctx.command_path if error.ctx else "occupancy-db"
        # Without arguments a group raises its help as an error.
        given = type(error).__name__ != "NoArgsIsHelpError"
        what = error.format_message().rstrip(".") if given else "No command is given"
        out.error(DatabaseError(ExitCode.USAGE, what, f"See '{path} --help'."))
    else:
        error.show()
    sys.exit(error.exit_code)


def version() -> str:
    """The version of this release: of the checkout, or of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed
    from pathlib import Path

    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        import tomllib

        found = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if found.get("name") == "occupancy-db":
            return str(found["version"])
    try:
        return installed("occupancy-db")
    except PackageNotFoundError:
        return "unknown"


def _show_version(value: bool) -> None:
    if value:
        print(f"occupancy-db {version()}")
        raise typer.Exit


app = typer.Typer(
    name="occupancy-db",
    cls=Group,
    epilog=EPILOG,
    no_args_is_help=True,
    # Rich takes as long to import as the rest of --help.
    rich_markup_mode=None,
    # A traceback with local variables would show passwords.
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    json: Json = False,
) -> None:
    """Manage the occupancy database: schema, readings, retention, backups and development data.

    The environment and the file .env in the current directory select the database: POSTGRES_HOST,
    POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE,
    POSTGRES_SSLMODE, POSTGRES_SSLROOTCERT, ENVIRONMENT. Variables of the environment override those in .env.

    Results are written to standard output and errors to standard error. With --json both are JSON objects.
    """


def run() -> None:
    """Run the command line with the arguments of this process."""
    name = program()
    app(prog_name=name if name == "occupancy-db" else None, complete_var="_OCCUPANCY_DB_COMPLETE")
