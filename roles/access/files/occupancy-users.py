#!/usr/bin/python3
"""occupancy-users DIRECTORY SOCKETS [GRACE]: put users' logins right, and end sessions beyond their limits.

A user may change its own password and settings (ALTER ROLE), and lift the limits of its sessions (SET).
DIRECTORY has users.json, which role access writes, and the password files; SOCKETS is the directory of the
server's socket; GRACE is how much longer than its limit a session may take, a minute by default. Runs as root
on the host, who is the superuser there. Prints each change. Exits with 0 if there was nothing to do, and with
13 if there was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

DIFFERENT = 13
"""As of occupancy-db."""

LIMITS = ("idle_in_transaction_session_timeout", "statement_timeout")

SETTINGS = """
    SELECT rolname, datname, unnest(setconfig)
    FROM pg_db_role_setting
    JOIN pg_roles ON pg_roles.oid = setrole LEFT JOIN pg_database ON pg_database.oid = setdatabase
"""

SECRETS = "SELECT rolname, coalesce(rolpassword, '') FROM pg_authid WHERE rolcanlogin"

# The server's own timeouts act first; a minute later only sessions that have lifted them are left. The tools
# of the owner lift its limits, and are not ended.
SESSIONS = """
    WITH session AS (
        SELECT activity.*, wanted.*,
               clock_timestamp() - state_change AS idle, clock_timestamp() - query_start AS busy
        FROM pg_stat_activity AS activity
        JOIN unnest(%(names)s::text[], %(idle)s::text[], %(statement)s::text[])
            AS wanted (name, idle_limit, statement_limit) ON name = usename
        WHERE NOT EXISTS (SELECT FROM pg_database WHERE datdba = usesysid)
    ), reason AS (
        SELECT pid, usename, application_name, CASE
            WHEN state LIKE 'idle in transaction%%'
                AND idle > nullif(idle_limit, '0')::interval + %(grace)s::interval
                THEN format(
                    'idle in transaction for %%s s, limit %%s', extract(epoch FROM idle)::int, idle_limit
                )
            WHEN state = 'active' AND busy > nullif(statement_limit, '0')::interval + %(grace)s::interval
                THEN format('a statement of %%s s, limit %%s', extract(epoch FROM busy)::int, statement_limit)
        END AS why
        FROM session
    )
    SELECT format('ended pid %%s, "%%s", user %%s: %%s', pid, application_name, usename, why)
    FROM reason WHERE CASE WHEN why IS NOT NULL THEN pg_terminate_backend(pid) ELSE false END
"""


def main(directory: Path, sockets: str, grace: str = "1min") -> int:
    """Look at all users and their sessions, and return the exit code."""
    users = json.loads((directory / "users.json").read_text(encoding="utf-8"))
    connection = psycopg2.connect(
        host=sockets,
        user="postgres",
        dbname="postgres",
        application_name="occupancy-users",
        connect_timeout=10,
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            done = [*reset_settings(cursor, users), *reset_passwords(cursor, users, directory / "secrets")]
            done += end_sessions(cursor, users, grace)
    finally:
        connection.close()
    for line in done:
        print(f"<4>{line}")
    return DIFFERENT if done else 0


def reset_settings(cursor: Any, users: list[dict[str, Any]]) -> list[str]:
    """Give each user its settings again, and no others; return what was different."""
    cursor.execute(SETTINGS)
    found: dict[str, set[tuple[str | None, str]]] = {}
    for name, database, setting in cursor.fetchall():
        found.setdefault(name, set()).add((database, setting))
    done = []
    for user in users:
        name, present = user["name"], found.get(user["name"], set())
        wanted = {(None, f"{key}={value}") for key, value in user["settings"].items()}
        if present == wanted:
            continue
        role = sql.Identifier(name)
        statements = [sql.SQL("ALTER ROLE {} RESET ALL").format(role)]
        statements += [
            sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, sql.Identifier(database))
            for database in {database for database, _ in present if database}
        ]
        statements += [
            sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(key), sql.Literal(str(value)))
            for key, value in user["settings"].items()
        ]
        cursor.execute(sql.SQL("BEGIN; {}; COMMIT").format(sql.SQL("; ").join(statements)))
        more = present - wanted
        was = [setting + (f" in {database}" if database else "") for database, setting in more]
        done.append(f"user {name} had changed its settings: {', '.join(sorted(was)) or 'some were removed'}")
    return done


def reset_passwords(cursor: Any, users: list[dict[str, Any]], secrets: Path) -> list[str]:
    """Give each user the password that is in its file; return who had another."""
    cursor.execute(SECRETS)
    present = dict(cursor.fetchall())
    done = []
    for user in users:
        name = user["name"]
        password = (secrets / name).read_text(encoding="utf-8").rstrip("\n")
        if name in present and not matches(password, present[name]):
            secret = encrypt_password(password, name, scope=cursor.connection, algorithm="scram-sha-256")
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
            cursor.execute(statement.format(sql.Identifier(name), sql.Literal(secret)))
            done.append(f"user {name} had changed its password: that of {secrets / name} is set again")
    return done


def matches(password: str, secret: str) -> bool:
    """Whether a SCRAM secret belongs to the password (RFC 5803). True for a password that is not ASCII."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", secret)
    if not password.isascii():
        return True
    if not found:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(key, base64.b64decode(found[3]))


def end_sessions(cursor: Any, users: list[dict[str, Any]], grace: str) -> list[str]:
    """End the sessions that outlive the limits of their users, and return their descriptions."""
    limits = {name: [interval(cursor, user["settings"].get(name, "0")) for user in users] for name in LIMITS}
    arguments = {"names": [user["name"] for user in users], "grace": grace}
    cursor.execute(SESSIONS, arguments | {"idle": limits[LIMITS[0]], "statement": limits[LIMITS[1]]})
    return [line for (line,) in cursor.fetchall()]


def interval(cursor: Any, limit: object) -> str:
    """A limit as PostgreSQL shows it, with its unit; 0 for none."""
    cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [str(limit)])
    return str(cursor.fetchone()[0])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
