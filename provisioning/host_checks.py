"""Preflight's checks of the host, and of the variables of role occupancy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from occupancy_db.checks import thresholds
from occupancy_db.schema.time_zones import time_zone_problem
from provisioning import other_databases, rooms, run_tags, sensors
from provisioning.job_checks import SCHEDULE
from provisioning.request import IDENTIFIER, Problems, Request

SUPPORTED = {"Debian": ("12", "13"), "Ubuntu": ("22.04", "24.04")}
"""The distributions that the product supports, and their versions."""

MAJOR = "16"
"""The major version of PostgreSQL."""

FOREIGN_FILE_SYSTEMS = frozenset(
    {"9p", "cifs", "drvfs", "exfat", "msdos", "ntfs", "ntfs3", "smb3", "vboxsf", "vfat"}
)
"""File systems without the owners of files or without the guarantees that PostgreSQL needs. Disks of Windows
are 9p in WSL 2 and drvfs in WSL 1."""


IMAGES_MB = 700
"""Disk space that the images of a release may take, with the archive that they are copied in."""

CONTAINER = "occupancy-postgres-1"
"""The name of the server's container, as in compose/compose.yaml."""

OURS = "/opt/occupancy"
"""The directory of the product's Compose project, by which its containers are known."""

INTERVAL = re.compile(r"0|[1-9][0-9]{0,8}ms|[1-9][0-9]{0,5}s|[1-9][0-9]{0,3}min|[1-9][0-9]{0,2}h|[1-9]d")
"""A time as a setting of the server accepts it: about 24 days at most."""


INTERVALS = [number for number in range(1, 31) if 60 % number == 0]
"""Minutes between two runs of a job that cron starts at the same minutes of each hour."""

ENGINES = {
    "userns-remap": "remaps the users of containers (userns-remap): the server's files and the socket would "
    "belong to other users than those of the host. Remove userns-remap from /etc/docker/daemon.json",
    "rootless": "is rootless: its containers cannot have the users that the files and the socket need, and "
    "it shows every client under one address. Use an engine that runs as root",
    "snap": "is a snap, which sees neither /opt/occupancy nor the data. Replace it by Docker's or the "
    "distribution's packages",
    "no-iptables": "does not write firewall rules (iptables: false), so that every client seems to come from "
    "the engine's own gateway and occupancy_allowed_cidrs keeps none out. Remove that setting",
}
"""Why an engine of each kind that the probe recognises cannot be used, and what to do."""


def check_engine(request: Request) -> list[str]:
    """The host's engine is of a kind that the product works with."""
    return [
        f"The Docker Engine of this host {ENGINES[kind]}." for kind in request.host.get("engine_kind", ())
    ]


def check_network(request: Request) -> list[str]:
    """The Docker network of the server's name is the product's own."""
    owner = request.host.get("networks", {}).get("occupancy")  # the label of its Compose project
    if owner in (None, "occupancy-database", "occupancy"):  # the last one is the name in earlier releases
        return []
    project = f"the Compose project {owner}" if owner else "no Compose project"
    return [
        f"The Docker network occupancy of this host belongs to {project}, and the product makes one of this "
        "name. Give it another name there, then remove it: sudo docker network rm occupancy."
    ]


def listen_addresses(request: Request) -> list[str]:
    """The addresses of occupancy_listen_address, which is one or a list."""
    given = request["occupancy_listen_address"]
    return [str(each) for each in given] if isinstance(given, list) else [str(given)]


def listening(request: Request) -> list[str]:
    """The listeners on the port whose address overlaps with one that the server listens on."""
    wanted = {*listen_addresses(request), "127.0.0.1"}  # where the host's own programs find it
    every = ("*:", "0.0.0.0:", "[::]:")  # as ss prints them
    ours = tuple(f"[{address}]:" if ":" in address else f"{address}:" for address in wanted)
    return [
        each
        for each in request.host["listeners"] or []
        if each.startswith((*every, *ours)) or ("0.0.0.0" in wanted and not each.startswith("["))  # noqa: S104
    ]


