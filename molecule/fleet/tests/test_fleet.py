"""A release comes to three hosts in use, in this order: planned, stopped by a failure, continued, rolled back.

Most of the time of this scenario goes into runs of playbooks: each run shows as much as it can. Where the
batches do not matter, EVERY takes all hosts at once.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import testinfra
from testinfra.host import Host

from tests.application import INSERT, Application
from tests.hosts import ROOT, find_server, run_playbook
from tests.releases import HEAD, example_revision
from tests.waiting import wait_for

NAMES = ["occupancy-home1", "occupancy-home2", "occupancy-home3"]
CANARY, *REST = NAMES
NEXT = "801_add_expected_vacancy"
NEXT_VERSION = "0.2.0"
ENTITY = "binary_sensor.fleet"
EVERY = ["100%"]
REFUSING = "ALTER TABLE sensor_readings ADD CONSTRAINT nothing CHECK (false) NOT VALID"
"""The application cannot write."""


class Fleet:
    """The hosts, and a playbook run on all of them."""

    def __init__(self, release: Path) -> None:
        self.release = release
        self.hosts: dict[str, Host] = {name: testinfra.get_host(f"docker://{name}") for name in NAMES}
        self.servers = {name: find_server(name, host) for name, host in self.hosts.items()}

    def migrate(
        self, *arguments: str, root: Path | None = None, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        return run_playbook("migrate.yml", *arguments, root=root or self.release, **variables)

    def revisions(self) -> list[str]:
        return [
            server.query("occupancy", "SELECT version_num FROM alembic_version")[0][0]
            for server in self.servers.values()
        ]

    def started(self) -> list[float]:
        """When each server was started."""
        query = "SELECT extract(epoch FROM pg_postmaster_start_time())::float8"
        return [server.query("occupancy_readonly", query)[0][0] for server in self.servers.values()]

    def tools(self) -> list[str]:
        """The version of the tools of each host."""
        images = [host.check_output("grep OPS_IMAGE /opt/occupancy/.env") for host in self.hosts.values()]
        return [image.split(":")[1].split("-")[0] for image in images]

    def images(self) -> list[set[str]]:
        """The images of each host's engine."""
        listed = "docker image ls --format '{{.Repository}}:{{.Tag}}'"
        return [set(host.check_output(listed).split()) for host in self.hosts.values()]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next release: a copy of this checkout with another version and one more revision."""
    place = tmp_path_factory.mktemp("release") / "checkout"
    shutil.copytree(
        ROOT, place, ignore=shutil.ignore_patterns(".*cache*", ".git", ".venv", "images.tar", ".ansible")
    )
    project = place / "pyproject.toml"
    text, count = re.subn(r'(?m)^version = ".+"$', f'version = "{NEXT_VERSION}"', project.read_text())
    assert count == 1
    project.write_text(text)
    text = example_revision(ROOT / f"tests/database/example/{NEXT}.py")
    (place / f"migrations/versions/{NEXT}.py").write_text(text)
    return place


@pytest.fixture(scope="module")
def fleet(release: Path) -> Fleet:
    return Fleet(release)


@pytest.fixture(scope="module")
def applications(fleet: Fleet) -> Iterator[dict[str, Application]]:
    """An application on each host, of the release before, from the first migration to the last."""
    running = {name: Application(server, ENTITY) for name, server in fleet.servers.items()}
    for application in running.values():
        application.start()
    yield running
    for application in running.values():
        application.end()


def table(run: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The table at the end of a run: from, to, seconds, slowest lock and result of each host."""
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in run.stdout.splitlines()
        if line.startswith("│")
    ]
    assert rows, run.stdout[-6000:] + run.stderr[-2000:]
    found: dict[str, list[str]] = {}
    for host, *cells in rows:
        if host:
            found[host] = cells
        else:  # the continuation of a cell
            last = found[next(reversed(found))]
            last[:] = [f"{before} {more}".strip() for before, more in zip(last, cells, strict=True)]
    return found


def recap(run: subprocess.CompletedProcess[str], word: str) -> dict[str, int]:
    """A number of Ansible's recap by host."""
    lines = re.findall(rf"^(occupancy-home\d) .*\b{word}=(\d+)", run.stdout, re.MULTILINE)
    return {host: int(number) for host, number in lines}


