"""A host's backups, in this order: made by cron, copied to another place, and restored after data was lost."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest
from testinfra.host import Host

from tests.hosts import ROOT, Server
from tests.waiting import wait_for

testinfra_hosts = ["ansible://occupancy"]

Play = Callable[..., subprocess.CompletedProcess[str]]
Superuser = Callable[..., str]

# Made for this file only.
RECIPIENT = "age1s0ta3fwgwhkurxhdhg3ryk8fdeh7x8zp6x4k070vts77z2jquvwqrnwg8j"
IDENTITY = "AGE-SECRET-KEY-1GFS3JDAUYTFRX00HVMQSG8M852WZXM573UN6T08N2QV6S2ENKJFQ69DV27"
REMOTE_SECRET = "the-password-of-the-remote"

INVENTORY = {
    "backup_offsite_remote": "store:/srv/elsewhere",
    "backup_offsite_config": f"[store]\ntype = local\npass = {REMOTE_SECRET}\n",
    "backup_offsite_age_recipients": [RECIPIENT],
}
TABLE = "/etc/cron.d/occupancy-backup"
SETS = "/var/lib/occupancy/backups"
SIGNING = "/opt/occupancy/signing"
PUBLISHED = ROOT / "dist/ca/occupancy-backup.minisign.pub"
METRICS = "/var/lib/occupancy/metrics"
ELSEWHERE = "/srv/elsewhere/occupancy-backup"

CONTENTS = """
    SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM sensor_readings AS t
    UNION ALL SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM room_transitions AS t
    UNION ALL SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM predictions AS t
    UNION ALL SELECT format('%s hours, %s readings', count(*), sum(reading_count)) FROM sensor_reading_stats
    UNION ALL SELECT version_num FROM alembic_version
    ORDER BY 1
