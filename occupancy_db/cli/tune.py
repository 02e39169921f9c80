"""``occupancy-db tune``."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from occupancy_db.cli.output import Json, out
from occupancy_db.cli.table import Column, Table
from occupancy_db.errors import DatabaseError, ExitCode
from occupancy_db.server import tuning
from occupancy_db.settings import Environment, Settings

Cores = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER", help="CPUs of the server's container; default: those of this machine, at most 2."
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        metavar="MB", help="Memory limit of the container in MB; default: calculated for this machine."
    ),
]
Disk = Annotated[
    tuning.Disk | None, typer.Option(help="The disk that holds the data; default: that of this machine.")
]
Workload = Annotated[tuning.Workload, typer.Option(help="The main work of the server.")]
PoolEnvironment = Annotated[
    Environment | None,
    typer.Option(help="The environment of the application's pools; default: ENVIRONMENT, or production."),
]
Processes = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="Processes of the application; each has a pool.")
]
WalCompression = Annotated[
    tuning.WalCompression, typer.Option(help="The best method that the server's build supports.")
]
HugePages = Annotated[bool, typer.Option("--huge-pages", help="Reserve huge pages on the host.")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting, as in --set work_mem=16MB; repeatable.", metavar="NAME=VALUE"
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Show the reason and the source of each value.")]


def tune(
    cores: Cores = None,
    memory: Memory = None,
    disk: Disk = None,
    workload: Workload = tuning.Workload.MIXED,
    environment: PoolEnvironment = None,
    processes: Processes = 1,
    wal_compression: WalCompression = tuning.WalCompression.PGLZ,
    huge_pages: HugePages = False,
    override: Override = None,
    explain: Explain = False,
    json: Json = False,
) -> None:
    """Calculate server settings, memory limits and pool sizes for a machine.

    The command changes nothing and connects to no server. Settings that do not fit into the memory are
    refused with the calculation; --explain then shows the values without --set.
    """
    machine = tuning.probe()
    request = tuning.Request(
        cores=cores or min(machine.cores, tuning.CORES_BY_DEFAULT),
        memory=memory or tuning.default_memory(machine.memory),
        disk=disk or machine.disk,
        disk_size=machine.disk_size,
        workload=workload,
        environment=environment or _default_environment(),
        clients=tuning.clients(processes),
        wal_compression=wal_compression,
        huge_pages=huge_pages,
        overrides=_overrides(override or []),
    )
    try:
        plan = tuning.plan(request)
    except tuning.BudgetError as error:
        refused = DatabaseError(
            ExitCode.CONFIGURATION, str(error), "Increase the memory, or reduce the settings."
        )
        if explain and not out.json and request.overrides:
            _show_calculated(replace(request, overrides={}))
        raise refused from None
    data = _data(request, plan)
    if explain:
        out.result(data, *_explained(plan))
    else:
        values = (setting for found in _groups(plan).values() for setting in found)
        out.result(data, *(f"{setting.name} = {setting}" for setting in values))


def _data(request: tuning.Request, plan: tuning.Plan) -> dict[str, Any]:
    return {
        "cores": request.cores,
        "memory_mb": request.memory,
        "disk": request.disk,
        "budget": str(plan.budget),
        "connections": dict(plan.connections),
        **{
            group: [{**asdict(setting), "text": str(setting)} for setting in found]
            for group, found in _groups(plan).items()
        },
    }


def _default_environment() -> Environment:
    """Return the environment in the checkout's .env, or the default of the roles."""
    settings = Settings()
    return settings.environment if "environment" in settings.model_fields_set else Environment.PRODUCTION


def _overrides(pairs: list[str]) -> dict[str, str]:
    overrides = {}
    for pair in pairs:
        name, given, value = pair.partition("=")
        if not (name and given):
            raise typer.BadParameter(f"{pair} is not NAME=VALUE", param_hint="--set")
        overrides[name] = value
    return overrides


def _show_calculated(request: tuning.Request) -> None:
    """Show what the formula calculates for a request whose overrides were refused."""
    try:
        plan = tuning.plan(request)
    except tuning.BudgetError:  # the memory is too small without overrides, too
        return
    out.result({}, *_explained(plan), "these are the values without --set, which is refused:")


def _groups(plan: tuning.Plan) -> dict[str, tuple[tuning.Setting, ...]]:
    return {
        "postgresql.conf": plan.settings,
        "container": plan.container,
        "host": plan.host,
        "application": plan.application,
    }


def _explained(plan: tuning.Plan) -> list[Any]:
    table = Table(
        [
            Column("Where", rank=3),
            Column("Setting", rank=0),
            Column("Value", rank=0),
            Column("Why", rank=1),
            Column("Source", rank=2),
        ]
    )
    for group, found in _groups(plan).items():
        for setting in found:
            table.add(group, setting.name, setting, setting.reason, setting.source)
    limits = ", ".join(f"{name} {limit}" for name, limit in plan.connections.items())
    return [table, f"connections: {limits}", f"memory in the worst case: {plan.budget}"]