def rooms(fleet: Fleet) -> list[list[tuple[str, str | None]]]:
    """The rooms that each host has besides those of the schema, and the labels."""
    query = (
        "SELECT known.room, rooms.label "
        "FROM unnest(enum_range(NULL::room_type)::text[]) WITH ORDINALITY AS known (room, place) "
        "LEFT JOIN rooms USING (room) WHERE place > 6 OR label IS NOT NULL ORDER BY place"
    )
    return [server.query("occupancy_readonly", query) for server in fleet.servers.values()]


def test_each_host_has_the_rooms_of_its_variables(fleet: Fleet) -> None:
    expected: list[list[tuple[str, str | None]]] = [
        [("kitchen", None), ("l'atelier", None)],
        [("office", "Büro"), ("garage", "Garage 名 €")],
        [],
    ]
    assert rooms(fleet) == expected
    # A room of the command line, beside the host's own, on one host. The next run changes nothing: the inventory
    # does not bring back what was retired meanwhile.
    chosen: dict[str, Any] = {"occupancy_rooms": ["kitchen", {"name": "-o", "label": "Option"}]}
    for number in (1, 0):
        run = run_playbook("site.yml", "--limit", f"localhost,{CANARY}", **chosen)
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        assert recap(run, "changed") == {CANARY: number}
        if number:
            expected[0].append(("-o", "Option"))
            assert rooms(fleet) == expected
            fleet.hosts[CANARY].check_output("occupancy-db rooms retire kitchen </dev/null")
    with pytest.raises(psycopg2.errors.CheckViolation, match='room "kitchen" was retired on'):
        fleet.servers[CANARY].query("occupancy_app", INSERT.replace("'office'", "'kitchen'") % f"'{ENTITY}'")


def test_a_check_shows_the_plan_of_each_host_and_changes_nothing(fleet: Fleet) -> None:
    run = fleet.migrate("--check")
    assert run.returncode == 0, run.stdout[-6000:]
    assert table(run) == {name: [HEAD, NEXT, "", "", f"would apply {NEXT}"] for name in NAMES}
    assert fleet.revisions() == [HEAD] * 3
    assert fleet.tools() == ["0.1.0"] * 3


def test_a_canary_that_fails_stops_the_run_before_the_other_hosts(
    fleet: Fleet, applications: dict[str, Application]
) -> None:
    before = {name: fleet.hosts[name].check_output("docker image ls --quiet | sort") for name in REST}
    holder = fleet.servers[CANARY].connect("occupancy", application_name="a-forgotten-window")
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM predictions")
        old = "SELECT now() - xact_start > interval '11 s' FROM pg_stat_activity WHERE application_name = 'a-forgotten-window'"
        wait_for(lambda: fleet.servers[CANARY].query("occupancy", old)[0][0], "a transaction of 11 s")
        run = fleet.migrate()
    holder.close()
    assert run.returncode == 2, run.stdout[-6000:] + run.stderr[-2000:]
    rows = table(run)
    assert rows[CANARY][:2] == [HEAD, HEAD]
    assert rows[CANARY][4].startswith("failed: ")
    assert '"a-forgotten-window", user occupancy' in rows[CANARY][4]
    assert [rows[name] for name in REST] == [["", "", "", "", "not begun"]] * 2
    assert [recap(run, "changed")[name] for name in REST] == [0, 0]  # they were asked for an answer only
    assert fleet.revisions() == [HEAD] * 3
    assert fleet.tools() == ["0.1.0"] * 3
    assert {name: fleet.hosts[name].check_output("docker image ls --quiet | sort") for name in REST} == before
    assert {name: one.failures for name, one in applications.items()} == {name: [] for name in NAMES}