"""
saved: dict[str, str] = {}
"""The content of the database after it was filled."""

# Prints whether a backup is running, and whether processes or the engine show a secret.
LOOK = r"""
{ cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; docker inspect $(docker ps --quiet); } 2>/dev/null | tr '\0' ' ' >/run/shown
grep --quiet 'occupancy_db backup create' /run/shown && echo running
grep --quiet --text --fixed-strings --file /run/needles /run/shown && echo leaked
"""
WATCH = r"""
{ for file in /opt/occupancy/secrets/*; do cat $file; echo; done; sed -n 2p /opt/occupancy/signing/key; sed -n 's/^pass = //p' /opt/occupancy/rclone.conf; } >/run/needles
(until [ -e /run/enough ]; do sh /run/look; sleep 0.1; done >/run/watched 2>&1 &)
"""

# As unattended-upgrades after the first boot: holds dpkg's locks until another program has tried twice to get them.
UPGRADE = """
import ctypes, fcntl, os, pathlib
locks = [open(f"/var/lib/dpkg/{name}", "w") for name in ("lock-frontend", "lock")]
for lock in locks:
    fcntl.lockf(lock, fcntl.LOCK_EX)
libc = ctypes.CDLL("libc.so.6")
watch = libc.inotify_init()
libc.inotify_add_watch(watch, b"/var/lib/dpkg/lock-frontend", 0x20)  # opened
pathlib.Path("/run/upgrades").touch()
for _ in range(2):
    os.read(watch, 4096)
pathlib.Path("/run/upgrades").rename("/run/upgraded")
"""


def job(host: Host, name: str) -> str:
    """The command of a job in the crontab."""
    found = re.search(
        rf"^(?:\S+ ){{5}}root (occupancy-job {name} .+)$", host.file(TABLE).content_string, re.MULTILINE
    )
    assert found
    return found[1]


def metric(host: Host, file: str, name: str) -> float:
    """A number from a metric file; `name` includes the labels."""
    text = host.file(f"{METRICS}/{file}.prom").content_string
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


def verified(host: Host, database: str = "occupancy") -> list[str]:
    """The IDs of the verified sets of a database, oldest first."""
    command = f"occupancy-db --json backup list --database {database} </dev/null"
    listed = json.loads(host.check_output(command))["sets"]
    return [one["id"] for one in listed if one["state"] == "verified"]


def changed(run: subprocess.CompletedProcess[str]) -> int:
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    found = re.search(r"^occupancy-backup .* changed=(\d+)", run.stdout, re.MULTILINE)
    assert found
    return int(found[1])


def test_the_tag_backup_installs_the_jobs_and_makes_a_backup(
    host: Host, server: Server, superuser: Superuser, play: Play
) -> None:
    subprocess.run(
        [ROOT / ".venv/bin/occupancy-db", "seed", "--days", "7"],
        env=server.environment(ENVIRONMENT="development"),
        cwd="/",
        check=True,
    )
    saved["contents"] = superuser(CONTENTS)
    assert superuser("SELECT count(*) > 500 FROM sensor_readings") == "t"

    assert not host.package("rclone").is_installed
    host.check_output(
        "(python3 -c %s >/dev/null 2>&1 &); until [ -e /run/upgrades ]; do sleep 0.1; done", UPGRADE
    )
    started = superuser("SELECT pg_postmaster_start_time()")
    run = play(
        "--tags", "access,backup", "--diff", "-v",
        **INVENTORY, backup_schedule="* * * * *", backup_keep_last=4, postgres_settings={"max_worker_processes": 9},
    )  # fmt: skip
    assert changed(run) > 0
    assert host.file("/run/upgraded").exists  # the installation of rclone has waited
    # A setting that is pending stays so: nothing restarts before a backup.
    assert superuser("SELECT pg_postmaster_start_time()") == started
    assert (
        "max_worker_processes = '9'"
        not in host.file("/opt/occupancy/postgresql/postgresql.conf").content_string
    )
    assert "OCCUPANCY_BACKUP_KEEP_LAST=4" in host.file("/opt/occupancy/.env").content_string
    assert "is verified" in run.stdout
    assert REMOTE_SECRET not in run.stdout + run.stderr
    assert len(verified(host)) == 1
    assert metric(host, "occupancy_backup", 'occupancy_job_last_exit_code{job="backup"}') == 0
    assert metric(host, "occupancy_backups", 'occupancy_backup_sets{state="verified"}') == 1
    host.check_output("printf %%s %s >/run/look", LOOK)
    host.check_output(WATCH)  # cron takes the next one

    # Two databases: the limit of the job is for both.
    assert job(host, "backup") == "occupancy-job backup 6000 occupancy-db backup create --all"
    assert job(host, "verify-backups").endswith(" occupancy-db backup verify --older-than 7 --all")
    assert job(host, "restore-cleanup").endswith(" occupancy-db restore-cleanup")
    assert job(host, "check-schema") == "occupancy-job check-schema 900 occupancy-db check-tables"
    host.check_output(job(host, "check-schema"))
    assert metric(host, "occupancy_check-schema", 'occupancy_job_last_exit_code{job="check-schema"}') == 0
    assert (host.file("/opt/occupancy/rclone.conf").mode, host.file(SETS).mode) == (0o600, 0o700)


def test_all_wrong_variables_are_named_in_one_message_without_secrets(play: Play) -> None:
    run = play(
        backup_schedule="@hourly",
        backup_keep_last=0,
        backup_offsite_remote="store:",
        backup_offsite_config=f"[other]\npass = {REMOTE_SECRET}\n",
        backup_offsite_age_recipients=[IDENTITY],
        backup_offsite_keep=0,
    )
    said = " ".join(run.stdout.split())
    assert run.returncode != 0
    for problem in (
        "are 24, 7, 5, 12, 0.",
        "Not so: @hourly.",
        "is store:.",
        "section [store]",
        "Copies are encrypted",
        "backup_offsite_keep must",
    ):
        assert problem in said
    assert REMOTE_SECRET not in said
    assert IDENTITY not in said


@pytest.mark.parametrize(
    ("tag", "variables", "says"),
    [
        ("restore", {"restore_set": "yesterday"}, ["'yesterday' is none", "-e restore_confirm=occupancy."]),
        ("restore-rollback", {"restore_confirm": "elsewhere"}, ["-e restore_confirm=occupancy."]),
    ],
)
def test_a_restore_without_an_exact_set_and_confirmation_is_refused(
    play: Play, tag: str, variables: dict[str, str], says: list[str]
) -> None:
    run = play("--tags", tag, **variables)
    said = " ".join(run.stdout.split())
    assert run.returncode != 0
    assert " changed=0 " in said
    assert [part for part in says if part not in said] == []


def test_the_manuals_commands_work_as_the_owner(host: Host, superuser: Superuser) -> None:
    # A client on the network runs the programs of the image. The password is in the file that libpq reads.
    host.check_output("umask 077; sed 's/^/*:*:*:occupancy:/' /opt/occupancy/secrets/occupancy >/run/pgpass")
    image = host.check_output("sed -n 's/^OCCUPANCY_POSTGRES_IMAGE=//p' /opt/occupancy/.env")
    inside = (
        "docker run --rm --interactive --network host --volume /run/pgpass:/pgpass:ro --env PGPASSFILE=/pgpass "
        "--volume /opt/occupancy/tls/ca.crt:/ca.crt:ro --env PGSSLMODE=verify-full --env PGSSLROOTCERT=/ca.crt "
        f"--user 0 --entrypoint sh {image} -c"
    )
    host.check_output(f"{inside} 'pg_dump -h localhost -U occupancy occupancy' >/run/backup.sql")
    host.check_output(f"{inside} 'pg_dump -s -h localhost -U occupancy occupancy' >/run/schema.sql")
    host.check_output(
        f"{inside} 'psql -q -v ON_ERROR_STOP=1 -h localhost -U occupancy occupancy_test' </run/backup.sql"
    )
    assert superuser(CONTENTS, "occupancy_test") == saved["contents"]
    schema = host.file("/run/schema.sql").content_string
    assert "CREATE TABLE public.sensor_readings" in schema
    assert "\nCOPY " not in schema


def test_cron_makes_a_backup_and_no_secret_is_visible(host: Host, server: Server) -> None:
    wait_for(
        lambda: len(verified(host)) >= 2,
        "the backup of cron's",
        interval=1,
        limit=600,
        explain=lambda: host.check_output("journalctl --lines 40 --no-pager"),
    )
    sets = verified(host)
    # The tests that follow start backups themselves.
    host.check_output(f"sed -i '/occupancy-job backup /d' {TABLE}; flock /run/occupancy/backup.lock true")
    host.check_output("touch /run/enough")
    assert set(host.check_output("cat /run/watched").splitlines()) == {"running"}
    # The search finds a secret where there is one.
    bait = (
        "env BAIT=$(cat /opt/occupancy/secrets/occupancy_app) sleep 600 >/dev/null 2>&1 & "
        "until tr '\\0' '\\n' </proc/$!/environ | grep --quiet ^BAIT=; do sleep 0.1; done; sh /run/look; kill $!"
    )
    assert "leaked" in host.run("timeout 180 sh -c %s", bait).stdout

    places = {
        "journal": "journalctl --no-pager --quiet --all",
        "metrics": f"cat {METRICS}/*.prom",
        "manifests": f"cat {SETS}/{sets[-1]}/*.json {SETS}/{sets[-1]}/globals.sql",
        "table": f"cat {TABLE}",
        "temporary files": "find /tmp /var/tmp /var/lib/occupancy/rehearsal -xdev -type f -exec cat {} +",
    }
    for place, command in places.items():
        shown = host.check_output(command)
        assert shown or place == "temporary files", place
        for secret in [*server.passwords.values(), REMOTE_SECRET, "SCRAM-SHA-256$"]:
            assert secret not in shown, place
    assert "is verified" in host.check_output("journalctl --quiet --output cat --identifier occupancy-backup")


def test_a_symbolic_link_in_place_of_the_metrics_is_not_followed(host: Host) -> None:
    before = host.file(f"{METRICS}/occupancy_backups.prom").content_string
    host.check_output(f"mv {SETS}/.backup.prom {SETS}/.kept; ln -s /etc/shadow {SETS}/.backup.prom")
    host.check_output("occupancy-job probe 60 true")
    host.check_output(
        f"rm -f {SETS}/.backup.prom; mv {SETS}/.kept {SETS}/.backup.prom; rm {METRICS}/occupancy_probe.prom"
    )
    assert host.file(f"{METRICS}/occupancy_backups.prom").content_string == before
    assert host.check_output(f"find {METRICS} -type f -not -name '*.prom' -or -not -perm 644 -type f") == ""


def test_sets_are_signed_with_a_key_that_stays_on_the_host(host: Host) -> None:
    key, trusted = host.file(f"{SIGNING}/key"), host.file(f"{SIGNING}/trusted.pub")
    assert (key.mode, key.uid, trusted.mode) == (0o600, 10001, 0o644)
    assert trusted.content_string == PUBLISHED.read_text()
    for name in verified(host):
        assert host.file(f"{SETS}/{name}/manifest.json.minisig").mode == 0o600
    secret = key.content_string.splitlines()[1]
    assert secret not in host.check_output("journalctl --no-pager --quiet --all")
    shown = host.check_output(
        "docker compose --project-directory /opt/occupancy --profile '*' config --format json"
    )
    assert secret not in shown
    services = json.loads(shown)["services"]
    assert {
        name
        for name, service in services.items()
        if any(volume.get("target") == "/run/signing" for volume in service.get("volumes", []))
    } == {"backup", "migrate", "restore"}


def test_a_forged_set_is_refused_and_an_unsigned_one_needs_the_option(
    host: Host, superuser: Superuser
) -> None:
    newest, other = verified(host)[-1], verified(host)[0]
    signature = f"{SETS}/{newest}/manifest.json.minisig"
    host.check_output(
        f"cp --archive {signature} /run/kept; cp {SETS}/{other}/manifest.json.minisig {signature}"
    )
    for option in ("", " --unsigned"):
        run = host.run(f"occupancy-db restore {newest} --confirm occupancy{option} </dev/null")
        assert run.rc == 12
        assert "no signature of a trusted key" in run.stderr
    host.check_output(f"rm {signature}")
    assert host.run(f"occupancy-db backup verify {newest} </dev/null").rc == 12
    assert host.run(f"occupancy-db backup verify {newest} --unsigned </dev/null").rc == 0
    host.check_output(f"mv /run/kept {signature}")
    assert host.run(f"occupancy-db backup verify {newest} </dev/null").rc == 0
    assert superuser(CONTENTS) == saved["contents"]


def test_a_rotated_key_signs_new_sets_and_the_former_one_stays_trusted(host: Host, play: Play) -> None:
    former, known = host.file(f"{SIGNING}/key").content_string, verified(host)
    assert changed(play("--tags", "rotate-signing", **INVENTORY)) > 0
    assert host.file(f"{SIGNING}/key").content_string != former
    assert host.file(f"{SIGNING}/trusted.pub").content_string == PUBLISHED.read_text()
    host.check_output("occupancy-db backup create </dev/null")
    newest = verified(host)[-1]
    assert newest not in known
    host.check_output(f"occupancy-db backup verify {newest} {known[-1]} </dev/null")


def test_a_copy_that_differs_from_its_set_does_not_get_the_final_name(host: Host) -> None:
    newest, oldest = verified(host)[-1], verified(host)[0]
    host.check_output(
        f"mkdir -p {ELSEWHERE}; cd {ELSEWHERE}; touch holiday.jpg occupancy_test-{oldest[10:]}.tar.age"
    )
    gone = [f"occupancy-2025120{day}T000000Z-aaaaaa.tar.age" for day in (1, 2, 3)]
    ahead = "occupancy-21200101T000000Z-aaaaaa.tar.age"  # of a clock that was ahead: kept, and not counted
    host.check_output(f"cd {ELSEWHERE}; touch {' '.join([*gone, ahead])}")
    bad = "occupancy-20251204T000000Z-aaaaaa"
    host.check_output(f"cp --archive {SETS}/{oldest} {SETS}/{bad}; touch {SETS}/{bad}/damaged")
    stub = '#!/bin/sh\ncase $1 in rcat) head -c -1 | exec /usr/bin/rclone "$@" ;; *) exec /usr/bin/rclone "$@" ;; esac\n'
    host.check_output("printf %%s %s >/usr/local/sbin/rclone; chmod 755 /usr/local/sbin/rclone", stub)
    run = host.run(job(host, "offsite"))
    host.check_output("rm /usr/local/sbin/rclone")
    assert run.rc == 1
    assert f"{newest}.tar.age.partial differs from the data that were sent" in run.stderr
    assert not host.file(f"{ELSEWHERE}/{newest}.tar.age").exists

    host.check_output(job(host, "offsite").replace(" 48 ", " 1 "))
    host.check_output(f"rm -r {SETS}/{bad}")
    others = verified(host, "homeassistant")
    assert others
    assert set(host.check_output(f"ls {ELSEWHERE}").split()) == {
        *(f"{name}.tar.age" for name in [*verified(host), *others]),
        gone[-1],
        ahead,
        "holiday.jpg",
        f"occupancy_test-{oldest[10:]}.tar.age",
    }
    assert metric(host, "occupancy_offsite_copies", "occupancy_offsite_last_copy_timestamp_seconds") > 0
    assert "age-encryption.org" in host.check_output(f"head -n 1 {ELSEWHERE}/{newest}.tar.age | cut -c 1-40")


def test_a_set_with_a_changed_byte_is_refused_and_the_database_is_unchanged(
    host: Host, superuser: Superuser
) -> None:
    newest = verified(host)[-1]
    dump = f"{SETS}/{newest}/db.dump"
    flip = (
        f"import pathlib; path = pathlib.Path('{dump}'); data = bytearray(path.read_bytes()); "
        "data[len(data) // 2] ^= 1; path.write_bytes(data)"
    )
    host.check_output("python3 -c %s", flip)
    run = host.run(f"occupancy-db restore {newest} --confirm occupancy </dev/null")
    host.check_output("python3 -c %s", flip)
    assert run.rc == 12
    assert "db.dump" in run.stderr
    assert superuser(CONTENTS) == saved["contents"]
    assert superuser("SELECT count(*) FROM pg_database WHERE datname ~ '_(restoring|replaced)$'") == "0"


def test_a_dropped_table_is_restored_and_the_restore_is_rolled_back(
    server: Server, superuser: Superuser, play: Play
) -> None:
    server.query("occupancy", "DROP TABLE sensor_readings CASCADE")
    run = play("--tags", "restore", restore_set="latest", restore_confirm="occupancy")
    assert changed(run) > 0
    for phase in ("compare: ", "try: ", "exchange: ", "occupancy was restored from occupancy-2"):
        assert phase in run.stdout
    assert superuser(CONTENTS) == saved["contents"]
    assert server.query("occupancy_readonly", "SELECT count(*) FROM sensor_readings")[0][0] > 500

    assert changed(play("--tags", "restore-rollback", restore_confirm="occupancy")) > 0
    assert superuser("SELECT to_regclass('sensor_readings') IS NULL") == "t"


def test_a_lost_host_is_restored_from_a_copy_only(host: Host, superuser: Superuser, play: Play) -> None:
    now = host.check_output("date --utc +occupancy-%Y%m%dT%H%M%SZ")
    copies = host.check_output(f"ls {ELSEWHERE} | grep -E '^occupancy-2.*Z'").split()
    copy = max(name for name in copies if name < now)  # another test has left one with a time in the future
    host.check_output(
        "docker rm --force --volumes $(docker ps --all --quiet); docker system prune --force; "
        "rm -rf /opt/occupancy /var/lib/occupancy /etc/cron.d/occupancy-*"
    )
    assert changed(made := play(**INVENTORY)) > 10
    assert "postgresql://homeassistant@" in made.stdout
    assert superuser("SELECT count(*) FROM sensor_readings") == "0"
    host.check_output(
        f"echo %s | age --decrypt --identity - {ELSEWHERE}/{copy} | tar --extract --no-same-owner --directory {SETS}",
        IDENTITY,
    )
    run = play("--tags", "restore", restore_set=copy.removesuffix(".tar.age"), restore_confirm="occupancy")
    assert changed(run) > 0
    assert superuser(CONTENTS) == saved["contents"]


def test_a_run_after_a_restore_changes_nothing(play: Play, superuser: Superuser) -> None:
    assert changed(play("--diff", **INVENTORY)) == 0
    assert superuser(CONTENTS) == saved["contents"]
