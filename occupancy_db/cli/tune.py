"""``occupancy-db tune``."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from occupancy_db.cli.output import Json, out
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.server import tuning
from occupancy_db.settings import Environment


def tune(
    cores: Annotated[
        float | None,
        typer.Option(
            help="Of the server's container; default: this machine's, and no more than the roles take."
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(help="Limit of the container in MB; default: worked out from this machine's."),
    ] = None,
    disk: Annotated[tuning.Disk | None, typer.Option(help="What the data are on; default: as here.")] = None,
    workload: Annotated[
        tuning.Workload, typer.Option(help="What the server mostly does.")
    ] = tuning.Workload.MIXED,
    environment: Annotated[Environment, typer.Option(help="Whose pools.")] = Environment.PRODUCTION,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of the application, each with a pool.")
    ] = 1,
    wal_compression: Annotated[
        tuning.WalCompression, typer.Option(help="The best that the server's build has.")
    ] = tuning.WalCompression.PGLZ,
    huge_pages: Annotated[bool, typer.Option("--huge-pages", help="Keep huge pages on the host.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of your own: --set work_mem=16MB", metavar="NAME=VALUE"),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Each value with its reason and source.")
    ] = False,
    json: Json = False,
) -> None:
    """Work out settings, limits and pools for a machine; changes nothing and asks no database."""
    overrides = {}
    for text in override or []:
        name, given, value = text.partition("=")
        if not (name and given):
            raise typer.BadParameter(f"{text} is not NAME=VALUE", param_hint="--set")
        overrides[name] = value
    machine = tuning.probe()
    request = tuning.Request(
        cores=cores or min(machine.cores, tuning.CORES_BY_DEFAULT),
        memory=memory or tuning.default_memory(machine.memory),
        disk=disk or machine.disk,
        disk_size=machine.disk_size,
        workload=workload,
        environment=environment,
        clients=tuning.clients(processes),
        wal_compression=wal_compression,
        huge_pages=huge_pages,
        overrides=overrides,
    )
    try:
        plan = tuning.plan(request)
    except tuning.BudgetError as error:
        raise DatabaseError(
            ExitCode.CONFIGURATION, str(error), "Give it more memory, or ask for less."
        ) from None
    groups = {
        "postgresql.conf": plan.settings,
        "container": plan.container,
        "host": plan.host,
        "application": plan.application,
    }
    data = {
        "cores": request.cores,
        "memory_mb": request.memory,
        "disk": request.disk,
        "budget": str(plan.budget),
        "connections": dict(plan.connections),
        **{
            group: [{**asdict(setting), "text": str(setting)} for setting in found]
            for group, found in groups.items()
        },
    }
    if not explain:
        out.result(data, *(f"{setting.name} = {setting}" for found in groups.values() for setting in found))
        return
    table = Table("Where", "Setting", "Value", "Why", "Source")
    for group, found in groups.items():
        for setting in found:
            table.add_row(group, setting.name, str(setting), setting.reason, setting.source)
        table.add_section()
    limits = ", ".join(f"{name} {limit}" for name, limit in plan.connections.items())
    out.result(data, table, f"connections: {limits}", f"memory at worst: {plan.budget}")