def test_the_next_run_migrates_all_hosts_and_no_write_is_lost(
    fleet: Fleet, applications: dict[str, Application]
) -> None:
    written = {name: one.written for name, one in applications.items()}
    before = fleet.images()[1]
    for host, old in itertools.product(fleet.hosts.values(), ("occupancy-ops:0.0.9", "somebody:else")):
        host.check_output(f"docker tag $(docker image ls --quiet occupancy-ops | head -n 1) {old}")
    # site.yml with the tag migrate uses batches, too.
    run = run_playbook("site.yml", "--tags", "migrate", root=fleet.release)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    rows = table(run)
    assert [rows[name][:2] for name in NAMES] == [[HEAD, NEXT]] * 3
    assert {row[4] for row in rows.values()} == {"migrated, serves"}
    assert all(float(row[3].removesuffix(" ms")) >= 0 and float(row[2]) > 0 for row in rows.values())
    assert fleet.revisions() == [NEXT] * 3
    assert fleet.tools() == [NEXT_VERSION] * 3
    for name, application in applications.items():
        assert application.written > written[name], name  # the application wrote meanwhile
        application.end()
        assert application.failures == []
        assert application.rows() == application.written
    # Each host has a backup set that was made before the migration.
    for host in fleet.hosts.values():
        sets = json.loads(host.check_output("occupancy-db --json backup list </dev/null"))["sets"]
        assert "verified" in {one["state"] for one in sets}
    # The engine keeps the images of this release and of the one before, and images of other projects.
    images = fleet.images()
    assert images[0] == images[1] == images[2]
    assert images[1] - before - {"somebody:else"} == {x for x in images[1] if f":{NEXT_VERSION}-" in x}
    assert before | {"somebody:else"} < images[1]
    assert "occupancy-ops:0.0.9" not in images[1]


def test_one_command_takes_all_hosts_back_to_the_previous_release(fleet: Fleet) -> None:
    run = run_playbook("site.yml", migrations_serial=EVERY)
    assert run.returncode == 0, run.stdout[-6000:]
    ahead = f"serves, ahead of this release by {NEXT}"
    assert table(run) == {name: [NEXT, NEXT, "", "0 ms", ahead] for name in NAMES}
    assert fleet.tools() == ["0.1.0"] * 3
    assert fleet.revisions() == [NEXT] * 3
    for server in fleet.servers.values():
        server.query("occupancy_app", INSERT % f"'{ENTITY}'")
    host = fleet.hosts[CANARY]
    assert "ahead of this release" in host.check_output("occupancy-db current </dev/null")
    host.check_output("occupancy-job maintain 600 occupancy-db partitions maintain")
    host.check_output("occupancy-db backup create </dev/null")
    check = fleet.migrate("--check", "--limit", CANARY, root=ROOT)
    assert check.returncode == 0, check.stdout[-6000:]
    assert table(check)[CANARY][4] == f"nothing to do, ahead of this release by {NEXT}"


def test_a_host_is_not_handed_over_if_its_application_cannot_write(fleet: Fleet) -> None:
    secret = "/opt/occupancy/secrets/occupancy_app"
    fleet.hosts[REST[0]].check_output(f"mv {secret} {secret}.kept; printf wrong >{secret}")
    run = fleet.migrate(migrations_serial=[2, 1])
    fleet.hosts[REST[0]].check_output(f"mv {secret}.kept {secret}")
    assert run.returncode == 2, run.stdout[-6000:]
    rows = table(run)
    assert "password authentication failed" in rows[REST[0]][4]
    # The other host of its batch is finished, and the next batch is not started.
    assert [rows[name][4] for name in (CANARY, REST[1])] == ["was there already, serves", "not begun"]
    assert fleet.tools() == [NEXT_VERSION, "0.1.0", "0.1.0"]


def test_an_unreachable_host_does_not_affect_the_others(fleet: Fleet) -> None:
    down = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": 9,
    }  # no program listens there
    inventory = fleet.release / "down.yml"
    inventory.write_text(json.dumps({"occupancy": {"hosts": {REST[0]: down}}}))
    refused = fleet.migrate("--inventory", str(inventory), migrations_max_unreachable=0)
    assert refused.returncode != 0, refused.stdout[-6000:]
    assert f"1 of 3 hosts are offline ({REST[0]})" in " ".join(refused.stdout.split())
    assert fleet.tools() == [NEXT_VERSION, "0.1.0", "0.1.0"]

    # An older release was copied to the canary, and was refused.
    environment = fleet.hosts[CANARY].file("/opt/occupancy/.env")
    fleet.hosts[CANARY].check_output("sed -i /RELEASE_IMAGE/s/0.2.0/0.1.0/ /opt/occupancy/.env")
    run = fleet.migrate("--inventory", str(inventory))
    assert run.returncode == 4, run.stdout[-6000:]
    there = "was there already, serves"
    assert [row[4] for row in table(run).values()] == [there, "unreachable", there]
    assert fleet.tools() == [NEXT_VERSION, "0.1.0", NEXT_VERSION]
    assert "RELEASE_IMAGE=occupancy-ops:0.2.0-" in environment.content_string


