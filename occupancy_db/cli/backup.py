"""``occupancy-db backup``."""

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from occupancy_db.backup import create as making
from occupancy_db.backup import databases
from occupancy_db.backup.configuration import BackupSettings
from occupancy_db.backup.files import replace, sync
from occupancy_db.backup.manifest import DUMP, PINNED
from occupancy_db.backup.pruning import Verdict
from occupancy_db.backup.sets import BackupSet, Store
from occupancy_db.backup.signatures import sign_earlier
from occupancy_db.cli.options import AllDatabases, OneDatabase
from occupancy_db.cli.output import Json, out, size
from occupancy_db.cli.table import Column, Table
from occupancy_db.settings import Settings

app = typer.Typer(
    help="Create, verify and list backup sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of a set as in 'backup list', or latest.")]


@app.command("create")
def create(
    pin: Annotated[
        str | None, typer.Option(metavar="REASON", help="Keep this set until it is unpinned.")
    ] = None,
    database: OneDatabase = None,
    all_databases: AllDatabases = False,
    json: Json = False,
) -> None:
    """Create a set, and verify it by a restore.

    The set is restored to a temporary cluster and compared. Then sets are removed that the retention policy
    does not keep.
    """
    if all_databases:
        every = asyncio.run(databases.each(lambda one, backup: making.create(one, backup, out.step, pin)))
        facts = [{**_facts(made.backup_set), "phases": made.phases} for made in every]
        out.result({"sets": facts}, *(f"{made.backup_set.id} is verified" for made in every))
        return
    made = asyncio.run(making.create(*databases.choose(database), out.step, pin))
    out.result({**_facts(made.backup_set), "phases": made.phases}, f"{made.backup_set.id} is verified")


@app.command("verify")
def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids of sets, or latest; default: the newest set."),
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option(min=0, metavar="DAYS", help="All sets whose last verification is older."),
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Accept sets that were made before sets were signed.")
    ] = False,
    database: OneDatabase = None,
    all_databases: AllDatabases = False,
    json: Json = False,
) -> None:
    """Verify sets again, by signature, checksums and a restore.

    The checksum of every file is compared, and every row after a restore to a temporary cluster.
    """
    age = None if older_than is None else timedelta(days=older_than)

    async def run(settings: Settings, backup: BackupSettings) -> list[str]:
        return await making.verify(settings, backup, ids or [], age, out.step, unsigned=unsigned)

    if all_databases:
        verified = [name for some in asyncio.run(databases.each(run)) for name in some]
    else:
        verified = asyncio.run(run(*databases.choose(database, next(iter(ids or []), ""))))
    out.result({"verified": verified}, f"{len(verified)} verified")


@app.command("sign")
def sign(json: Json = False) -> None:
    """Sign the verified sets that were made before this host had a key.

    Do not run it while the directory has sets of others: it makes them trusted.
    """
    settings, backup = Settings(), BackupSettings()

    async def run() -> list[str]:
        store = Store(backup.dir)
        async with store.lock(wait=making.LOCK_WAIT):
            return await sign_earlier(store.sets(settings.database), backup)

    done = asyncio.run(run())
    out.result({"signed": done}, *(f"signed {name}" for name in done), f"{len(done)} signed")


@app.command("list")
def list_sets(database: OneDatabase = None, json: Json = False) -> None:
    """List the sets, oldest first."""
    settings, backup = databases.choose(database)
    store = Store(backup.dir)
    sets, foreign = store.sets(settings.database), store.foreign(settings.database)
    table = Table(
        [
            Column("Set", rank=0),
            Column("State"),
            Column("Rows", rank=4, right=True),
            Column("Dump", rank=5, right=True),
            Column("Revision", rank=3),
            Column("Verified", rank=2),
            Column("Pinned", rank=1),
        ]
    )
    for one in sets:
        manifest, verified = one.manifest, one.verified
        table.add(
            one.id,
            one.state,
            f"{manifest.contents.rows:,}" if manifest else "",
            size(manifest.files[DUMP].bytes) if manifest else "",
            (manifest.contents.revision or "none") if manifest else "",
            _moment(verified.verified_at) if verified else "",
            one.pinned or "",
        )
    out.result(
        {
            "database": settings.database,
            "directory": backup.dir,
            "sets": [_facts(one) for one in sets],
            "foreign": foreign,
        },
        table if sets else f"no backup set of the database {settings.database} in {backup.dir}",
        *(f"damaged: {one.problem}" for one in sets if one.problem),
        *(f"note: {line}" for line in foreign),
        *(f"see also: --database {other}" for other in backup.others if other != settings.database),
    )


