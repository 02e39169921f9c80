"""The checks of the server: schema, connections, limits, statements."""

from collections.abc import Iterator

from occupancy_db.checks.evidence import Evaluate, Evidence, of_fact, of_host
from occupancy_db.checks.facts import Connections, Lifted, Schema
from occupancy_db.checks.host import Host, User
from occupancy_db.checks.judging import counted, duration, judge, result, skipped
from occupancy_db.checks.model import Check, Level, Result
from occupancy_db.exit_codes import ExitCode

_GRACE = 60
"""Seconds after which a session that outlives its limit has lifted it: the server ends the others."""

_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


def _server(check: Check, evidence: Evidence) -> Result:
    facts = evidence.facts
    if facts.unreachable:
        return result(check, Level.BAD, f"does not answer: {facts.unreachable}")
    return result(check, Level.GOOD, f"PostgreSQL {facts.version.split()[0]} answers")


def _schema(check: Check, evidence: Evidence, schema: Schema) -> Result:
    del evidence
    if not schema.known:
        summary = f"this release, whose head is {schema.head}, does not know revision {schema.revision}"
        return result(check, Level.BAD, summary)
    if not schema.pending:
        return judge(check, 0, f"at {schema.revision}")
    return judge(check, schema.pending, f"{counted(schema.pending, 'migration')} pending")


def _drift(check: Check, evidence: Evidence, host: Host) -> Result:
    job = host.job("check-schema")
    if job is None:
        return skipped(check, "the job check-schema is not scheduled")
    if job.last_exit_code == ExitCode.DIFFERENT:
        return result(check, Level.BAD, "the schema differs from that of the release")
    since = job.last_success or host.installed
    if since is None:
        return skipped(check, "was not compared yet")
    age = evidence.age(since)
    if job.last_success is None:
        return judge(check, age, f"was not compared since the installation {duration(age)} ago")
    return judge(check, age, f"no difference {duration(age)} ago")


def _connections(check: Check, evidence: Evidence, found: Connections) -> Result:
    del evidence
    shares = {f"user {name}": (used, limit) for name, (used, limit) in found.users.items()}
    shares["server"] = (found.used, found.limit)
    worst = max(shares, key=lambda name: shares[name][0] / shares[name][1])
    used, limit = shares[worst]
    details = [f"{name}: {one} of {most}" for name, (one, most) in sorted(shares.items()) if one]
    return judge(check, 100 * used / limit, f"{worst} has {used} of {limit}", *details)


def _limits(check: Check, evidence: Evidence, found: Lifted) -> Result:
    if evidence.host is None or not evidence.host.users:
        return skipped(check, "this machine does not know the limits: see it on the host")
    details = [line for user in evidence.host.users for line in _lifted(user, found)]
    users = {line.split(":")[0] for line in details}
    if not details:
        return judge(check, 0, "all users have theirs")
    return judge(
        check, len(users), f"{counted(len(users), 'user')} changed: {', '.join(sorted(users))}", *details
    )


def _lifted(user: User, found: Lifted) -> Iterator[str]:
    if user.name not in found.limits:
        return
    wanted = {(None, f"{name}={value}") for name, value in user.settings.items()}
    present = found.settings.get(user.name, set())
    changed = {setting.partition("=")[0] for _, setting in wanted ^ present}
    if changed:
        yield f"{user.name}: {', '.join(sorted(changed))}"
    if found.limits[user.name] != user.connections:
        yield f"{user.name}: limit of connections"
    limit = seconds(user.settings.get("idle_in_transaction_session_timeout", "0"))
    beyond = [idle for idle in found.sessions.get(user.name, []) if limit and idle > limit + _GRACE]
    if beyond:
        yield f"{user.name}: idle in a transaction for {duration(max(beyond))}"


def seconds(setting: str) -> float | None:
    """A time as PostgreSQL writes it, in seconds; None if it is 0 (no limit) or not understood."""
    number = setting.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = setting[len(number) :].strip() or "ms"
    try:
        return float(number) * _UNITS[unit] or None
    except (ValueError, KeyError):
        return None


def _slow(check: Check, evidence: Evidence, means: tuple[float, ...]) -> Result:
    del evidence
    slowest = max(means, default=0.0)
    slow = sum(1 for mean in means if check.warning is not None and mean >= check.warning)
    if not slow:
        return judge(check, slowest, f"the slowest takes {slowest:.1f} s on average")
    verb = "takes" if slow == 1 else "take"
    summary = (
        f"{counted(slow, 'statement')} {verb} {check.warning:g} s or more on average, up to {slowest:.1f} s"
    )
    return judge(check, slowest, summary)


EVALUATIONS: dict[str, Evaluate] = {
    "server": _server,
    "schema": of_fact("schema", _schema),
    "drift": of_host(_drift),
    "connections": of_fact("connections", _connections),
    "limits": of_fact("lifted", _limits),
    "slow_statements": of_fact("slow", _slow),
}