def test_a_host_that_has_the_release_is_not_changed(fleet: Fleet) -> None:
    run = fleet.migrate("--limit", CANARY)
    assert run.returncode == 0, run.stdout[-6000:]
    assert recap(run, "changed") == {CANARY: 0}
    assert table(run) == {CANARY: [NEXT, NEXT, "", "0 ms", "was there already, serves"]}


def test_everything_that_restarts_a_server_comes_in_stages(fleet: Fleet) -> None:
    run = run_playbook("site.yml", "--tags", "migrate,backup", root=fleet.release)
    assert run.returncode == 2
    assert "Run with the tag migrate first" in run.stdout
    fleet.hosts[REST[1]].check_output("occupancy-db rollback </dev/null")
    assert fleet.revisions() == [NEXT, NEXT, HEAD]
    started = fleet.started()
    settings = {"postgres_settings": {"max_locks_per_transaction": 200}}

    # The plan: which servers would restart, and why
    check = run_playbook("site.yml", "--check", root=fleet.release, migrations_serial=EVERY, **settings)
    assert check.returncode == 0, check.stdout[-6000:]
    for row in table(check).values():
        assert re.search(r"max_locks_per_transaction: \w+ → 200", row[4]), row
    assert fleet.started() == started

    # The application of the canary cannot write after the restart: no other server is restarted.
    fleet.servers[CANARY].query("occupancy", REFUSING)
    run = run_playbook("site.yml", "--tags", "postgres", root=fleet.release, **settings)
    fleet.servers[CANARY].query("occupancy", "ALTER TABLE sensor_readings DROP CONSTRAINT nothing")
    assert run.returncode == 2, run.stdout[-6000:]
    assert 'violates check constraint "nothing"' in table(run)[CANARY][5], run.stdout[-6000:]
    assert [table(run)[name][5] for name in REST] == ["not begun"] * 2
    assert [new > old for new, old in zip(fleet.started(), started, strict=True)] == [True, False, False]

    # One command: the canary has all, the second host gets the tools, the third one the migration, both a restart.
    run = run_playbook("site.yml", root=fleet.release, **settings)
    assert run.returncode == 0, run.stdout[-6000:]
    assert [row[5] for row in table(run).values()] == [*["was there already, serves"] * 2, "migrated, serves"]
    assert all(new > old for new, old in zip(fleet.started(), started, strict=True))
    assert fleet.revisions() == [NEXT] * 3
    assert fleet.tools() == [NEXT_VERSION] * 3


def test_a_rotation_comes_in_stages(fleet: Fleet) -> None:
    state = "sha256sum /opt/occupancy/tls/server.pem"
    before, started = [host.check_output(state) for host in fleet.hosts.values()], fleet.started()
    fleet.servers[CANARY].query("occupancy", REFUSING)
    # The setting waits for a restart, which must not come to all servers at once.
    waiting = {"postgres_settings": {"max_locks_per_transaction": 300}}
    run = run_playbook("rotate.yml", "--tags", "rotate-tls", root=fleet.release, **waiting)
    assert run.returncode == 2, run.stdout[-6000:]
    assert 'violates check constraint "nothing"' in table(run)[CANARY][-1], run.stdout[-6000:]
    assert [table(run)[name][-1] for name in REST] == ["not begun"] * 2
    after = [host.check_output(state) for host in fleet.hosts.values()]
    assert [new != old for new, old in zip(after, before, strict=True)] == [True, False, False]
    assert fleet.started()[1:] == started[1:]


def test_a_host_without_a_cluster_is_refused(fleet: Fleet) -> None:
    fleet.hosts[CANARY].check_output("mv /opt/occupancy/initialised /opt/occupancy/moved")
    run = fleet.migrate("--limit", CANARY, occupancy_data_dir="/srv/nothing/here")
    fleet.hosts[CANARY].check_output("mv /opt/occupancy/moved /opt/occupancy/initialised")
    assert run.returncode == 2
    assert "Provision it first (make up)" in table(run)[CANARY][4]
    assert recap(run, "changed") == {CANARY: 0}