@app.command("show")
def show(name: Id, database: OneDatabase = None, json: Json = False) -> None:
    """Show the manifest of a set."""
    one = _find(database, name)
    lines: list[Any] = [f"{one.id}: {one.state}{f', pinned: {one.pinned}' if one.pinned else ''}"]
    if one.problem:
        lines.append(one.problem)
    if manifest := one.manifest:
        contents = manifest.contents
        table = Table([Column("Table", rank=0), Column("Rows", right=True)])
        for name, facts in sorted(contents.tables.items()):
            table.add(name, f"{facts.rows:,}")
        lines += [
            f"created {_moment(manifest.started_at)} to {_moment(manifest.ended_at)} UTC, "
            f"at LSN {manifest.lsn}",
            f"PostgreSQL {manifest.server_version}, pg_dump {manifest.client_version}, {manifest.image}",
            f"revision {contents.revision}, {contents.rows:,} rows in {len(contents.tables)} tables, "
            f"{len(contents.partitions)} of them partitions",
            table,
            *(
                f"{name}: {size(facts.bytes)}, SHA-256 {facts.sha256}"
                for name, facts in manifest.files.items()
            ),
        ]
    out.result(
        {**_facts(one), "manifest": one.manifest.model_dump(mode="json") if one.manifest else None}, *lines
    )


@app.command("prune")
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
    database: OneDatabase = None,
    json: Json = False,
) -> None:
    """Remove the sets that the retention policy does not keep."""
    settings, backup = databases.choose(database)

    async def run() -> list[Verdict]:
        async with Store(backup.dir).lock():
            return await making.prune(settings, backup, dry_run)

    plan = asyncio.run(run())
    foreign = Store(backup.dir).foreign(settings.database)
    data = [{"id": verdict.backup.id, "keep": verdict.keep, "why": verdict.why} for verdict in plan]
    going = [verdict for verdict in plan if not verdict.keep]
    verb = "would be removed" if dry_run else "removed"
    out.result(
        {"database": settings.database, "dry_run": dry_run, "plan": data, "foreign": foreign},
        *(f"{'keep  ' if verdict.keep else 'remove'} {verdict.backup.id}: {verdict.why}" for verdict in plan),
        *(f"note: {line}" for line in foreign),
        f"{len(going)} of {len(plan)} {verb}",
    )


@app.command("pin")
def pin(
    name: Id,
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Shown in 'backup list'.")],
    database: OneDatabase = None,
    json: Json = False,
) -> None:
    """Keep a set regardless of the retention policy."""
    one = _find(database, name)
    replace(one.path / PINNED, f"{' '.join(reason.split())}\n".encode())
    out.result({"id": one.id, "pinned": reason}, f"{one.id} is kept until it is unpinned")


@app.command("unpin")
def unpin(name: Id, database: OneDatabase = None, json: Json = False) -> None:
    """Subject a set to the retention policy again."""
    one = _find(database, name)
    (one.path / PINNED).unlink(missing_ok=True)
    sync(one.path)
    out.result({"id": one.id, "pinned": None}, f"{one.id} is subject to the retention policy again")


def _find(database: str | None, name: str) -> BackupSet:
    settings, backup = databases.choose(database, name)
    return Store(backup.dir).find(settings.database, name)


def _facts(one: BackupSet) -> dict[str, Any]:
    manifest, verified = one.manifest, one.verified
    return {
        "id": one.id,
        "path": one.path,
        "state": one.state,
        "signed": one.signed,
        "problem": one.problem,
        "pinned": one.pinned,
        "made_at": one.made_at.isoformat(),
        "verified_at": verified.verified_at.isoformat() if verified else None,
        "rows": manifest.contents.rows if manifest else None,
        "bytes": manifest.files[DUMP].bytes if manifest else None,
        "revision": manifest.contents.revision if manifest else None,
    }


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