def _check_addresses(request: Request, problem: Problems) -> None:
    """The addresses are of this host's kind: IPv4, or ::1."""
    addresses = listen_addresses(request)
    wrong = [each for each in addresses if not is_ipv4(each) and each != "::1"]
    problem(
        wrong or not addresses,
        f"occupancy_listen_address is '{', '.join(wrong)}', which is no IPv4 address. Of IPv6 only ::1 is "
        "possible: the engine's proxy would show every client of another one as a neighbour of the server, "
        "and occupancy_allowed_cidrs would keep none of them out.",
    )
    problem(
        addresses == ["::1"]
        or len(set(addresses)) < len(addresses)
        or ("0.0.0.0" in addresses and set(addresses) - {"0.0.0.0", "::1"}),  # noqa: S104
        "occupancy_listen_address must name each address once, an IPv4 address among them; 0.0.0.0 is all of "
        f"them already. It is {', '.join(addresses)}.",
    )


def _brings_images(request: Request) -> bool:
    """Whether the run brings images of a release that the host does not have.

    The images of an engine that is stopped, by a full disk for instance, are not known.
    """
    tag, images = re.compile(rf":{re.escape(request.version)}(-|$)"), request.host["images"]
    missing = bool(images) and not any(tag.search(image) for image in images)
    return missing and run_tags.brings_images(request.tags)


def renamed(request: Request) -> str:
    """What to do where occupancy_database is not the name of the database with the rows; empty if it is."""
    host, wanted = request.host, request["occupancy_database"]
    former = host["project"].get("OCCUPANCY_DATABASE", "")  # in the last run
    databases = (host["server"] or {"databases": {}})["databases"]
    if not host["cluster_version"] or former == wanted:
        return ""
    found = [former] if former else owned(databases, wanted, request["occupancy_test_database"])
    return rename(found, wanted) if wanted not in databases else ""


def owned(databases: Mapping[str, Mapping[str, str]], wanted: str, test: str) -> list[str]:
    """The databases of the product's owner that may be the one with the rows; none if `wanted` exists.

    Args:
        databases: The databases of the server by name.
        wanted: The database of the inventory.
        test: That of the application's tests.
    """
    return [
        name
        for name, database in databases.items()
        if wanted not in databases
        and database.get("owner") == "occupancy"
        and name != test
        and not name.endswith(("_restoring", "_replaced"))
    ]


def rename(found: Sequence[str], wanted: str) -> str:
    """How the database of a host gets the name of the inventory; empty if there is none, or for odd names."""
    if not found or not all(IDENTIFIER.fullmatch(name) for name in (found[0], wanted)):  # it is a command
        return ""
    return (
        f"The database of this host is {found[0]}, and an occupancy_database of the name {wanted} would be "
        "empty. To rename it, stop its clients, then run on the host: sudo docker exec --user 999 "
        f"{CONTAINER} psql --host /var/run/postgresql --dbname postgres "
        f"--command 'ALTER DATABASE {found[0]} RENAME TO {wanted}'."
    )


def _file_system(request: Request) -> str:
    """Why the data cannot be on the file system of their directory; empty if they can.

    NFS is not refused where it is mounted with `hard`, which is all that PostgreSQL requires of it:
    https://www.postgresql.org/docs/16/creating-cluster.html#CREATING-CLUSTER-NFS
    """
    host, kind = request.host, request.host["file_system"]
    options = host.get("mount_options", "").split(",")
    if kind in FOREIGN_FILE_SYSTEMS:
        why = "has no owners or modes of files that PostgreSQL could rely on"
    elif kind.startswith("fuse"):
        why = "is served by a program and does not guarantee that what PostgreSQL has written is kept"
    elif kind in ("tmpfs", "ramfs"):
        why = "is memory, whose contents end with the host's next start"
    elif kind == "overlay" and not host["kernel"]["container"]:
        why = (
            "shows the changes of this start only, as overlayroot and live systems do (on a Raspberry Pi, "
            "raspi-config switches it off)"
        )
    elif kind.startswith("nfs") and {"soft", "softerr"} & set(options):
        return (
            f"{request['occupancy_data_dir']} is on NFS that is mounted with soft: a pause of its server "
            "would damage the data. Mount it with hard, and let that server export it with sync."
        )
    else:
        return ""
    return (
        f"{request['occupancy_data_dir']} is on {kind}, which {why}: choose a directory on ext4, XFS or "
        "Btrfs (occupancy_data_dir)."
    )


