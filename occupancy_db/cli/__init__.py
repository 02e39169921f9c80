"""The command line ``occupancy-db``: one command per module, imported when it is called."""

import gc
import os
import signal
import sys

# The packages of the extra "tools", by their import names.
_TOOLS = {"alembic", "apprise", "click", "mako", "rich", "typer"}


def main() -> None:
    """Run the command line; the entry point of the package.

    SIGTERM is handled as an interrupt, so that commands clean up before they end.
    """
    # A process that was started in the background inherits that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # Imports create many objects and no garbage: collecting in between takes a tenth of a short command.
    gc.disable()
    try:
        from occupancy_db.cli.app import run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TOOLS:
            raise
        print(
            f"error: occupancy-db needs the package {error.name}. "
            "Install the command line tools: pip install 'occupancy-db[tools]'",
            file=sys.stderr,
        )
        sys.exit(15)  # ExitCode.UNSUITABLE; its module may need what is missing
    except BrokenPipeError:
        # The reader of standard output has ended, as head does. Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
