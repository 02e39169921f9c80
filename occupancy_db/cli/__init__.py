"""The command line ``occupancy-db``: one command per module."""

import signal
from typing import Any

import typer
from typer.core import TyperGroup

from occupancy_db.cli import (
    backup,
    check_tables,
    cleanup,
    create_migration,
    current,
    history,
    import_readings,
    init,
    lint,
    migrate,
    partitions,
    reset,
    restore,
    rollback,
    seed,
    test_connection,
    tune,
)
from occupancy_db.cli.output import Json, out
from occupancy_db.errors import ExitCode, explain

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {code.label}" for code in ExitCode) + "."


class Commands(TyperGroup):
    """The one place where failures become a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what is not explained is a fault of ours and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            known = explain(error)
            if known is None:
                raise
            out.error(known)
            raise typer.Exit(known.code) from None


app = typer.Typer(
    name="occupancy-db",
    cls=Commands,
    help="Keep the occupancy database: schema, readings, retention, backups, development data.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables would show passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(json: Json = False) -> None:
    """Keep the occupancy database: schema, readings, retention, backups, development data.

    The database is that of the environment, then of .env: POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB,
    POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_SSLMODE, POSTGRES_SSLROOTCERT,
    ENVIRONMENT.

    Results go to standard output, errors to standard error, both as JSON with --json.
    """


app.command("init")(init.init)
app.command("migrate")(migrate.migrate)
app.command("rollback")(rollback.rollback)
app.command("current")(current.current)
app.command("history")(history.history)
app.command("lint")(lint.lint)
app.command("create-migration")(create_migration.create_migration)
app.command("test-connection")(test_connection.test_connection)
app.command("check-tables")(check_tables.check_tables)
app.command("cleanup")(cleanup.cleanup)
app.add_typer(partitions.app, name="partitions")
app.add_typer(backup.app, name="backup")
app.command("restore")(restore.restore)
app.command("restore-rollback")(restore.restore_rollback)
app.command("restore-cleanup")(restore.restore_cleanup)
app.command("import")(import_readings.import_readings)
app.command("seed")(seed.seed)
app.command("reset")(reset.reset)
app.command("tune")(tune.tune)


def main() -> None:
    """Entry point. A request to stop is an interrupt: what was begun is ended and cleared first."""
    # Who is started in the background inherits that interrupts are ignored, and would then end for neither.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    app()