def check_host(request: Request) -> list[str]:
    """The machine: distribution, memory, disk, cluster and port."""
    host, data_dir, problem = request.host, request["occupancy_data_dir"], Problems()
    problem(
        host["distribution_version"] not in SUPPORTED.get(host["distribution"], ()),
        f"{host['distribution']} {host['distribution_version']} is not supported: use Debian 12 or 13, "
        "or Ubuntu 22.04 or 24.04.",
    )
    problem(said := _file_system(request), said)
    problem(
        not host["memory_controller"],
        "The kernel cannot limit memory, so that the limit of the server's container would have no effect: "
        "add cgroup_enable=memory to the kernel's command line (on a Raspberry Pi in "
        "/boot/firmware/cmdline.txt), then start the host again.",
    )
    problem(
        host["memory_mb"] < (least := request["occupancy_min_memory_mb"]),
        f"The host has {host['memory_mb']} MB of memory and needs {least} (occupancy_min_memory_mb).",
    )
    # A host that is in use is not refused: the run may be the one that frees space. Its jobs check what
    # they need themselves.
    problem(
        host["free_mb"] < (least := request["occupancy_min_free_mb"]) and not host["cluster_version"],
        f"{host['free_mb']} MB are free for {data_dir}, which needs {least}: free disk space, choose "
        "another disk "
        "(occupancy_data_dir), or accept less (occupancy_min_free_mb).",
    )
    problem(
        host["cluster_version"] and _brings_images(request) and host["free_mb"] < IMAGES_MB,
        f"{host['free_mb']} MB are free for {data_dir}, and the images of this release take up to "
        f"{IMAGES_MB}. Free some first: --tags retention with fewer retention_months, then sudo occupancy-db "
        "cleanup --no-dry-run on the host.",
    )
    problem(
        host["cluster_version"] not in ("", MAJOR),
        f"{data_dir}/pgdata holds a cluster of PostgreSQL {host['cluster_version']}, and this is "
        f"PostgreSQL {MAJOR}: move "
        "the directory away, or restore a dump of it into a new cluster.",
    )
    problem(
        host["initialised"] and not host["cluster_version"],
        f"This host has had a cluster, and {data_dir}/pgdata holds none: is its disk mounted, did "
        "occupancy_data_dir change? "
        "To create an empty cluster instead, remove /opt/occupancy/initialised.",
    )
    problem(said := renamed(request), said)
    _check_containers(request, problem)
    return problem.found


def _check_containers(request: Request, problem: Problems) -> None:
    """The server's container can have its name and its port."""
    port, containers = request["occupancy_port"], request.host["containers"]
    strangers = [each for each in containers if each["project.working_dir"] != OURS]
    for each in strangers:
        place = (
            f"its Compose project is in {each['project.working_dir']}"
            if each["project.working_dir"]
            else "it is of no Compose project"
        )
        problem(
            each["name"] == CONTAINER,
            f"A container {CONTAINER} is here already and is not this product's ({place}): the server's "
            "needs this name. Give that one another (docker rename, container_name).",
        )
    published = [each for each in containers if f":{port}->" in each["ports"]]
    names = ", ".join(each["name"] for each in published)
    owners = f"container {names}" if names else ", ".join(listening(request))
    problem(
        owners and all(each in strangers for each in published),
        f"Port {port} is in use by {owners}: stop that program, or choose another occupancy_port.",
    )


