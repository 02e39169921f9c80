"""A database of another program on the same host: its owner, its backup and its restore."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg2
import pytest
from testinfra.host import Host

from tests.hosts import Server

testinfra_hosts = ["ansible://occupancy"]

Superuser = Callable[..., str]

NAME = "homeassistant"
ROWS = "SELECT count(*), sum(n) FROM states"


def test_an_owner_connects_to_its_own_database_alone(server: Server, superuser: Superuser) -> None:
    server.query(NAME, "CREATE TABLE states AS SELECT generate_series(1, 100) AS n", dbname=NAME)
    assert (
        superuser(f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{NAME}'") == "8"
    )  # with those of a restore
    for user, database in [
        (NAME, "occupancy"),
        (NAME, "postgres"),
        ("occupancy_app", NAME),
        ("occupancy", NAME),
    ]:
        with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects connection"):
            server.connect(user, dbname=database)


def test_one_job_backs_up_both_databases_and_the_second_is_restored(
    host: Host, server: Server, superuser: Superuser
) -> None:
    first = superuser("SELECT count(*) FROM sensor_readings")
    host.check_output("occupancy-job backup 600 occupancy-db backup create --all")
    listed = json.loads(host.check_output(f"occupancy-db --json backup list --database {NAME} </dev/null"))
    assert listed["sets"][-1]["state"] == "verified"
    metrics = host.file(f"/var/lib/occupancy/metrics/occupancy_backups-{NAME}.prom").content_string
    assert f'occupancy_backup_last_exit_code{{database="{NAME}"}} 0' in metrics.splitlines()

    server.query(NAME, "DROP TABLE states", dbname=NAME)
    said = host.check_output(f"occupancy-db restore latest --confirm {NAME} </dev/null")
    assert f"{NAME} was restored from {listed['sets'][-1]['id']}" in said
    assert server.query(NAME, ROWS, dbname=NAME) == [(100, 5050)]
    assert superuser("SELECT count(*) FROM sensor_readings") == first
