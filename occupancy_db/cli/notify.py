"""``occupancy-db notify``."""

from pathlib import Path
from typing import Annotated

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.exit_codes import ExitCode
from occupancy_db.notify import receivers
from occupancy_db.notify.run import run, test
from occupancy_db.notify.send import trust_the_host

app = typer.Typer(
    help="Send messages about checks that turn bad and good again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Urls = Annotated[
    Path, typer.Option(metavar="FILE", help="The file of receivers: JSON with urls, heartbeat and host.")
]
# Where the container of the host has it.
URLS = Path("/run/secrets/notify")
DIRECTORY = Path("/var/lib/occupancy")


@app.command("test")
def send_test(urls: Urls = URLS, json: Json = False) -> None:
    """Send a test message to each receiver, and name those that it did not reach.

    The exit code is 1 if there is one. Receivers are named by their place in the list and their scheme.
    """
    trust_the_host()
    found = test(receivers.load(urls))
    out.result(
        {"receivers": [{"name": name, "error": failure or None} for name, failure in found.items()]},
        *(f"{name}: {failure or 'sent'}" for name, failure in found.items()),
        *([] if found else ["there are no receivers"]),
    )
    if any(found.values()):
        raise typer.Exit(ExitCode.FAILED)


@app.command("send")
def send(
    urls: Urls = URLS,
    status: Annotated[Path, typer.Option(metavar="FILE", help="The results of the checks.")] = DIRECTORY
    / "status"
    / "status.json",
    directory: Annotated[
        Path, typer.Option(metavar="DIR", help="What was sent and what waits is kept here.")
    ] = DIRECTORY / "notify",
    json: Json = False,
) -> None:
    """Send what is due after a run of the checks; their job calls it.

    A message that cannot be sent is kept, and sent by a later run: the exit code is 0 all the same.
    """
    trust_the_host()
    outcome = run(status, directory, receivers.load(urls))
    lines = [f"{outcome.sent} sent, {outcome.pending} waiting", *outcome.failures]
    if outcome.skipped:
        lines = ["another run sends messages at this moment"]
    if not outcome.recorded:
        lines.append(f"{directory} cannot be written: what was sent is not recorded, and is sent again")
    out.result(
        {
            "sent": outcome.sent,
            "pending": outcome.pending,
            "failures": list(outcome.failures),
            "skipped": outcome.skipped,
            "recorded": outcome.recorded,
        },
        *lines,
    )