def networks(cidrs: Iterable[str]) -> Iterator[IPv4Network | IPv6Network | None]:
    """The networks, None where the text is none in CIDR notation."""
    for cidr in cidrs:
        try:
            yield ip_network(cidr) if "/" in cidr else None
        except ValueError:
            yield None


def is_ipv4(text: str) -> bool:
    """Whether the text is an IPv4 address."""
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def check_occupancy(request: Request) -> list[str]:
    """The names, addresses and users of role occupancy, and the host."""
    problem = Problems()
    port, cidrs = request["occupancy_port"], request["occupancy_allowed_cidrs"]
    database, test = request["occupancy_database"], request["occupancy_test_database"]
    _check_addresses(request, problem)
    problem(not 1 <= port <= 65535, f"occupancy_port is {port}, which is no port.")
    own = [cidr for one in request["occupancy_extra_databases"] for cidr in one.get("allowed_cidrs") or []]
    for name, given in {"occupancy_allowed_cidrs": cidrs, "occupancy_extra_databases": own}.items():
        wrong = [cidr for cidr, network in zip(given, networks(given), strict=True) if network is None]
        problem(
            wrong,
            f"{name} holds what is no network in CIDR notation (like 192.168.1.0/24): {', '.join(wrong)}.",
        )
    problem(
        database == test or not all(IDENTIFIER.fullmatch(name) for name in (database, test or "unset")),
        "occupancy_database and occupancy_test_database must be two different names of lower-case "
        "letters, digits and _.",
    )
    problem(
        {database, test} & {"postgres", "template0", "template1"},
        "occupancy_database and occupancy_test_database cannot be one of the server's own.",
    )
    restoring, replaced = f"{database}_restoring", f"{database}_replaced"
    problem(
        len(restoring) > 63 or test in (restoring, replaced),
        f"A restore needs the names {restoring} and {replaced}: occupancy_database can have 53 "
        "characters, and "
        "occupancy_test_database must be another name.",
    )
    _check_users(request, problem)
    problem.found += other_databases.find_problems(request)
    problem.found += rooms.find_problems(request["occupancy_rooms"])
    problem.found += sensors.find_problems(request["occupancy_sensors"])
    if (zone := request["occupancy_timezone"]) and (reason := time_zone_problem(zone)):
        problem.found.append(f"occupancy_timezone: {reason}.")
    minutes = request["occupancy_checks_minutes"]
    problem(
        minutes not in INTERVALS,
        f"occupancy_checks_minutes is {minutes}, and must divide an hour: {', '.join(map(str, INTERVALS))}.",
    )
    schedule = request["occupancy_report_schedule"]
    problem(
        schedule and not SCHEDULE.fullmatch(schedule),
        "occupancy_report_schedule accepts five fields of crontab(5) in numbers, or nothing. Not so: "
        f"{schedule}.",
    )
    wrong_thresholds = thresholds.problems(request["occupancy_check_thresholds"])
    problem.found += [f"occupancy_check_thresholds: {text}." for text in wrong_thresholds]
    host = [*check_host(request), *check_engine(request), *check_network(request)]
    return [*host, *problem.found] if 1 <= port <= 65535 else [*problem.found, *host]


def _check_users(request: Request, problem: Problems) -> None:
    """The users of the operator, and the limit of the application's."""
    users = [user["name"] for user in request["occupancy_users"]]
    problem(
        len(set(users)) < len(users)
        or any(
            not IDENTIFIER.fullmatch(user) or user.startswith("pg_") or user in ("postgres", *request.product)
            for user in users
        ),
        "The names in occupancy_users must be lower-case letters, digits and _, each once, none of them "
        "a user of the "
        "product or of the server.",
    )
    limit = request["occupancy_application_idle_in_transaction"]
    problem(
        not INTERVAL.fullmatch(limit),
        "occupancy_application_idle_in_transaction must be a time as PostgreSQL writes it, like 15min, or 0, "
        f"and is '{limit}'.",
    )
