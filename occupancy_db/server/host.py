"""The hardware of the server's machine, and the default memory limit of its container."""

import os
import re
from pathlib import Path

from occupancy_db.server.model import Disk, Machine

LEAST_MEMORY = 512
"""Smallest memory limit of the container, in MB."""

SYSTEM_MEMORY = 512
"""Memory of the operating system, in MB."""

MOST_MEMORY_BY_DEFAULT = 4096
"""Largest memory limit of the container that is chosen by default, in MB."""

CORES_BY_DEFAULT = 2
"""Cores of the container by default; the default of the variable ``occupancy_cpus`` is the same."""

_MEMORY_STEP = 64


def default_memory(machine: int) -> int:
    """Return the container's default memory limit in MB: half of the memory beside the operating system.

    The other half is for the containers of the jobs (up to 768 MB), Home Assistant and the page cache. The
    default is at most 4 GB, because a year of a home's readings is 1.5 GB. It is a multiple of 64 MB, so that
    the container is not created again when another kernel reports some megabytes more or less.

    Args:
        machine: Memory of the machine, in MB.
    """
    half = (machine - SYSTEM_MEMORY) // 2 // _MEMORY_STEP * _MEMORY_STEP
    return min(MOST_MEMORY_BY_DEFAULT, max(LEAST_MEMORY, half))


def disk_kind(device: str, rotational: bool) -> Disk:
    """Return the kind of a disk from what the kernel reports.

    The kernel reports all virtual disks as rotational, so they count as SSD.

    Args:
        device: Name of the device in the kernel, for example sda or vda1; may be empty.
        rotational: queue/rotational of the device.
    """
    return Disk.HDD if rotational and not device.startswith(("vd", "xvd")) else Disk.SSD


def probe(path: Path = Path("/")) -> Machine:
    """Read the hardware of this machine.

    Args:
        path: Directory that holds, or will hold, the data.

    Raises:
        OSError: the path does not exist, or this is not Linux.
    """
    memory = re.search(
        r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    if memory is None:
        raise OSError("/proc/meminfo has no MemTotal")
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    # A partition has no queue directory; its disk, one level up, has it.
    flags = [place / "queue/rotational" for place in (device, device.parent)]
    rotational = next(
        (flag.read_text(encoding="ascii").strip() == "1" for flag in flags if flag.exists()), False
    )
    file_system = os.statvfs(path)
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory=int(memory[1]) // 1024,
        disk=disk_kind(device.name, rotational),
        disk_size=file_system.f_blocks * file_system.f_frsize // 2**20,
    )
