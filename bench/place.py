"""Where a benchmark runs: alone, with room on the disk, and far from anybody's database."""

import fcntl
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.server import ROOT, NoEngineError
from occupancy_db.settings import Settings

CACHE = ROOT / ".cache/bench"

console = Console(stderr=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    start = time.perf_counter()
    with console.status(what):
        yield
    console.print(f"{time.perf_counter() - start:7.1f} s  {what}", highlight=False)


@contextmanager
def workplace(gigabytes: int) -> Iterator[Path]:
    """An empty directory to work in, which is gone afterwards; ends the program where it cannot work.

    Args:
        gigabytes: GiB of disk that are needed.
    """
    # Nothing of what leads the developer's tools to a database may lead this to one.
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    CACHE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(CACHE).free < gigabytes << 30:
        sys.exit(f"not enough disk: {gigabytes} GiB are needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as work:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another benchmark is running here")
        os.chdir(work)  # where no .env is
        try:
            yield Path(work)
        except NoEngineError as error:
            sys.exit(str(error))
        finally:
            os.chdir(ROOT)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }
